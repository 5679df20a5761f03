"""The shapes of owner statements (docs/reference/schemas.md §7): checked on the way in, keyed for "newest by kind"."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from safety_wrapper.errors import RefusedError
from safety_wrapper.model import GateState

UNLOCK_MAX_S: Final = 30 * 24 * 3600
MAX_REASON: Final = 200

_AGENT: Final = re.compile(r"\*|[a-z0-9][a-z0-9._-]{0,62}")
_DOMAIN: Final = re.compile(
    r"(?=.{1,253}\Z)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)+"
)
_HOST: Final = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9.-]*[a-z0-9])?")
_ADDRESS: Final = re.compile(r"[^@\s\x00-\x1f*?]{0,64}@(?P<domain>[a-z0-9.-]+)")
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def check(kind: str, body: Mapping[str, Any], made_at: int, ends_at: int | None) -> str:
    """The key under which the newest statement of ``kind`` counts.

    Raises RefusedError for an unknown kind, a body of another shape, and an end that lies behind or too far ahead.
    """
    checker = _CHECKERS.get(kind)
    if checker is None:
        raise RefusedError("no such kind of owner statement")
    if ends_at is not None and ends_at <= made_at:
        raise RefusedError("the statement would have ended already")
    try:
        key = checker(body)
    except (TypeError, AttributeError) as exc:
        raise RefusedError(f"not the body of a {kind} statement") from exc
    if kind == "unlock" and (ends_at is None or ends_at > made_at + UNLOCK_MAX_S):
        raise RefusedError("an unlock needs an end within 30 days")
    return key


def _level(body: Mapping[str, Any]) -> str:
    _keys(body, "agent", "level")
    _want(type(body["level"]) is int and body["level"] in (1, 2, 3), "level is 1, 2 or 3")
    return _agent(body)


def _gate(body: Mapping[str, Any]) -> str:
    _keys(body, "agent", "state")
    _want(body["state"] in (GateState.LOCKED.value, GateState.NAMED.value), "gate is locked or named")
    return _agent(body)


def _unlock(body: Mapping[str, Any]) -> str:
    _keys(body, "agent", "tool", "channel", "to", "count")
    found = _ADDRESS.fullmatch(body["to"])
    _want(found is not None and _DOMAIN.fullmatch(found["domain"]) is not None, "an exact address or @domain")
    _want(type(body["count"]) is int and 1 <= body["count"] <= 10_000, "count is 1 to 10000")
    _want(_is_text(body["tool"], 128) and (body["channel"] is None or _is_text(body["channel"], 128)), "tool, channel")
    return "\x00".join((_agent(body), body["tool"], body["channel"] or "", body["to"]))


def _tenant(body: Mapping[str, Any]) -> str:
    _keys(body, "domains", "internal_services")
    _want(isinstance(body["domains"], list) and isinstance(body["internal_services"], list), "two lists")
    _want(all(_DOMAIN.fullmatch(domain) for domain in body["domains"]), "exact domains in lower case")
    for service in body["internal_services"]:
        _keys(service, "host", "port", "address")
        _want(_HOST.fullmatch(service["host"]) is not None, "an exact host in lower case")
        _want(type(service["port"]) is int and 1 <= service["port"] <= 65535, "a port")
        try:
            ipaddress.ip_address(service["address"])
        except ValueError as exc:
            raise RefusedError("an internal service needs an exact address") from exc
    return ""


def _secret_scope(body: Mapping[str, Any]) -> str:
    _keys(body, "secret", "uses")
    _want(_NAME.fullmatch(body["secret"]) is not None and isinstance(body["uses"], list), "a secret's name and uses")
    for use in body["uses"]:
        _want(isinstance(use, list) and len(use) == 2 and all(_is_text(part, 128) for part in use), "[tool, slot]")
    return str(body["secret"])


def _hub_session(body: Mapping[str, Any]) -> str:
    _keys(body, "enabled")
    _want(type(body["enabled"]) is bool, "enabled is true or false")
    return ""


def _bundle(body: Mapping[str, Any]) -> str:
    _keys(body, "sha256")
    _want(_SHA256.fullmatch(body["sha256"]) is not None, "a digest")
    return str(body["sha256"])


_CHECKERS: Final[dict[str, Callable[[Mapping[str, Any]], str]]] = {
    "level": _level,
    "gate": _gate,
    "unlock": _unlock,
    "tenant": _tenant,
    "secret_scope": _secret_scope,
    "hub_session": _hub_session,
    "bundle": _bundle,
}


def _keys(body: Mapping[str, Any], *names: str) -> None:
    _want(body.keys() == set(names), "exactly the keys " + ", ".join(names))


def _agent(body: Mapping[str, Any]) -> str:
    _want(_AGENT.fullmatch(body["agent"]) is not None, "an agent's name or *")
    return str(body["agent"])


def _is_text(value: Any, most: int) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= most and value.isprintable()


def _want(holds: bool, wanted: str) -> None:  # noqa: FBT001 - a condition is a condition
    if not holds:
        raise RefusedError(f"an owner statement needs {wanted}")
