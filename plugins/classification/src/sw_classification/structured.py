"""Tools without an analyser of their own: their effects are what their registry entry says, with values of the call.

The registry's class covers these effects; rules raise. A recipient outside makes the call external.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from safety_wrapper.model import ToolCall
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification.addresses import is_inside, parse_address, recipients
from sw_classification.facts import Fact, Findings
from sw_classification.files import odd_path, path_fact
from sw_classification.paths import resolve
from sw_classification.urls import UrlError, is_internal, parse_host
from sw_classification.web import request_fact

MAX_VALUES: Final = 200
_AMOUNTS: Final = ("amount", "total", "sum", "amount_cents")
_CHANNELS: Final = ("channel",)


def analyse_templates(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """One fact for each value that an effect template names; one without value where it names none."""
    shared: dict[str, Any] = {
        "amount": _number(call.params, _AMOUNTS),
        "channel": next((v for name in _CHANNELS if type(v := call.params.get(name)) is str), None),
    }
    for template in entry.effects:
        values = [value for source in template.sources for value in _values(call.params.get(source))]
        if len(values) > MAX_VALUES:
            findings.make_opaque("it names more targets than can be looked at one by one")
        if not values:
            findings.facts.append(Fact(template.kind, template.resource, "", covered=True, **shared))
        for value in values[:MAX_VALUES]:
            fact = _fact(template.kind, template.resource, value, call, policy, findings)
            fact.count = len(values)
            fact.amount, fact.channel = shared["amount"], shared["channel"]
            findings.facts.append(fact)


def _fact(kind: str, resource: str, value: str, call: ToolCall, policy: Policy, findings: Findings) -> Fact:
    if resource == "recipient":
        return _recipient(kind, value, policy)
    if resource == "path":
        fault = odd_path(value)
        if fault:
            findings.make_opaque(fault)
            return Fact(kind, resource, value, unresolved=True)
        fact = path_fact(kind, resolve(value, call.binding.cwd))
        # a path of another system (a cloud folder) may be relative to it
        fact.covered, fact.unresolved = True, False
        return fact
    if resource == "url":
        fact = request_fact("GET", value, carries=kind != "read", policy=policy, findings=findings)
        fact.kind, fact.covered, fact.method = kind, True, None
        return fact
    if resource == "host":
        return _host(kind, value, policy)
    return Fact(kind, resource, value, covered=True)


def _recipient(kind: str, value: str, policy: Policy) -> Fact:
    parsed = parse_address(value)
    address = f"{parsed[0]}@{parsed[1]}" if parsed else value
    inside = is_inside(value, policy.tenant.domains)
    return Fact(kind, "recipient", address, recipient=address, external=not inside, covered=True)


def _host(kind: str, value: str, policy: Policy) -> Fact:
    try:
        host = parse_host(value)
    except UrlError:
        return Fact(kind, "host", value, external=True, unresolved=True)
    return Fact(
        kind, "host", host, host=host, external=not is_internal(host, policy.tenant.internal_hosts), covered=True
    )


def _values(value: object) -> Iterator[str]:
    """Every text in a parameter; addresses in one text are taken apart."""
    if value is None:
        return
    if isinstance(value, str) and "@" not in value:
        yield value
        return
    yield from recipients(value)


def _number(params: Mapping[str, Any], names: tuple[str, ...]) -> float | None:
    for name in names:
        value = params.get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None
