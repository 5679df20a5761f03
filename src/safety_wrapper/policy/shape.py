"""Whether a JSON value is a bundle of format 1: first its shape by schema, then what its parts say about each other.

``bundle.schema.json`` beside this file is the shape. Here stand the laws that a schema can't say of rules, examples
and templates: order, ids that must exist, raising that raises. ``tool_shape`` and ``params`` have those of tools.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

import jsonschema_rs

from safety_wrapper.model import RESERVED_RULES, RESOURCES, SafetyClass
from safety_wrapper.policy.faults import MAX_FAULTS, BundleShapeError, Fault, Place, visible
from safety_wrapper.policy.tool_shape import adapter_faults, egress_faults, tool_faults

#: What a template may name: an effect's resource (for its value) or a plain fact of the call.
SLOTS: Final = frozenset(RESOURCES) | {"tool", "program", "method", "count", "amount"}
_SLOT: Final = re.compile(r"\{([^{}]*)\}")
_SCHEMA: Final = Path(__file__).with_name("bundle.schema.json")


def check_shape(value: Any) -> None:
    """Raise BundleShapeError unless ``value`` (strictly parsed JSON) is a bundle of format 1. O(size)."""
    faults = tuple(islice(_schema_faults(value), MAX_FAULTS)) or tuple(islice(_cross_faults(value), MAX_FAULTS))
    if faults:
        raise BundleShapeError(faults)


def check_context(value: Any) -> None:
    """Raise BundleShapeError unless ``value`` is a test context as a case of the suite may have."""
    if faults := tuple(islice(_schema_faults(value, "#/$defs/case/properties/context"), MAX_FAULTS)):
        raise BundleShapeError(faults)


@cache
def _validator(part: str) -> jsonschema_rs.Validator:
    schema = json.loads(_SCHEMA.read_bytes())
    if part:
        schema = {"$ref": part, "$defs": schema["$defs"]}
    # patterns on the linear-time engine: what is judged here may be hostile
    return jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())


def _schema_faults(value: Any, part: str = "") -> Iterator[Fault]:
    for error in _validator(part).iter_errors(value):
        yield Fault(tuple(error.instance_path), visible(error.message[:200]))


def _cross_faults(bundle: Mapping[str, Any]) -> Iterator[Fault]:
    for section in ("rules", "suite", "egress"):
        yield from _order_faults((section,), [item["id"] for item in bundle[section]])
    cases = {case["id"] for case in bundle["suite"]}
    examples: set[str] = set()
    for index, rule in enumerate(bundle["rules"]):
        at: Place = ("rules", index)
        yield from _rule_faults(at, rule)
        yield from _example_faults((*at, "examples"), rule, cases)
        if rule["id"] not in bundle["templates"]:
            yield Fault(at, f"no template says the reason of {rule['id']}")
        examples.update(rule["examples"]["match"], rule["examples"]["no_match"])
    for index, case in enumerate(bundle["suite"]):
        yield from _case_faults(("suite", index), case, examples)
    rule_ids = {rule["id"] for rule in bundle["rules"]}
    for rule_id, template in bundle["templates"].items():
        if rule_id not in rule_ids and not rule_id.startswith("sw."):
            yield Fault(("templates", rule_id), "there is no such rule")
        yield from _template_faults(("templates", rule_id), template)
    for key, entry in bundle["tools"].items():
        yield from tool_faults(("tools", key), key, entry)
    yield from adapter_faults(bundle["adapters"], bundle["tools"])
    for index, route in enumerate(bundle["egress"]):
        yield from egress_faults(("egress", index), route)


def _order_faults(at: Place, ids: list[str]) -> Iterator[Fault]:
    for index, (left, right) in enumerate(pairwise(ids), start=1):
        if left >= right:
            yield Fault((*at, index, "id"), f"{right}: ids must be ascending, each once")


def _rule_faults(at: Place, rule: Mapping[str, Any]) -> Iterator[Fault]:
    safety_class = SafetyClass[rule["class"]]
    if rule["id"] == "sw" or rule["id"].startswith("sw."):
        yield Fault((*at, "id"), "ids below sw are the engine's own")
    if "text" in rule["when"] and not rule["raise_only"]:
        yield Fault((*at, "raise_only"), "a pattern on raw text may only raise")
    if rule["raise_only"] and safety_class is SafetyClass.GREEN:
        yield Fault((*at, "class"), "a rule that may only raise can't be GREEN")
    yield from _when_faults((*at, "when"), rule["when"])
    for index, step in enumerate(rule["escalate"]):
        place = (*at, "escalate", index)
        yield from _when_faults((*place, "when"), step["when"])
        becomes_external = "external" in step and "external" not in rule
        if SafetyClass[step["class"]] < safety_class + (not becomes_external):
            yield Fault((*place, "class"), "does not raise the rule's own class")


def _when_faults(at: Place, when: Mapping[str, Any]) -> Iterator[Fault]:
    for condition, value in when.items():
        groups = value if isinstance(value, dict) else {"": value}
        for operator, operands in groups.items():
            place = (*at, condition, operator) if operator else (*at, condition)
            if any(left >= right for left, right in pairwise(operands)):
                yield Fault(place, "must be sorted, each value once")
            if condition == "path" and operator != "prefix":
                yield from _path_faults(place, operands)


def _path_faults(at: Place, operands: list[str]) -> Iterator[Fault]:
    for path in operands:
        steps = path.split("/")[1:]
        if not path.startswith("/") or (path != "/" and any(step in {"", ".", ".."} for step in steps)):
            yield Fault(at, f"not an absolute, normalised path: {visible(path[:80])}")


def _example_faults(at: Place, rule: Mapping[str, Any], cases: set[str]) -> Iterator[Fault]:
    for group, letter in (("match", "m"), ("no_match", "n")):
        ids = rule["examples"][group]
        if ids != [f"{rule['id']}/{letter}{number}" for number in range(1, len(ids) + 1)]:
            yield Fault((*at, group), f"must be {rule['id']}/{letter}1, {letter}2 … in this order")
        for case in ids:
            if case not in cases:
                yield Fault((*at, group), f"the suite has no case {case}")


def _case_faults(at: Place, case: Mapping[str, Any], examples: set[str]) -> Iterator[Fault]:
    if "/" in case["id"]:
        if case["id"] not in examples:
            yield Fault((*at, "id"), "an example that no rule names")
        if "expect" in case:
            yield Fault((*at, "expect"), "an example's expectation is its rule")
    elif "expect" not in case:
        yield Fault(at, "expects nothing")
    for rule in case.get("expect", {}).get("rules", ()):
        if rule.startswith("sw.") and rule not in RESERVED_RULES:
            yield Fault((*at, "expect", "rules"), f"the engine has no rule {visible(rule)}")


def _template_faults(at: Place, template: Mapping[str, str]) -> Iterator[Fault]:
    for name, text in template.items():
        if visible(text) != text or text != text.strip():
            yield Fault((*at, name), "must be one visible line without blanks around it")
        for slot in _SLOT.findall(text):
            if slot not in SLOTS:
                yield Fault((*at, name), f"there is no slot {{{visible(slot[:40])}}}")
        rest = _SLOT.sub("", text)
        if "{" in rest or "}" in rest:
            yield Fault((*at, name), "a brace that is no slot")
