"""A compiled bundle as frozen values, and the one strict way from bytes to it.

Shapes: docs/reference/policy-bundle.md. What :func:`parse` gives can't be changed any more: mappings are read-only
views, lists are tuples. Whether the bundle may be taken into force is the business of ``activation``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from safety_wrapper import __version__
from safety_wrapper.canonical import canonical_json, digest, parse_strict
from safety_wrapper.errors import BundleFormatError, CanonicalError
from safety_wrapper.model import SafetyClass, ToolKind
from safety_wrapper.policy.shape import check_shape

FORMAT: Final = 1
MAX_BUNDLE_BYTES: Final = 8 * 1024 * 1024
_SECTIONS: Final = ("egress", "redaction", "prices", "adapters")


@dataclass(frozen=True, slots=True)
class EffectTemplate:
    """An effect that a tool has by its nature: its value comes from one of the parameters ``sources``."""

    kind: str
    resource: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ToolEntry:
    """One tool of the registry: the only place that says that a tool exists and what it may be given."""

    name: str
    kind: ToolKind
    runs: str
    offer: bool
    summary: str
    params: Mapping[str, Any]
    base_class: SafetyClass
    base_external: bool
    effects: tuple[EffectTemplate, ...]
    definition_sha256: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class TenantFacts:
    """What only the owner may say about the tenant; from owner statements, never from a bundle or the Hub."""

    domains: tuple[str, ...] = ()
    internal_hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Bundle:
    """One compiled bundle. ``sha256`` is over the exact bytes that were signed. ``rules`` keep their compiled form."""

    name: str
    version: int
    min_wrapper: str
    expires_at: int
    tools: Mapping[str, ToolEntry]
    rules: tuple[Mapping[str, Any], ...]
    templates: Mapping[str, Any]
    suite: tuple[Mapping[str, Any], ...]
    sections: Mapping[str, Any]
    sha256: str


@dataclass(frozen=True, slots=True)
class Policy:
    """What classifiers judge by: the bundle in force and the owner's facts. Equal policy, equal answer."""

    bundle: Bundle
    tenant: TenantFacts = TenantFacts()


def parse(data: bytes) -> Bundle:
    """Read compiled bytes. Raises BundleFormatError (BundleShapeError with places, where the JSON itself is sound).

    Refused: more than MAX_BUNDLE_BYTES, not strict JSON, not the canonical form of itself, another format, an
    unknown key anywhere, a part that contradicts another, a ``min_wrapper`` newer than this program. O(len(data)).
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleFormatError("bundle.json is too big")
    try:
        value = parse_strict(data)
        canonical = canonical_json(value)
    except CanonicalError as exc:
        raise BundleFormatError(f"bundle.json: {exc.message}") from exc
    if canonical != data:
        raise BundleFormatError("bundle.json is not in canonical form", do="build it again from its source")
    if not isinstance(value, dict):
        raise BundleFormatError("bundle.json must be one object")
    check_shape(value)
    if _release(value["min_wrapper"]) > _release(__version__):
        raise BundleFormatError(
            f"the bundle needs safety-wrapper {value['min_wrapper']}, this is {__version__}", do="upgrade first"
        )
    return _build(value, hashlib.sha256(data).hexdigest())


def freeze(value: Any) -> Any:
    """Plain JSON as read-only mappings and tuples, throughout."""
    if isinstance(value, dict):
        return MappingProxyType({key: freeze(item) for key, item in value.items()})
    if isinstance(value, list):
        return tuple(freeze(item) for item in value)
    return value


def thaw(value: Any) -> Any:
    """The opposite of :func:`freeze`: plain dicts and lists, for encoders and schema compilers that want those."""
    if isinstance(value, Mapping):
        return {key: thaw(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [thaw(item) for item in value]
    return value


def _build(value: dict[str, Any], sha256: str) -> Bundle:
    adapters = {tool: entry for system in value["adapters"].values() for tool, entry in system["tools"].items()}
    return Bundle(
        name=value["name"],
        version=value["version"],
        min_wrapper=value["min_wrapper"],
        expires_at=value["expires_at"],
        tools=MappingProxyType({key: _tool(entry, adapters.get(key)) for key, entry in value["tools"].items()}),
        rules=freeze(value["rules"]),
        templates=freeze(value["templates"]),
        suite=freeze(value["suite"]),
        sections=freeze({name: value[name] for name in _SECTIONS}),
        sha256=sha256,
    )


def _tool(entry: dict[str, Any], adapter: dict[str, Any] | None) -> ToolEntry:
    frozen = freeze(entry)
    return ToolEntry(
        name=entry["name"],
        kind=ToolKind(entry["kind"]),
        runs=entry["runs"],
        offer=entry["offer"],
        summary=entry["summary"],
        params=frozen["params"],
        base_class=SafetyClass[entry["base"]["class"]],
        base_external=entry["base"]["external"] or entry["base"]["class"] == "YELLOW_EXTERNAL",
        effects=tuple(EffectTemplate(e["kind"], e["resource"], tuple(e["from"])) for e in entry["effects"]),
        definition_sha256=digest("sw/tool/v1", {"adapter": adapter, "tool": entry}),
        raw=frozen,
    )


def _release(version: str) -> tuple[int, ...]:
    """``1.2.3`` and ``1.2.3.dev4`` as (1, 2, 3)."""
    found = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    if found is None:
        raise BundleFormatError("a version number that is none")
    return tuple(int(part) for part in found.groups())
