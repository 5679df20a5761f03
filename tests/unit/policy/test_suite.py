"""A bundle's own cases against what a judge says of each call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from safety_wrapper.model import Outcome, SafetyClass
from safety_wrapper.policy import parse
from safety_wrapper.policy.suite import Classify, Verdict, case_key, check
from unit.policy.samples import compiled

BUNDLE = parse(compiled())
DELETES = Verdict(SafetyClass.RED, external=False, outcome=Outcome.REQUIRE_APPROVAL, rules=("files.delete", "x"))
NOTHING = Verdict(SafetyClass.GREEN, external=False, outcome=Outcome.ALLOW, rules=())
UNLISTED = Verdict(SafetyClass.RED, external=False, outcome=Outcome.ALLOW, rules=("sw.unlisted",))


def sound(key: str, params: Mapping[str, Any], context: Mapping[str, Any]) -> Verdict:
    """A judge that says what the sample's cases want."""
    if key == "builtin:exec":
        assert context["level"] == 3
        return UNLISTED
    assert context == {}
    return DELETES if params["command"].startswith("rm") else NOTHING


def test_a_bundle_that_does_what_it_says_has_no_failures() -> None:
    assert check(BUNDLE, sound) == []


def test_a_rule_that_does_not_fire_fails_its_match() -> None:
    failures = check(BUNDLE, lambda key, p, c: sound(key, p, c) if key != "exec" else NOTHING)
    assert [failure.id for failure in failures] == ["files.delete/m1"]
    assert "must fire" in failures[0].message


def test_a_rule_that_fires_too_often_fails_its_no_match() -> None:
    failures = check(BUNDLE, lambda key, p, c: sound(key, p, c) if key != "exec" else DELETES)
    assert [failure.id for failure in failures] == ["files.delete/n1"]
    assert "must not fire" in failures[0].message


def _saying(verdict: Verdict) -> Classify:
    """The sound judge, but for the built-in."""
    return lambda key, params, context: verdict if key == "builtin:exec" else sound(key, params, context)


def test_each_expectation_is_compared() -> None:
    changes: list[tuple[dict[str, Any], str]] = [
        ({"safety_class": SafetyClass.CRITICAL_RED}, "class RED expected, CRITICAL_RED came"),
        ({"external": True}, "external no expected, yes came"),
        ({"outcome": Outcome.BLOCK}, "outcome allow expected, block came"),
        ({"rules": ("other",)}, "rules sw.unlisted expected; fired: other"),
    ]
    for change, message in changes:
        verdict = replace(UNLISTED, **change)
        failures = check(BUNDLE, _saying(verdict))
        assert [failure.id for failure in failures] == ["suite.read"]
        assert message in failures[0].message


def test_what_a_case_does_not_say_is_not_compared() -> None:
    def change(value: dict[str, Any]) -> None:
        value["suite"][2]["expect"] = {"class": "RED"}

    verdict = Verdict(SafetyClass.RED, external=True, outcome=Outcome.BLOCK, rules=())
    bundle = parse(compiled(change))
    assert check(bundle, _saying(verdict)) == []


def test_a_case_means_the_entry_of_its_kind_or_name() -> None:
    assert case_key(BUNDLE, "exec", None) == "exec"
    assert case_key(BUNDLE, "exec", "builtin") == "builtin:exec"
    assert case_key(BUNDLE, "exec", "own_tool") == "exec"
    assert case_key(BUNDLE, "nothing", None) == "nothing"

    def only_builtin(value: dict[str, Any]) -> None:
        value["tools"]["builtin:process"] = {**value["tools"]["builtin:exec"], "name": "process"}

    def two_kinds(value: dict[str, Any]) -> None:
        only_builtin(value)
        value["tools"]["mcp:process"] = {**value["tools"]["builtin:exec"], "name": "process", "kind": "mcp"}

    assert case_key(parse(compiled(only_builtin)), "process", None) == "builtin:process"
    assert case_key(parse(compiled(two_kinds)), "process", None) == "process"
