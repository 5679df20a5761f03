"""Found by attack: calls that went on after the stop button, ends that were not recorded, floods past the limits.

Each has its twin that is allowed.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from safety_wrapper.bridge.peer import Peer
from safety_wrapper.engine import Engine
from safety_wrapper.held import Held
from safety_wrapper.model import Outcome, ToolResult
from safety_wrapper.normalise import Proposal
from safety_wrapper.testing.builders import make_call
from safety_wrapper.testing.live import Live, running, text_of

MANY = 40


@pytest.fixture(scope="module")
def live(module_room: Path, base_bundle: bytes) -> Iterator[Live]:
    changes = {
        "limits": {"calls_per_s": 50, "burst": 100, "pending_per_agent": 100},
        "gateway": {"owner_senders": ["555"]},
    }
    with running(module_room, base_bundle, changes=changes) as made:
        yield made


@pytest.fixture
def agent(live: Live) -> Iterator[Peer]:
    with live.agent() as peer:
        yield peer


def seq(live: Live) -> int:
    return int(live.ask("status")["ledger"]["seq"])


# ── stop ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_stop_button_kills_a_call_that_somebody_waits_for(live: Live, agent: Peer) -> None:
    answers: list[dict[str, Any]] = []
    before = seq(live)
    started_s = time.monotonic()
    waiting = threading.Thread(
        target=lambda: answers.append(live.execute(agent, "sw_exec", {"command": "sleep 15; echo went on"}))
    )
    waiting.start()
    time.sleep(1.0)
    live.ask("stop", scope="all")
    try:
        waiting.join(30)
    finally:
        live.ask("start_agents")
    assert time.monotonic() - started_s < 10, "it ran on after the stop"
    assert "went on" not in text_of(answers[0])
    kinds = [record["kind"] for record in live.ask("audit.tail", after_seq=before, limit=50)["records"]]
    assert "decision" in kinds
    assert "result" in kinds, "its end was not recorded"
    twin = live.execute(agent, "sw_exec", {"command": "sleep 1; echo went on"})
    assert "went on" in text_of(twin)


# ── floods that are no calls ─────────────────────────────────────────────────────────────────────────────────────


def test_observed_events_can_not_flood_the_audit_log(live: Live) -> None:
    before = seq(live)
    with live.agent() as flooder:
        for number in range(1500):
            child = f"agent:main:subagent:{number}"
            ctx = {"childSessionKey": child, "requesterSessionKey": "agent:main:nobody"}
            flooder.call("observe", hook="subagent_spawned", raw={"event": {}, "ctx": ctx})
            if number == 0:
                assert seq(live) > before, "one such event is an alarm"
        took = seq(live) - before
    assert took < 1000


def test_ids_that_no_call_can_name_are_not_stored(live: Live, agent: Peer) -> None:
    time.sleep(0.2)
    before = seq(live)
    ctx = {"childSessionKey": "agent:main:subagent:" + "x" * 500_000, "requesterSessionKey": "agent:main:nobody"}
    agent.call("observe", hook="subagent_spawned", raw={"event": {}, "ctx": ctx})
    assert seq(live) == before


def test_long_calls_do_not_blind_the_owner(live: Live) -> None:
    """Held calls with long values: the list and the log still answer, and each request is in the list."""
    with live.agent() as flooder:
        asked = []
        for number in range(MANY):
            command = f"rm {number}" + "\u200b" * 20_000
            answer = live.execute(flooder, "sw_exec", {"command": command}, session=f"agent:main:s{number % 4}")
            asked.append(answer["decision"]["request"])
            time.sleep(0.02)
        short = live.execute(flooder, "sw_exec", {"command": "rm short"})["decision"]["request"]
    items = {item["id"]: item for item in live.ask("approvals.list", state="pending", limit=500)["items"]}
    assert set(asked) <= set(items)
    assert items[short]["lines"], "a short one is shown as ever"
    assert live.ask("approvals.get", id=asked[0])["request"]["lines"]
    assert live.ask("audit.tail", after_seq=0, limit=500)["records"]
    newest = live.ask("audit.search", where={"kind": "decision"}, limit=500)["records"]
    assert newest[-1]["body"].get("request") == short


# ── ends ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class _Ledger:
    """Takes changes slowly; on a full disk it takes only those that end something."""

    def __init__(self) -> None:
        self.taken: list[bool] = []

    async def write(self, change: Callable[[Any], Any], *, finish: bool = False) -> Any:
        await asyncio.sleep(0.05)
        self.taken.append(finish)
        return None


def _held(ledger: _Ledger, execution: Callable[..., Coroutine[Any, Any, ToolResult]]) -> Held:
    standing = SimpleNamespace(stopped=False)
    entry = SimpleNamespace(runs="runner")

    async def clean(result: ToolResult, surface: str) -> ToolResult:
        return result

    engine = SimpleNamespace(
        ledger=ledger,
        standing=standing,
        entry=lambda call: entry,
        execution=SimpleNamespace(run=execution),
        clean=clean,
    )
    return Held(cast("Engine", engine), "ten_local", 60.0)


def _judged() -> Any:
    return SimpleNamespace(call=make_call("exec", {"command": "ls"}))


@pytest.mark.parametrize("cancel_after_s", [None, 0.0, 0.02, 0.12])
def test_the_end_of_a_stored_call_is_recorded_whenever_the_stop_comes(cancel_after_s: float | None) -> None:
    async def scene() -> list[bool]:
        ledger = _Ledger()

        async def execution(*_: Any) -> ToolResult:
            await asyncio.sleep(0.1)
            return ToolResult("done")

        held = _held(ledger, execution)
        held._keep(held._run_stored("apr_1", _judged()))
        if cancel_after_s is not None:
            if cancel_after_s:
                await asyncio.sleep(cancel_after_s)
            held.cancel_all()
        await held.drain()
        return ledger.taken

    assert asyncio.run(scene()) == [True], "its end is recorded once, also on a full disk"


@pytest.mark.parametrize("fault", [None, ValueError("x"), OSError("y")])
def test_a_fault_while_a_stored_call_runs_is_its_recorded_end(fault: Exception | None) -> None:
    async def scene() -> list[bool]:
        ledger = _Ledger()

        async def execution(*_: Any) -> ToolResult:
            if fault is not None:
                raise fault
            return ToolResult("done")

        held = _held(ledger, execution)
        held._keep(held._run_stored("apr_1", _judged()))
        await held.drain()
        return ledger.taken

    assert asyncio.run(scene()) == [True]


@pytest.mark.parametrize("leaves", [False, True])
def test_a_caller_that_leaves_while_its_call_goes_to_the_background_leaves_nothing_running(*, leaves: bool) -> None:
    """Cancelled between "it takes long" and "it is a job": the run was lost to everybody, the stop button too."""

    async def scene() -> tuple[bool, int]:
        ledger = _Ledger()
        ended: list[bool] = []
        call: Any = _judged().call
        decision: Any = SimpleNamespace(outcome=Outcome.ALLOW)

        async def decide(_: Proposal) -> Any:
            return call, decision

        async def run(*_: Any) -> ToolResult:
            try:
                await asyncio.sleep(0.3)
            except asyncio.CancelledError:
                ended.append(True)
                raise
            return ToolResult("went on")

        held = Held(cast("Engine", SimpleNamespace(ledger=ledger, decide=decide, run=run)), "ten_local", 0.01)
        task = asyncio.create_task(held.execute(cast("Proposal", None)))
        await asyncio.sleep(0.03)
        if leaves:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await held.drain()
        return bool(ended), len(ledger.taken)

    killed, written = asyncio.run(scene())
    assert killed is leaves
    assert written == 2, "the job is opened and ended"
