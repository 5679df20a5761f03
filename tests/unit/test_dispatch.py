"""The combiners: every fault is a refusal, every late answer is interrupted. Each fault beside the same without it."""

import asyncio
import contextlib
import dataclasses
import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from safety_wrapper import dispatch
from safety_wrapper.dispatch import call_within, classify, combine, execute, health, object_to, observe
from safety_wrapper.errors import AdapterError, ClassifyError, DeadlineError, RunnerError, StageError
from safety_wrapper.hookspecs import CONTRACTS, hookimpl
from safety_wrapper.model import (
    Classification,
    Effect,
    Health,
    Objection,
    OutboundMessage,
    Outcome,
    SafetyClass,
    SpawnRequest,
    ToolResult,
)
from safety_wrapper.registry import vet
from safety_wrapper.testing import make_call, make_context, make_policy
from safety_wrapper.testing.simulators import FAULTS, Classifies, Objects, Runs, classifies, faulty

CALL, POLICY = make_call(), make_policy()
GREEN = Classification(SafetyClass.GREEN)
#: Each hook that may object, with the arguments that it is asked with.
OBJECTING = {
    "before_tool_call": {"call": CALL, "classification": GREEN},
    "message_sending": {"message": OutboundMessage("jo", "hi", None, make_context())},
    "subagent_spawning": {"spawn": SpawnRequest(CALL, 1)},
    "before_message_write": {"text": "x", "context": make_context()},
    "tool_result_persist": {"text": "x", "tool": "exec", "context": make_context()},
}
OBSERVING = {
    "gateway_start": {"gateway_version": "1"},
    "before_prompt_build": {"context": make_context()},
    "notify_approval": {"request": "apr_1", "title": "t", "safety_class": "RED", "expires_in_s": 1},
}
SUDDEN = sorted(FAULTS.keys() - {"late", "stubborn"})


@pytest.fixture
def time_limits(monkeypatch):
    """Time limits as a daemon installs them, with budgets of 50 ms."""
    before = signal.getsignal(signal.SIGALRM)
    for hook, contract in list(CONTRACTS.items()):
        monkeypatch.setitem(CONTRACTS, hook, dataclasses.replace(contract, budget_ms=50))
    monkeypatch.setattr(dispatch, "_CLASSIFY_MS", 50)
    dispatch.install_time_limits()
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    dispatch._watch.installed = False


# ── classify ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_answer_is_the_answer():
    assert classify(vet({"a": classifies(SafetyClass.RED)}), CALL, POLICY).safety_class is SafetyClass.RED


def test_nobody_and_no_opinion_are_an_error():
    for plugins in ({}, {"a": Classifies(None)}, {"a": Classifies(None), "b": Classifies(None)}):
        with pytest.raises(ClassifyError):
            classify(vet(plugins), CALL, POLICY)
    assert classify(vet({"a": Classifies(None), "b": classifies(SafetyClass.GREEN)}), CALL, POLICY)


@pytest.mark.parametrize("fault", SUDDEN)
def test_a_classifier_that_fails_is_an_error_whoever_else_answers(fault):
    for plugins in (
        {"bad": faulty("classify_tool_call", fault)},
        {"bad": faulty("classify_tool_call", fault), "good": classifies(SafetyClass.GREEN)},
        {"good": classifies(SafetyClass.GREEN), "bad": faulty("classify_tool_call", fault)},
    ):
        with pytest.raises(ClassifyError) as caught:
            classify(vet(plugins), CALL, POLICY)
        assert "hunter2" not in caught.value.message
    assert classify(vet({"good": classifies(SafetyClass.GREEN)}), CALL, POLICY) == dataclasses.replace(
        GREEN, rules=("test.rule",), reason="for a test"
    )


class Lenient(Classification):
    """A subclass could answer differently each time it is asked."""


