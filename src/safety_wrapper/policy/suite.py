"""Run a bundle's own cases through the very path of the hook, which the caller gives as one function.

Two kinds of cases: a rule's examples (``<rule>/m1`` must fire the rule, ``<rule>/n1`` must not) and the suite's own,
which say class, and perhaps external, outcome and rules. Pure but for what ``classify`` does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from safety_wrapper.model import Outcome, SafetyClass
from safety_wrapper.policy.bundle import Bundle
from safety_wrapper.policy.tool_shape import registry_key


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the hook's path says of one call. ``rules`` holds the reserved ``sw.…`` id when a fault blocked it."""

    safety_class: SafetyClass
    external: bool
    outcome: Outcome
    rules: tuple[str, ...]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Failure:
    """One case that did not come out as it says: ``id`` is the case's, ``message`` what was expected and what came."""

    id: str
    message: str


#: Registry key of the tool, parameters, the case's test context → verdict.
type Classify = Callable[[str, Mapping[str, Any], Mapping[str, Any]], Verdict]


def check(bundle: Bundle, classify: Classify) -> list[Failure]:
    """Every case that fails, by id. An empty list = the bundle does what it says it does.

    ``classify`` gets the registry key, the parameters and the case's context as the bundle has them (frozen), and
    must not raise for a call that is blocked: that is a verdict. O(cases).
    """
    return [failure for case in bundle.suite for failure in _failures(bundle, case, classify)]


def case_key(bundle: Bundle, tool: str, kind: str | None) -> str:
    """The registry key that a case means: by its kind; without one, the entry of that name, own tools first.

    A name that several foreign entries share, or none has, is given back as it is: an unlisted tool.
    """
    if kind is not None:
        return registry_key(kind, tool)
    if tool in bundle.tools:
        return tool
    named = [key for key, entry in bundle.tools.items() if entry.name == tool]
    return named[0] if len(named) == 1 else tool


def _failures(bundle: Bundle, case: Mapping[str, Any], classify: Classify) -> Iterator[Failure]:
    key = case_key(bundle, case["tool"], case.get("kind"))
    verdict = classify(key, case["params"], case.get("context", {}))
    rule, example, number = case["id"].partition("/")
    if example:
        fired = rule in verdict.rules
        if fired is not number.startswith("m"):
            must = "must fire" if not fired else "must not fire"
            yield Failure(case["id"], f"{rule} {must}; fired: {_list(verdict.rules)}")
        return
    expect = case["expect"]
    if verdict.safety_class is not SafetyClass[expect["class"]]:
        yield Failure(
            case["id"], f"class {expect['class']} expected, {verdict.safety_class.name} came; {_list(verdict.rules)}"
        )
    if verdict.external is not expect.get("external", verdict.external):
        yield Failure(case["id"], f"external {_word(expect['external'])} expected, {_word(verdict.external)} came")
    if verdict.outcome.wire != expect.get("outcome", verdict.outcome.wire):
        yield Failure(case["id"], f"outcome {expect['outcome']} expected, {verdict.outcome.wire} came")
    missing = sorted(set(expect.get("rules", ())) - set(verdict.rules))
    if missing:
        yield Failure(case["id"], f"rules {_list(missing)} expected; fired: {_list(verdict.rules)}")


def _list(rules: tuple[str, ...] | list[str]) -> str:
    return ", ".join(rules) or "none"


def _word(flag: bool) -> str:  # noqa: FBT001
    return "yes" if flag else "no"
