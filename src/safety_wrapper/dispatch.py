"""The frozen plan: after vetting, each hook is a tuple of plain functions, and these are their combiners.

The order of plugins never decides anything: answers combine by maximum and union. An exception, a wrong type or a
late answer of one implementation is a fault of the stage; what that means stands in the hook's contract.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import signal
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Any, Final, NoReturn, TypeIs

from safety_wrapper.errors import AdapterError, ClassifyError, DeadlineError, StageError
from safety_wrapper.hookspecs import CONTRACTS
from safety_wrapper.model import (
    Classification,
    Effect,
    Health,
    Objection,
    Outcome,
    SafetyClass,
    Ticket,
    ToolCall,
    ToolResult,
)

#: What a plugin can raise that is its own fault. KeyboardInterrupt is the user's, and a late answer has its own type.
_FAULTS: Final = (Exception, SystemExit, GeneratorExit, asyncio.CancelledError)


_CLASSIFY_MS: Final = CONTRACTS["classify_tool_call"].budget_ms


@dataclass(frozen=True, slots=True)
class Implementation:
    """One plugin's function for one hook, and the arguments that it takes."""

    plugin: str
    function: Callable[..., Any]
    argnames: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Every hook's implementations after vetting; immutable. ``digest`` goes into the audit log."""

    hooks: Mapping[str, tuple[Implementation, ...]]
    tool_owners: Mapping[str, str]
    digest: str
    classifiers: tuple[Callable[..., Any], ...]


def freeze(
    implementations: Mapping[str, tuple[Implementation, ...]], tool_owners: Mapping[str, str], digest: str
) -> Plan:
    """Make the plan. Classifiers are bound to positional (call, policy), since they are on the hot path."""
    hooks = {hook: tuple(implementations.get(hook, ())) for hook in CONTRACTS}
    classifiers = tuple(_positional(impl) for impl in hooks["classify_tool_call"])
    return Plan(MappingProxyType(hooks), MappingProxyType(dict(tool_owners)), digest, classifiers)


def classify(plan: Plan, call: ToolCall, policy: Any) -> Classification:
    """Ask every classifier; strictest class, union of effects and rules.

    Raises ClassifyError when one fails, answers with another type, or nobody has an opinion; DeadlineError when
    one is late. The caller blocks on either. Hot path.
    """
    try:
        answers = call_within(_CLASSIFY_MS, _ask, plan.classifiers, call, policy)
    except DeadlineError:
        raise
    except _FAULTS as exc:
        raise ClassifyError("a classifier failed") from exc
    for answer in answers:
        if not is_classification(answer):
            _discard(answer)
            raise ClassifyError("a classifier answered with a wrong type")
    if not answers:
        raise ClassifyError("no classifier has an opinion")
    return answers[0] if len(answers) == 1 and not _leaves_unsaid(answers[0]) else combine(answers)


def _ask(functions: Sequence[Callable[..., Any]], *arguments: Any) -> list[Any]:
    """Every answer that is one."""
    return [answer for function in functions if (answer := function(*arguments)) is not None]


def combine(answers: Sequence[Classification]) -> Classification:
    """Strictest class, any external, any opaque, union of effects and rules; the strictest answer's reason.

    Independent of order: equals are broken by their text. ``answers`` must not be empty. YELLOW_EXTERNAL is external,
    said or not: else another plugin's RED would take the call out of the external gate.
    """
    strictest = min(answers, key=lambda c: (-c.safety_class, not c.opaque, not c.rules, c.rules, c.reason, c.instead))
    return Classification(
        safety_class=strictest.safety_class,
        external=any(c.external or _leaves_unsaid(c) for c in answers),
        effects=tuple(sorted({e for c in answers for e in c.effects}, key=_effect_key)),
        rules=tuple(sorted({r for c in answers for r in c.rules})),
        reason=strictest.reason,
        instead=strictest.instead,
        opaque=any(c.opaque for c in answers),
    )