WRONG = [
    "GREEN",
    0,
    SafetyClass.GREEN,
    True,
    {"safety_class": SafetyClass.GREEN},
    Lenient(SafetyClass.GREEN),
    Classification(0),
    Classification("GREEN"),
    Classification(SafetyClass.GREEN, external="no"),
    Classification(SafetyClass.GREEN, external=0),
    Classification(SafetyClass.GREEN, opaque=None),
    Classification(SafetyClass.GREEN, effects=[Effect("read", "path", "/")]),
    Classification(SafetyClass.GREEN, effects=(("read", "path", "/"),)),
    Classification(SafetyClass.GREEN, effects=(Effect("read", "path", 7),)),
    Classification(SafetyClass.GREEN, rules="a.rule"),
    Classification(SafetyClass.GREEN, rules=(7,)),
    Classification(SafetyClass.GREEN, reason=None),
    Classification(SafetyClass.GREEN, instead=7),
]


@pytest.mark.parametrize("answer", WRONG, ids=repr)
def test_a_wrong_type_is_an_error(answer):
    with pytest.raises(ClassifyError, match="wrong type"):
        classify(vet({"bad": Classifies(answer)}), CALL, POLICY)
    with pytest.raises(ClassifyError, match="wrong type"):
        classify(vet({"bad": Classifies(answer), "good": classifies(SafetyClass.RED)}), CALL, POLICY)


def test_a_coroutine_for_an_answer_is_an_error_and_is_closed():
    async def never():
        return GREEN

    with pytest.raises(ClassifyError):
        classify(vet({"bad": Classifies(lambda call: never())}), CALL, POLICY)


def test_a_keyboard_interrupt_is_the_users():
    def interrupts(_call):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        classify(vet({"bad": Classifies(interrupts)}), CALL, POLICY)


def test_combining_names_the_strictest_reason():
    mild = Classification(SafetyClass.YELLOW, rules=("a",), reason="mild", instead="do that")
    strict = Classification(SafetyClass.RED, rules=("b",), reason="strict", instead="do this")
    for order in ([mild, strict], [strict, mild]):
        found = combine(order)
        assert (found.safety_class, found.rules, found.reason, found.instead) == (
            SafetyClass.RED,
            ("a", "b"),
            "strict",
            "do this",
        )


# ── objections, observers, health ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("hook", OBJECTING)
def test_everyone_who_objects_is_heard_the_strictest_first(hook):
    plan = vet({"a": Objects(Outcome.ALLOW, "z"), "b": Objects(Outcome.BLOCK, "b"), "c": Objects(Outcome.BLOCK, "a")})
    assert [(o.outcome, o.rule) for o in object_to(plan, hook, **OBJECTING[hook])] == [
        (Outcome.BLOCK, "a"),
        (Outcome.BLOCK, "b"),
        (Outcome.ALLOW, "z"),
    ]
    assert object_to(vet({}), hook, **OBJECTING[hook]) == ()


@pytest.mark.parametrize("hook", OBJECTING)
@pytest.mark.parametrize("fault", SUDDEN)
def test_an_objector_that_fails_is_an_error(hook, fault):
    for plugins in (
        {"bad": faulty(hook, fault)},
        {"good": Objects(Outcome.ALLOW), "bad": faulty(hook, fault)},
        {"bad": faulty(hook, fault), "good": Objects(Outcome.ALLOW)},
    ):
        with pytest.raises(StageError) as caught:
            object_to(vet(plugins), hook, **OBJECTING[hook])
        assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "answer",
    [
        False,
        "",
        0,
        [],
        Outcome.ALLOW,
        Objection(0, "r", ""),
        Objection(Outcome.ALLOW, None, ""),
        Objection(Outcome.BLOCK, "r", 7),
    ],
    ids=repr,
)
def test_an_objection_of_a_wrong_type_is_an_error(answer):
    plugin = type("Bad", (), {"before_tool_call": hookimpl(lambda self: answer)})
    plugin.before_tool_call.__name__ = "before_tool_call"
    with pytest.raises(StageError, match="wrong type"):
        object_to(vet({"bad": plugin()}), "before_tool_call", **OBJECTING["before_tool_call"])


