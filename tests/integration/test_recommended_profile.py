"""The recommended profile, whole: the real gateway, core, runner and waker, each as its own user."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from integration.conftest import Guarded
from safety_wrapper.cli.demo_origin import HOST

pytestmark = pytest.mark.gateway

ORDER = {
    "method": "POST",
    "url": f"https://{HOST}/orders",
    "headers": {"content-type": "application/json"},
    "body": '{"item": "paper", "boxes": 20}',
}
REQUEST = r"(apr_[0-9A-Z]{26})"


def call(tool: str, **args: Any) -> dict[str, Any]:
    return {"tools": [{"name": tool, "args": args}]}


def until(true: Callable[[], bool], within_s: float = 30.0) -> bool:
    end_s = time.monotonic() + within_s
    while not true():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.1)
    return True


def test_exactly_our_tools_are_offered_and_the_provider_takes_them(recommended: Guarded) -> None:
    turn = recommended.gateway.turn([{"text": "hello"}])
    assert turn.errors == []
    assert turn.offered == ["sw_edit", "sw_exec", "sw_http__request", "sw_list", "sw_read", "sw_resume", "sw_write"]


def test_status_knows_the_gateway(recommended: Guarded) -> None:
    recommended.gateway.turn([{"text": "hello"}])
    gateway = recommended.owner("status")["gateway"]
    assert gateway == {"connected": True, "ready": True, "version": "2026.9.6", "profile": "recommended"}


def test_green_runs_in_the_sandbox_and_is_recorded(recommended: Guarded) -> None:
    session = "agent:main:green"
    turn = recommended.gateway.turn([call("sw_exec", command="echo $((6*7)); pwd"), {"text": "done"}], session=session)
    assert turn.results == ["42\n/work"]
    (decision,) = recommended.decisions(session)
    assert (decision["outcome"], decision["class"], decision["tool"]) == ("allow", "GREEN", "exec")
    assert decision["run"]


def test_files_are_written_read_and_changed(recommended: Guarded) -> None:
    steps = [
        call("sw_write", path="a.txt", content="one\ntwo\n"),
        call("sw_edit", path="a.txt", old="two", new="zwölf"),
        call("sw_read", path="a.txt"),
        {"text": "done"},
    ]
    turn = recommended.gateway.turn(steps)
    assert "zwölf" in turn.results[-1]
    assert (recommended.live.made.workspace / "a.txt").read_text() == "one\nzwölf\n"


def test_what_leaves_is_held_approved_run_once_and_read_by_id(recommended: Guarded) -> None:
    session = "agent:main:order"
    before = len(recommended.origin.arrived())
    ask = [
        call("sw_http__request", **ORDER),
        {"text": "I wait."},
        {"from": REQUEST, **call("sw_resume", id="{{1}}")},  # said in the turn that the waker starts
        {"text": "It is ordered."},
    ]
    turn = recommended.gateway.turn(ask, session=session)
    (held,) = turn.results
    found = re.search(REQUEST, held)
    assert found, held
    assert held.startswith("Held:")
    assert "Do not repeat" in held
    assert len(recommended.origin.arrived()) == before

    recommended.approve(found[1])
    assert until(lambda: recommended.state(found[1]) == "done")
    arrived = recommended.origin.arrived()[before:]
    assert [entry["body"] for entry in arrived] == [ORDER["body"]]

    def resumed() -> list[str]:
        last = recommended.gateway.provider.requests()[-1]["body"]["messages"]
        return [json.dumps(m) for m in last if m["role"] == "tool" and "1001" in json.dumps(m)]

    assert until(lambda: bool(resumed())), "the waker did not wake the session"
    woken = recommended.gateway.provider.requests()[-1]["body"]["messages"]
    (words,) = [m for m in woken if m["role"] == "user" and found[1] in json.dumps(m)]
    assert "Call sw_resume" in json.dumps(words)
    assert len(recommended.origin.arrived()) == before + 1

    again = recommended.gateway.turn([call("sw_http__request", **ORDER), {"text": "done"}], session=session)
    second = re.search(REQUEST, again.results[0])
    assert second, again.results
    assert second[1] != found[1]
    assert len(recommended.origin.arrived()) == before + 1


def test_the_result_belongs_to_the_session_that_asked(recommended: Guarded) -> None:
    turn = recommended.gateway.turn([call("sw_http__request", **ORDER), {"text": "I wait."}], session="agent:main:mine")
    found = re.search(REQUEST, turn.results[0])
    assert found
    recommended.approve(found[1])
    assert until(lambda: recommended.state(found[1]) == "done")
    other = recommended.gateway.turn([call("sw_resume", id=found[1]), {"text": "x"}], session="agent:main:other")
    assert "1001" not in other.results[0]
    mine = recommended.gateway.turn([call("sw_resume", id=found[1]), {"text": "x"}], session="agent:main:mine")
    assert "1001" in mine.results[0]


def test_critical_red_is_held_at_level_3_and_red_is_not(recommended: Guarded) -> None:
    recommended.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 3}, "reason": "test"})
    try:
        steps = [
            call("sw_write", path="old.txt", content="x"),
            call("sw_exec", command="rm /work/old.txt"),
            call("sw_exec", command="cat /etc/safety-wrapper/config.json"),
            {"text": "done"},
        ]
        turn = recommended.gateway.turn(steps, session="agent:main:level3")
    finally:
        recommended.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 2}, "reason": "test"})
    classes = [(d["class"], d["outcome"]) for d in recommended.decisions("agent:main:level3")]
    assert classes[1:] == [("RED", "allow"), ("CRITICAL_RED", "require_approval")]
    assert not (recommended.live.made.workspace / "old.txt").exists()
    assert turn.results[2].startswith("Held:")


def test_an_unlisted_tool_does_not_exist(recommended: Guarded) -> None:
    turn = recommended.gateway.turn([call("exec", command="id"), call("sw_teleport"), {"text": "done"}])
    assert turn.results == ["Tool exec not found", "Tool sw_teleport not found"]


def test_a_long_output_is_cut_to_what_stays_byte_identical(recommended: Guarded) -> None:
    steps = [call("sw_exec", command="for i in $(seq 1 9000); do echo line $i; done"), {"text": "done"}]
    (said,) = recommended.gateway.turn(steps).results
    assert 10_000 < len(said) <= 16_000


def test_an_aborted_command_is_killed_in_the_sandbox(recommended: Guarded) -> None:
    from safety_wrapper.bridge.waker import GatewayClient

    session = "agent:main:abort"
    steps = [call("sw_exec", command="touch /work/started; sleep 3 && touch /work/ended"), {"text": "done"}]
    workspace = recommended.live.made.workspace

    async def abort() -> None:
        turn = asyncio.create_task(recommended.gateway.turn_async(steps, session=session))
        assert await asyncio.to_thread(until, (workspace / "started").exists)
        scopes = ("operator.write", "operator.admin")
        async with GatewayClient(recommended.gateway.url, recommended.gateway.token, scopes) as client:
            await client.call("chat.abort", sessionKey=session)
        await turn

    recommended.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 3}, "reason": "test"})
    try:
        asyncio.run(abort())
    finally:
        recommended.owner("own.set", statement={"kind": "level", "body": {"agent": "*", "level": 2}, "reason": "test"})
    time.sleep(4)
    assert not (workspace / "ended").exists()


def test_a_killed_core_refuses_the_next_call_and_the_next_run(recommended: Guarded) -> None:
    """The supervisor is held still, so that it does not start the core again at once."""
    live, gateway = recommended.live, recommended.gateway
    steps = [call("sw_list", path="/work"), {"sleep": 2, **call("sw_list", path="/work")}, {"text": "done"}]
    asked = len(gateway.provider.requests())

    async def kill() -> list[str]:
        turn = asyncio.create_task(gateway.turn_async(steps))
        assert await asyncio.to_thread(until, lambda: len(gateway.provider.requests()) >= asked + 2)
        os.kill(live.process.pid, signal.SIGSTOP)
        live.kill("core")
        return (await turn).results

    try:
        first, second = asyncio.run(kill())
        assert not first.startswith("Refused")
        assert second.startswith("Refused: the safety engine is not running")
        blocked = gateway.turn([call("sw_list", path="/work"), {"text": "done"}])
        assert blocked.offered == []
        assert blocked.results == []
        assert gateway.alive
    finally:
        os.kill(live.process.pid, signal.SIGCONT)
    live.wait_ready()

    def runs() -> bool:
        results = gateway.turn([call("sw_exec", command="echo back"), {"text": "done"}]).results
        return results == ["back"]

    assert until(runs)