def object_to(plan: Plan, hook: str, **arguments: Any) -> tuple[Objection, ...]:
    """Ask everyone who may object (before_tool_call, message_sending, subagent_spawning, the two write hooks).

    Raises StageError on any fault: what was asked for must not happen.
    """
    objections: list[Objection] = []
    for impl in plan.hooks[hook]:
        try:
            answer = _call(impl, hook, arguments)
        except DeadlineError:
            raise
        except _FAULTS as exc:
            raise StageError(f"{hook} failed") from exc
        if answer is None:
            continue
        if not _is_objection(answer):
            _discard(answer)
            raise StageError(f"{hook} answered with a wrong type")
        objections.append(answer)
    return tuple(sorted(objections, key=lambda o: (-o.outcome, o.rule, o.reason)))


def observe(plan: Plan, hook: str, **arguments: Any) -> tuple[str, ...]:
    """Call every observer; the names of the plugins that failed, for an alarm. Never raises."""
    failed: list[str] = []
    for impl in plan.hooks[hook]:
        try:
            _discard(_call(impl, hook, arguments))
        except _FAULTS:
            failed.append(impl.plugin)
    return tuple(failed)


def health(plan: Plan) -> tuple[Health, ...]:
    """Every plugin's health; a plugin that can't say is not well."""
    checks: list[Health] = []
    for impl in plan.hooks["check_health"]:
        try:
            answer = _call(impl, "check_health", {})
        except _FAULTS:
            answer = None
        # a list or tuple: an iterator would be empty at the second look
        if type(answer) in {list, tuple} and all(_is_health(check) for check in answer):
            checks.extend(answer)
        else:
            _discard(answer)
            checks.append(Health(f"plugin {impl.plugin}", ok=False, detail="its health check failed"))
    return tuple(checks)


async def execute(plan: Plan, call: ToolCall, tickets: Sequence[Ticket]) -> ToolResult:
    """Run an adapter tool by its one owner. Raises AdapterError when it has none, fails or answers wrongly."""
    owner = plan.tool_owners.get(call.tool)
    arguments = {"call": call, "tickets": tuple(tickets)}
    for impl in plan.hooks["execute_tool_call"]:
        if impl.plugin == owner:
            try:
                answer: Awaitable[Any] = impl.function(**{name: arguments[name] for name in impl.argnames})
                result = await answer
            except StageError:
                raise
            except asyncio.CancelledError as exc:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                raise AdapterError("the tool's adapter failed") from exc
            except _FAULTS as exc:
                raise AdapterError("the tool's adapter failed") from exc
            if not _is_result(result):
                raise AdapterError("the tool's adapter answered with a wrong type")
            checked: ToolResult = result
            return checked
    raise AdapterError("no plugin runs this tool")


# ── a time limit for synchronous plugin code ─────────────────────────────────────────────────────────────────────


class _LateError(BaseException):
    """Not an Exception, so that a plugin's own ``except Exception`` does not swallow it."""


def _end_process() -> NoReturn:
    os.write(2, b"safety-wrapper: a plugin can't be interrupted; the process ends, so that nothing is allowed\n")
    os._exit(70)


@dataclass(slots=True)
class _Watch:
    installed: bool = False
    armed: bool = False
    fired: int = 0
    on_stuck: Callable[[], object] = _end_process


#: A hook that overruns is interrupted by a signal; only the main thread can be, and daemons dispatch there.
_MAIN: Final = threading.main_thread()
_watch: Final = _Watch()
_AGAIN_S: Final = 0.05
#: So often an implementation may swallow its interruption (5 s) before the process is given up.
_STUCK_AFTER: Final = 100


def _on_alarm(_signum: int, frame: FrameType | None) -> None:
    if not _watch.armed:
        return
    _watch.fired += 1
    if _watch.fired > _STUCK_AFTER:
        _watch.on_stuck()
    # Raised in plugin code only: in a line of this file it could break what must not be broken (disarming).
    if frame is None or frame.f_globals is not globals():
        raise _LateError


