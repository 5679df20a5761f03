"""What the registry's entries, their adapters and the egress rules must say beyond their schema."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from safety_wrapper.model import ToolKind
from safety_wrapper.naming import is_dotted
from safety_wrapper.policy.faults import Fault, Place, visible
from safety_wrapper.policy.params import param_faults

OWN: Final = ToolKind.OWN_TOOL.value
_OWN_RUNS: Final = frozenset({"core", "runner", "adapter"})
_WHOLE_SLOT: Final = re.compile(r"\{([A-Za-z_][A-Za-z0-9_.-]*)\}")


def registry_key(kind: str, name: str) -> str:
    """The key of a tool in the registry: own tools under their name, others as ``kind:name``."""
    return name if kind == OWN else f"{kind}:{name}"


def tool_faults(at: Place, key: str, entry: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with one registry entry that has the schema's shape."""
    kind, name, own = entry["kind"], entry["name"], entry["kind"] == OWN
    if key != registry_key(kind, name):
        yield Fault(at, f"must stand under {registry_key(kind, name)}")
    if own and not is_dotted(name):
        yield Fault((*at, "name"), "not a dotted name that could be offered")
    if (entry["runs"] in _OWN_RUNS) is not own:
        yield Fault((*at, "runs"), f"{kind} can't run there")
    if entry["offer"] and not own:
        yield Fault((*at, "offer"), "only own tools are offered")
    if visible(entry["summary"]) != entry["summary"]:
        yield Fault((*at, "summary"), "must be one visible line")
    for place, message in param_faults(entry["params"]):
        yield Fault((*at, "params", *place), message)
    yield from _parameter_faults(at, entry)
    if "program" in entry:
        yield from _program_faults((*at, "program"), entry)


def adapter_faults(adapters: Mapping[str, Any], tools: Mapping[str, Any]) -> Iterator[Fault]:
    """Each adapter entry belongs to one tool that runs in an adapter; no tool has two."""
    seen: set[str] = set()
    for system, adapter in adapters.items():
        for tool in adapter["tools"]:
            at: Place = ("adapters", system, "tools", tool)
            if tools.get(tool, {}).get("runs") != "adapter":
                yield Fault(at, "there is no own tool of this name that runs in an adapter")
            if tool in seen:
                yield Fault(at, "a second adapter for this tool")
            seen.add(tool)


def egress_faults(at: Place, rule: Mapping[str, Any]) -> Iterator[Fault]:
    """What is wrong with one egress rule that has the schema's shape."""
    if any(step in {".", ".."} for step in rule["path"].split("/")):
        yield Fault((*at, "path"), "holds . or ..")
    for name in ("method", "query"):
        if rule[name] != sorted(rule[name]):
            yield Fault((*at, name), "must be sorted")


def _parameter_faults(at: Place, entry: Mapping[str, Any]) -> Iterator[Fault]:
    properties = _properties(entry)
    for index, effect in enumerate(entry["effects"]):
        for source in effect["from"]:
            if source not in properties:
                yield Fault((*at, "effects", index, "from"), f"there is no parameter {visible(source)}")
    for sink in entry["sinks"]:
        if sink not in properties:
            yield Fault((*at, "sinks", sink), "there is no such parameter")


def _program_faults(at: Place, entry: Mapping[str, Any]) -> Iterator[Fault]:
    program, properties = entry["program"], _properties(entry)
    if entry["runs"] != "runner":
        yield Fault(at, "only the runner runs programs")
    for index, argument in enumerate(program["argv"]):
        slot = _WHOLE_SLOT.fullmatch(argument)
        if slot and slot[1] not in properties:
            yield Fault((*at, "argv", index), "there is no such parameter")
        if not slot and ("{" in argument or "}" in argument):
            yield Fault((*at, "argv", index), "a placeholder fills exactly one argument")
    for variable, source in program["env"].items():
        if entry["slots"].get(source["slot"], {}).get("sink") != "runner":
            yield Fault((*at, "env", variable), "there is no such slot with the sink runner")


def _properties(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = entry["params"].get("properties", {})
    return properties if isinstance(properties, dict) else {}
