"""The frozen plan: after vetting, each hook is a tuple of plain functions, and these are their combiners.

The order of plugins never decides anything: answers combine by maximum and union. An exception, a wrong type or a
late answer of one implementation is a fault of the stage; what that means stands in the hook's contract.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType, MappingProxyType
from typing import Any, Final

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
    classifiers = tuple(_positional(impl, ("call", "policy")) for impl in hooks["classify_tool_call"])
    return Plan(MappingProxyType(hooks), MappingProxyType(dict(tool_owners)), digest, classifiers)


def classify(plan: Plan, call: ToolCall, policy: Any) -> Classification:
    """Ask every classifier; strictest class, union of effects and rules.

    Raises ClassifyError when one fails, answers with another type, or nobody has an opinion; DeadlineError when
    one is late. The caller blocks on either. Hot path.
    """
    answers: list[Classification] = []
    try:
        with time_limit(CONTRACTS["classify_tool_call"].budget_ms):
            for classifier in plan.classifiers:
                answer = classifier(call, policy)
                if answer is not None:
                    answers.append(answer)
    except DeadlineError:
        raise
    except Exception as exc:
        raise ClassifyError("a classifier failed") from exc
    for answer in answers:
        if not _is_classification(answer):
            raise ClassifyError("a classifier answered with a wrong type")
    if not answers:
        raise ClassifyError("no classifier has an opinion")
    return answers[0] if len(answers) == 1 else combine(answers)


def combine(answers: Sequence[Classification]) -> Classification:
    """Strictest class, any external, any opaque, union of effects and rules; the strictest answer's reason.

    Independent of order: equals are broken by their text. ``answers`` must not be empty.
    """
    strictest = min(answers, key=lambda c: (-c.safety_class, not c.opaque, not c.rules, c.rules, c.reason, c.instead))
    return Classification(
        safety_class=strictest.safety_class,
        external=any(c.external for c in answers),
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
    contract = CONTRACTS[hook]
    for impl in plan.hooks[hook]:
        try:
            with time_limit(contract.budget_ms):
                answer = impl.function(**{name: arguments[name] for name in impl.argnames})
        except DeadlineError:
            raise
        except Exception as exc:
            raise StageError(f"{hook} failed") from exc
        if answer is None:
            continue
        if type(answer) is not Objection or type(answer.outcome) is not Outcome:
            raise StageError(f"{hook} answered with a wrong type")
        objections.append(answer)
    return tuple(sorted(objections, key=lambda o: (-o.outcome, o.rule, o.reason)))


def observe(plan: Plan, hook: str, **arguments: Any) -> tuple[str, ...]:
    """Call every observer; the names of the plugins that failed, for an alarm. Never raises."""
    failed: list[str] = []
    for impl in plan.hooks[hook]:
        try:
            with time_limit(CONTRACTS[hook].budget_ms):
                impl.function(**{name: arguments[name] for name in impl.argnames})
        except Exception:
            failed.append(impl.plugin)
    return tuple(failed)


def health(plan: Plan) -> tuple[Health, ...]:
    """Every plugin's health; a plugin that can't say is not well."""
    checks: list[Health] = []
    for impl in plan.hooks["check_health"]:
        try:
            with time_limit(CONTRACTS["check_health"].budget_ms):
                answer = impl.function()
            if not all(type(check) is Health for check in answer):
                raise TypeError
            checks.extend(answer)
        except Exception:
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
            except (asyncio.CancelledError, StageError):
                raise
            except Exception as exc:
                raise AdapterError("the tool's adapter failed") from exc
            if type(result) is not ToolResult or type(result.text) is not str:
                raise AdapterError("the tool's adapter answered with a wrong type")
            return result
    raise AdapterError("no plugin runs this tool")


# ── a time limit for synchronous plugin code ─────────────────────────────────────────────────────────────────────

#: A hook that overruns is interrupted by a signal; only the main thread can be, and daemons dispatch there.
_MAIN: Final = threading.main_thread()
_armed = False
_fired = False


def _on_alarm(signum: int, frame: FrameType | None) -> None:
    global _fired
    if _armed:
        _fired = True
        raise _LateError


class _LateError(BaseException):
    """Not an Exception, so that a plugin's own ``except Exception`` does not swallow it."""


def install_time_limits() -> None:
    """Take SIGALRM for :func:`time_limit`. Called once by a daemon, in its main thread."""
    signal.signal(signal.SIGALRM, _on_alarm)


@contextmanager
def time_limit(budget_ms: int) -> Iterator[None]:
    """Interrupt synchronous code of this thread after ``budget_ms``; raises DeadlineError.

    Without :func:`install_time_limits` (a library user, another thread) there is no interruption, and the shim's
    own deadline still refuses the call. Costs two system calls.
    """
    if threading.current_thread() is not _MAIN or signal.getsignal(signal.SIGALRM) is not _on_alarm:
        yield
        return
    global _armed, _fired
    _fired = False
    try:
        _armed = True
        # it goes on firing, so that code which swallows the first interruption does not run on
        signal.setitimer(signal.ITIMER_REAL, budget_ms / 1000, 0.05)
        yield
    except _LateError:
        pass
    finally:
        _armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
    if _fired:
        raise DeadlineError("a plugin did not answer in its time")


def _positional(impl: Implementation, order: tuple[str, ...]) -> Callable[..., Any]:
    if impl.argnames == order:
        return impl.function
    function, wanted = impl.function, [order.index(name) for name in impl.argnames]

    def call_with_wanted(*arguments: Any) -> Any:
        return function(*(arguments[i] for i in wanted))

    return call_with_wanted


def _is_classification(answer: object) -> bool:
    return (
        type(answer) is Classification
        and type(answer.safety_class) is SafetyClass
        and type(answer.external) is bool
        and type(answer.opaque) is bool
        and type(answer.effects) is tuple
        and type(answer.rules) is tuple
        and all(type(effect) is Effect for effect in answer.effects)
        and all(type(rule) is str for rule in answer.rules)
        and type(answer.reason) is str
        and type(answer.instead) is str
    )


def _effect_key(effect: Effect) -> tuple[str, str, str]:
    return (effect.kind, effect.resource, effect.value)