@pytest.mark.parametrize("hook", OBSERVING)
def test_an_observer_that_fails_is_named_and_the_others_are_called(hook):
    heard = []

    class Listens:
        pass

    def listen(self):
        heard.append(hook)

    listen.__name__ = hook
    setattr(Listens, hook, hookimpl(listen))
    for fault in ("raises", "exits", "cancels"):
        plan = vet({"a": Listens(), "bad": faulty(hook, fault), "z": Listens()})
        assert observe(plan, hook, **OBSERVING[hook]) == ("bad",)
    assert observe(vet({"a": Listens()}), hook, **OBSERVING[hook]) == ()
    assert heard == [hook] * 7


def check(answer):
    plugin = type("Checks", (), {"check_health": hookimpl(lambda self: answer)})
    plugin.check_health.__name__ = "check_health"
    return plugin()


def test_health_is_everybodys():
    plan = vet({"a": check([Health("x", ok=True)]), "b": check((Health("y", ok=False),)), "c": check([])})
    assert sorted(h.name for h in health(plan)) == ["x", "y"]
    assert health(vet({})) == ()


@pytest.mark.parametrize(
    "answer",
    [None, "well", True, [True], {Health("x", ok=True)}, [Health("x", ok="no")], [Health(7, ok=True)]],
    ids=repr,
)
def test_a_plugin_that_can_not_say_how_it_is_is_not_well(answer):
    (found,) = health(vet({"odd": check(answer)}))
    assert (found.name, found.ok) == ("plugin odd", False)


def test_a_health_check_that_is_an_iterator_does_not_vanish():
    (found,) = health(vet({"odd": check(iter([Health("x", ok=False)]))}))
    assert not found.ok


@pytest.mark.parametrize("fault", ["raises", "exits", "cancels"])
def test_a_health_check_that_fails_is_not_well(fault):
    (found,) = health(vet({"bad": faulty("check_health", fault)}))
    assert not found.ok


# ── execute ──────────────────────────────────────────────────────────────────────────────────────────────────────


def run(plugins, tool="http.request"):
    return asyncio.run(execute(vet(plugins), make_call(tool), ()))


def test_the_owner_of_a_tool_runs_it_and_nobody_else():
    mine, other = Runs("http.request"), Runs("mail.send")
    assert run({"a": other, "b": mine}).text == "http.request"
    assert (len(mine.seen), len(other.seen)) == (1, 0)


def test_a_tool_without_owner_does_not_run():
    with pytest.raises(AdapterError, match="no plugin"):
        run({"a": Runs("mail.send")})
    with pytest.raises(AdapterError, match="no plugin"):
        run({})


@pytest.mark.parametrize("fault", SUDDEN)
def test_an_adapter_that_fails_is_an_error(fault):
    broken = type(faulty("execute_tool_call", fault))
    plugin = type("Broken", (broken,), {"register_tools": Runs.register_tools, "_tools": ("http.request",)})()
    with pytest.raises(AdapterError) as caught:
        run({"bad": plugin})
    assert "hunter2" not in caught.value.message


@pytest.mark.parametrize(
    "result", [None, "text", ToolResult(7), ToolResult("x", is_error=1), ToolResult("x", truncated_bytes="1")], ids=repr
)
def test_a_result_of_a_wrong_type_is_an_error(result):
    with pytest.raises(AdapterError, match="wrong type"):
        run({"bad": Runs("http.request", run=lambda call: result)})


def test_a_stage_error_of_an_adapter_is_kept():
    def away(_call):
        raise RunnerError("the runner is away")

    with pytest.raises(RunnerError):
        run({"a": Runs("http.request", run=away)})


