"""What every plugin must do, as checks that name what it breaks. Made for tests; needs no test framework.

::

    def test_my_plugin_conforms():
        assert conformance.check(plugin({"prefix": "/srv"})) == []

The calls of :func:`odd_calls` are asked of every classifier; give ``calls`` and ``policies`` that make yours work.
What can't be seen from outside (a clock read, a value kept) is not checked; docs/plugins.md says what else is asked.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from safety_wrapper import dispatch, registry
from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import PluginLoadError, SafetyError
from safety_wrapper.hookspecs import VAULT_HOOKS
from safety_wrapper.model import (
    EFFECT_KINDS,
    RESOURCES,
    Classification,
    Objection,
    OutboundMessage,
    SafetyClass,
    SpawnRequest,
    ToolCall,
    ToolKind,
)
from safety_wrapper.policy import Policy
from safety_wrapper.testing import purity
from safety_wrapper.testing.builders import make_call, make_context, make_policy

MAX_REASON_CHARS = 300


@dataclass(frozen=True, slots=True)
class Finding:
    """One broken promise: which, and with what it was seen."""

    rule: str
    detail: str


def check(
    plugin: object, *, calls: Iterable[ToolCall] = (), policies: Iterable[Policy] = (), process: str = "core"
) -> list[Finding]:
    """Every promise that ``plugin`` breaks; an empty list is what one wants. Never raises."""
    try:
        plan = registry.vet({"plugin": plugin}, process=process)
    except PluginLoadError as exc:
        return [Finding("loads", exc.message)]
    asked = [*odd_calls(), *calls]
    judged_by = list(policies) or [make_policy()]
    findings: list[Finding] = []
    for policy in judged_by:
        findings += _check_classifier(plan, asked, policy)
    findings += _check_objections(plan, asked)
    findings += _check_health(plan)
    return findings


def odd_calls() -> list[ToolCall]:
    """Calls at the edge of what the core admits: each must get an answer or no opinion, never an exception."""
    deep: Any = "x"
    for _ in range(40):
        deep = [deep]
    odd_params: list[dict[str, Any]] = [
        {},
        {"command": ""},
        {"command": "a" * 100_000},
        {"command": "echo '\u202e\ud7ff\U0010ffff'"},
        {"path": "/../../etc/passwd"},
        {"path": "~root/\n/x", "content": "\x1b[2J"},
        {"url": "https://[::1%25lo]:99999/?q=\u00e9"},
        {"": None, "command": None, "path": 7, "url": ["x"]},
        {"command": {"nested": deep}},
        {f"k{i}": i for i in range(2000)},
    ]
    contexts = [make_context(), make_context(agent=None, session=None, run=None, depth=None)]
    calls = [make_call("exec", params, context=c) for params, c in itertools.product(odd_params, contexts)]
    calls += [make_call("no.such_tool", {"x": 1}, kind=kind, cwd=None, sandbox=None) for kind in ToolKind]
    return calls


def _check_classifier(plan: dispatch.Plan, calls: Sequence[ToolCall], policy: Policy) -> list[Finding]:
    findings: list[Finding] = []
    for classifier in plan.classifiers:
        answers: dict[int, Any] = {}
        for number, call in enumerate(calls):
            answers[number] = _guarded(findings, call, classifier, policy)
            findings += _check_answer(answers[number], call)
            if canonical_json(dict(call.params)) != call.canonical:
                findings.append(Finding("leaves the call as it is", call.tool))
        # once more, the other way round, on equal copies, with everything lazily loaded: nothing may differ
        for number in reversed(range(len(calls))):
            again = copy.deepcopy(calls[number])
            with purity.watch() as events:
                answer = _guarded(findings, again, classifier, policy)
            if answer != answers[number]:
                findings.append(Finding("gives an equal call an equal answer, in any order", again.tool))
            if events:
                findings.append(Finding("does no I/O", f"{again.tool}: {', '.join(sorted(set(events)))}"))
    return findings


def _guarded(findings: list[Finding], call: ToolCall, classifier: Callable[..., Any], policy: Policy) -> Any:
    try:
        return classifier(call, policy)
    except Exception as exc:  # noqa: BLE001 - that is what is looked for
        findings.append(Finding("never raises", f"{type(exc).__name__} at {call.tool} {call.canonical[:60]!r}"))
        return None


def _check_answer(answer: object, call: ToolCall) -> list[Finding]:
    if answer is None:
        return []
    if not dispatch.is_classification(answer):
        return [Finding("answers a Classification or None", f"{type(answer).__name__} at {call.tool}")]
    findings = [
        Finding("names effects of the closed lists", f"{effect.kind} {effect.resource} at {call.tool}")
        for effect in answer.effects
        if effect.kind not in EFFECT_KINDS or effect.resource not in RESOURCES
    ]
    if answer.safety_class > SafetyClass.GREEN and not answer.rules and not answer.opaque:
        findings.append(Finding("names the rule that raised a call, unless it is opaque", call.tool))
    if len(answer.reason) > MAX_REASON_CHARS or "\n" in answer.reason:
        findings.append(Finding("gives its reason in one line of 300 characters", call.tool))
    findings += _check_text(call, answer.reason, answer.instead, *answer.rules, *(e.value for e in answer.effects))
    return findings


def _check_text(call: ToolCall, *texts: str) -> list[Finding]:
    try:
        canonical_json(list(texts))
    except SafetyError:
        return [Finding("gives text that can be recorded (no lone surrogate)", call.tool)]
    return []


def _check_objections(plan: dispatch.Plan, calls: Sequence[ToolCall]) -> list[Finding]:
    findings: list[Finding] = []
    green = Classification(SafetyClass.GREEN)

    def ask(hook: str, **arguments: Any) -> None:
        try:
            first = dispatch.object_to(plan, hook, **arguments)
            with purity.watch() as events:
                again = dispatch.object_to(plan, hook, **arguments)
        except SafetyError as exc:
            cause = type(exc.__cause__).__name__ if exc.__cause__ else exc.message
            findings.append(Finding("never raises", f"{hook}: {cause}"))
            return
        if first != again:
            findings.append(Finding("gives an equal call an equal answer, in any order", hook))
        if events:
            findings.append(Finding("does no I/O", f"{hook}: {', '.join(sorted(set(events)))}"))
        findings.extend(_check_objection(hook, objection) for objection in first if not objection.rule)

    for call in calls:
        ask("before_tool_call", call=call, classification=green)
        ask("subagent_spawning", spawn=SpawnRequest(call, 1))
    for text in ("", "x" * 100_000, "\u202e\x1b[2J\U0010ffff"):
        ask("message_sending", message=OutboundMessage("someone", text, None, make_context()))
        ask("before_message_write", text=text, context=make_context())
        ask("tool_result_persist", text=text, tool="exec", context=make_context())
    return findings


def _check_objection(hook: str, objection: Objection) -> Finding:
    return Finding("names the rule of its objection", f"{hook}: {objection.outcome.wire}")


def _check_health(plan: dispatch.Plan) -> list[Finding]:
    return [
        Finding("says how it is", check.detail)
        for check in dispatch.health(plan)
        if not check.ok and check.name == "plugin plugin"
    ]


#: Hooks that this suite does not ask: they are the vault's, and their plugins come with the vault's own suite.
NOT_ASKED = VAULT_HOOKS