def install_time_limits(on_stuck: Callable[[], object] = _end_process) -> None:
    """Take SIGALRM for :func:`call_within`. Called once by a daemon, in its main thread.

    ``on_stuck`` is called for an implementation that swallows every interruption: by default the process ends, and
    without a core every call is refused.
    """
    signal.signal(signal.SIGALRM, _on_alarm)
    _watch.on_stuck = on_stuck
    _watch.installed = True


def call_within(budget_ms: int, function: Callable[..., Any], /, *arguments: Any, **named: Any) -> Any:
    """Call synchronous code and interrupt it after ``budget_ms``; raises DeadlineError, whatever it then answers.

    Without :func:`install_time_limits` (a library user), or in another thread, there is no interruption, and the
    shim's own deadline still refuses the call. Not to be nested. Costs two system calls.
    """
    if not _watch.installed or threading.current_thread() is not _MAIN:
        return function(*arguments, **named)
    _watch.fired = 0
    _watch.armed = True
    try:
        # it goes on firing, so that code which swallows the first interruption does not run on
        signal.setitimer(signal.ITIMER_REAL, budget_ms / 1000, _AGAIN_S)
        answer = function(*arguments, **named)
    except BaseException:
        _disarm()
        if _watch.fired:
            raise DeadlineError("a plugin did not answer in its time") from None
        raise
    _disarm()
    if _watch.fired:
        raise DeadlineError("a plugin did not answer in its time")
    return answer


def _disarm() -> None:
    _watch.armed = False
    signal.setitimer(signal.ITIMER_REAL, 0)


def _call(impl: Implementation, hook: str, arguments: Mapping[str, Any]) -> Any:
    """One implementation with the arguments that it takes, within its hook's budget."""
    wanted = {name: arguments[name] for name in impl.argnames}
    return call_within(CONTRACTS[hook].budget_ms, impl.function, **wanted)


def _discard(answer: object) -> None:
    """Close a coroutine that nobody awaits."""
    if inspect.iscoroutine(answer):
        answer.close()


def _positional(impl: Implementation) -> Callable[..., Any]:
    """A classifier as a function of (call, policy), whichever of both it takes."""
    function = impl.function
    shapes: dict[tuple[str, ...], Callable[..., Any]] = {
        ("call", "policy"): function,
        ("policy", "call"): lambda call, policy: function(policy, call),
        ("call",): lambda call, _policy: function(call),
        ("policy",): lambda _call, policy: function(policy),
        (): lambda _call, _policy: function(),
    }
    return shapes[impl.argnames]


def is_classification(answer: object) -> TypeIs[Classification]:
    """True for a Classification whose every field has its exact type."""
    return (
        type(answer) is Classification
        and type(answer.safety_class) is SafetyClass
        and type(answer.external) is bool
        and type(answer.opaque) is bool
        and type(answer.effects) is tuple
        and type(answer.rules) is tuple
        and all(_is_effect(effect) for effect in answer.effects)
        and all(type(rule) is str for rule in answer.rules)
        and type(answer.reason) is str
        and type(answer.instead) is str
    )


def _is_effect(effect: object) -> bool:
    return (
        type(effect) is Effect
        and type(effect.kind) is str
        and type(effect.resource) is str
        and type(effect.value) is str
    )


def _is_objection(answer: object) -> bool:
    return (
        type(answer) is Objection
        and type(answer.outcome) is Outcome
        and type(answer.rule) is str
        and type(answer.reason) is str
    )


def _is_health(check: object) -> bool:
    return (
        type(check) is Health
        and type(check.name) is str
        and type(check.ok) is bool
        and type(check.detail) is str
        and type(check.weaker) is bool
    )


def _is_result(result: object) -> bool:
    return (
        type(result) is ToolResult
        and type(result.text) is str
        and type(result.is_error) is bool
        and type(result.truncated_bytes) is int
    )


def _leaves_unsaid(answer: Classification) -> bool:
    return answer.safety_class is SafetyClass.YELLOW_EXTERNAL and not answer.external


def _effect_key(effect: Effect) -> tuple[str, str, str]:
    return (effect.kind, effect.resource, effect.value)