def test_cancelling_a_run_cancels_it():
    started = []

    class Waits(Runs):
        @hookimpl
        async def execute_tool_call(self, call, tickets):
            started.append(call)
            await asyncio.Event().wait()

    async def walk():
        task = asyncio.create_task(execute(vet({"a": Waits("http.request")}), make_call("http.request"), ()))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await execute(vet({"a": Waits("http.request")}), make_call("http.request"), ())

    asyncio.run(walk())
    assert len(started) == 2


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fault", ["late", "stubborn"])
def test_a_late_classifier_is_interrupted(time_limits, fault):
    plan = vet({"good": classifies(SafetyClass.GREEN), "bad": faulty("classify_tool_call", fault)})
    with pytest.raises(DeadlineError):
        classify(plan, CALL, POLICY)
    assert classify(vet({"good": classifies(SafetyClass.GREEN)}), CALL, POLICY)


@pytest.mark.parametrize("fault", ["late", "stubborn"])
@pytest.mark.parametrize("hook", OBJECTING)
def test_a_late_objector_is_interrupted(time_limits, hook, fault):
    with pytest.raises(DeadlineError):
        object_to(vet({"bad": faulty(hook, fault)}), hook, **OBJECTING[hook])
    assert object_to(vet({"good": Objects(Outcome.ALLOW)}), hook, **OBJECTING[hook])


def test_a_late_observer_and_a_late_health_check_are_faults(time_limits):
    assert observe(vet({"bad": faulty("gateway_start", "late")}), "gateway_start", gateway_version="1") == ("bad",)
    assert [h.ok for h in health(vet({"bad": faulty("check_health", "stubborn")}))] == [False]


def spin():
    while True:
        pass


def swallow_exceptions():
    while True:
        with contextlib.suppress(Exception):
            spin()


def swallow_once_then_answer():
    try:
        spin()
    except BaseException:
        return "allow"


def raise_something_else():
    try:
        spin()
    except BaseException:
        raise ValueError("hunter2") from None


def answer_from_finally():
    try:
        spin()
    finally:
        return "allow"  # noqa: B012


@pytest.mark.parametrize(
    "late", [spin, swallow_exceptions, swallow_once_then_answer, raise_something_else, answer_from_finally]
)
@pytest.mark.filterwarnings("ignore:'return' in a 'finally' block")
def test_whatever_late_code_does_with_its_interruption_it_is_late(time_limits, late):
    with pytest.raises(DeadlineError):
        call_within(30, late)
    assert call_within(5000, lambda: "in time") == "in time"
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_code_in_time_keeps_its_answer_and_its_exception(time_limits):
    assert call_within(5000, lambda x, y: x + y, 1, y=2) == 3
    with pytest.raises(ValueError, match="mine"):
        call_within(5000, lambda: (_ for _ in ()).throw(ValueError("mine")))
    assert not dispatch._watch.armed


def test_an_alarm_that_comes_after_the_answer_hits_nobody(time_limits):
    for _ in range(300):  # the budget ends now and then between the answer and the disarming
        try:
            call_within(1, lambda: sum(range(20_000)))
        except DeadlineError:
            continue
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    signal.raise_signal(signal.SIGALRM)  # not armed: nothing happens


def test_without_limits_or_in_another_thread_code_is_only_called(time_limits):
    found = []
    thread = threading.Thread(target=lambda: found.append(call_within(1, lambda: sum(range(2_000_000)))))
    thread.start()
    thread.join()
    assert found == [sum(range(2_000_000))]


def test_a_plugin_that_can_not_be_interrupted_ends_the_process():
    program = """
        import sys
        from safety_wrapper import dispatch

        def stuck():
            while True:
                try:
                    while True:
                        pass
                except BaseException:
                    pass

        dispatch._STUCK_AFTER = 3
        dispatch.install_time_limits()
        if sys.argv[1] == "stuck":
            dispatch.call_within(10, stuck)
        print("allowed")
    """
    for which, code, said in (("stuck", 70, ""), ("well", 0, "allowed\n")):
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), which],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stdout) == (code, said)
        assert ("can't be interrupted" in done.stderr) is (which == "stuck")
