"""From what authors write to the one compiled form: defaults filled in, single values as lists, lists sorted.

Total over parsed YAML: a value of a wrong shape passes through as it is, and the bundle's own checks name it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from safety_wrapper.policy.faults import Place

#: Keys of a rule as written that are no part of the compiled rule: its sentences and its examples.
SENTENCES: Final = ("reason", "instead", "approval")
_EXAMPLES: Final = (("match", "m"), ("no_match", "n"))
_TOOL_DEFAULTS: Final[Mapping[str, Any]] = {"offer": False, "effects": [], "slots": {}, "sinks": {}, "caps": {}}
_ROUTE_DEFAULTS: Final[Mapping[str, Any]] = {"query": [], "slot": None, "stream": False, "address": None}


def sorted_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The compiled rule. A pattern on raw text forces ``raise_only`` unless the author wrote the opposite."""
    compiled = {key: value for key, value in rule.items() if key not in {*SENTENCES, "match", "no_match"}}
    when = rule.get("when")
    if "when" in compiled:
        compiled["when"] = _when(when)
    compiled.setdefault("raise_only", isinstance(when, dict) and "text" in when)
    compiled.setdefault("escalate", [])
    if isinstance(compiled["escalate"], list):
        compiled["escalate"] = [
            {**step, "when": _when(step["when"])} if isinstance(step, dict) and "when" in step else step
            for step in compiled["escalate"]
        ]
    compiled["examples"] = {
        group: [f"{rule['id']}/{letter}{n}" for n in range(1, len(_cases(rule, group)) + 1)]
        for group, letter in _EXAMPLES
    }
    return compiled


def rule_template(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The sentences of a rule; empty when it has none of its own."""
    return {name: rule[name] for name in SENTENCES if name in rule}


def example_cases(rule: Mapping[str, Any]) -> tuple[list[tuple[Place, dict[str, Any]]], list[tuple[Place, str]]]:
    """The rule's examples as cases of the suite, each with its place in the rule; and what is wrong with them."""
    found: list[tuple[Place, dict[str, Any]]] = []
    faults: list[tuple[Place, str]] = []
    if "examples" in rule:
        faults.append((("examples",), "examples are written under match and no_match"))
    for group, letter in _EXAMPLES:
        if not _cases(rule, group):
            faults.append(((group,), f"needs at least one example under {group}"))
        for index, case in enumerate(_cases(rule, group)):
            place: Place = (group, index)
            if not isinstance(case, dict):
                faults.append((place, "must be a mapping with tool and params"))
            elif "id" in case:
                faults.append(((*place, "id"), "examples are numbered by themselves"))
            else:
                found.append((place, {**case, "id": f"{rule['id']}/{letter}{index + 1}"}))
    return found, faults


def sorted_tool(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The compiled registry entry."""
    tool: dict[str, Any] = {**_TOOL_DEFAULTS, **entry}
    result = tool.get("result", {})
    tool["result"] = {"fields": {}, "default": "untrusted", **result} if isinstance(result, dict) else result
    base = tool.get("base")
    if isinstance(base, dict):
        tool["base"] = {"external": False, **base}
    if isinstance(tool["effects"], list):
        tool["effects"] = [_effect(effect) for effect in tool["effects"]]
    program = tool.get("program")
    if isinstance(program, dict):
        tool["program"] = {"argv": [], "env": {}, **program}
    return tool


def with_route_defaults(rule: Mapping[str, Any]) -> dict[str, Any]:
    """The compiled egress rule."""
    route: dict[str, Any] = {**_ROUTE_DEFAULTS, **rule}
    for name in ("method", "query"):
        if name in route:
            route[name] = _listed(route[name])
    return route


def _effect(effect: Any) -> Any:
    if not isinstance(effect, dict):
        return effect
    source = effect.get("from", [])
    return {**effect, "from": [source] if isinstance(source, str) else source}


def _cases(rule: Mapping[str, Any], group: str) -> list[Any]:
    cases = rule.get(group)
    return cases if isinstance(cases, list) else []


def _when(when: Any) -> Any:
    if not isinstance(when, dict):
        return when
    return {name: _condition(value) for name, value in when.items()}


def _condition(value: Any) -> Any:
    if isinstance(value, dict):
        return {operator: _listed(operand) for operator, operand in value.items()}
    return _listed(value)


def _listed(value: Any) -> Any:
    """A single value as a list; a list of one kind sorted."""
    if value is None or isinstance(value, dict):
        return value
    items = value if isinstance(value, list) else [value]
    if all(isinstance(item, str) for item in items):
        return sorted(items)
    if all(isinstance(item, (int, float)) and not isinstance(item, bool) for item in items):
        return sorted(items)
    return items
