"""A compiled bundle as frozen values. Shapes: docs/reference/schemas.md §5 and §6."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from safety_wrapper.model import SafetyClass, ToolKind


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
