"""The built-in profile, whole: the gateway's own exec, message and sessions_spawn behind before_tool_call."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.conftest import Guarded

pytestmark = pytest.mark.gateway

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


def writable(guarded: Guarded) -> Path:
    """A folder that the gateway's own user may write, so that a call that was let through would leave a trace."""
    return guarded.gateway.layout.home / "workspace"


def test_the_listed_tools_are_offered_and_no_others(builtin: Guarded) -> None:
    turn = builtin.gateway.turn([{"text": "hello"}])
    assert turn.errors == []
    theirs = [name for name in turn.offered if not name.startswith("sw_")]
    assert theirs == ["exec", "message", "read", "sessions_spawn", "write"]


def test_exec_runs_when_green_and_is_recorded(builtin: Guarded) -> None:
    turn = builtin.gateway.turn([call("exec", command="echo hello"), {"text": "done"}], session="agent:main:green")
    assert turn.results == ["hello"]
    (decision,) = builtin.decisions("agent:main:green")
    assert (decision["tool"], decision["kind"], decision["outcome"]) == ("exec", "builtin", "allow")


def test_exec_is_held_when_red_then_runs_once_for_one_yes(builtin: Guarded) -> None:
    victim = writable(builtin) / "victim"
    victim.touch()
    session = "agent:main:red"
    steps = [call("exec", command=f"rm {victim}"), {"text": "done"}]
    (held,) = builtin.gateway.turn(steps, session=session).results
    found = re.search(REQUEST, held)
    assert found, held
    assert victim.exists()

    elsewhere = builtin.gateway.turn(steps, session="agent:main:elsewhere").results
    builtin.approve(found[1])
    assert builtin.gateway.turn(steps, session="agent:main:elsewhere").results[0] == elsewhere[0]
    assert victim.exists()

    other = [call("exec", command=f"rm {victim} "), {"text": "done"}]  # one byte more
    assert builtin.gateway.turn(other, session=session).results[0].startswith("Held:")
    assert victim.exists()

    assert not builtin.gateway.turn(steps, session=session).results[0].startswith(("Held:", "Refused:"))
    assert not victim.exists()

    victim.touch()
    (again,) = builtin.gateway.turn(steps, session=session).results
    assert again.startswith("Held:")
    assert victim.exists()


def test_a_message_that_leaves_is_held(builtin: Guarded) -> None:
    steps = [call("message", action="send", target="telegram:777", message="hello"), {"text": "done"}]
    (held,) = builtin.gateway.turn(steps, session="agent:main:message").results
    assert held.startswith("Held:")
    (decision,) = builtin.decisions("agent:main:message")
    assert (decision["kind"], decision["class"]) == ("message", "YELLOW_EXTERNAL")


def test_own_tools_stay_in_the_sandbox(builtin: Guarded) -> None:
    assert builtin.gateway.turn([call("sw_exec", command="pwd"), {"text": "done"}]).results == ["/work"]


def test_a_tool_that_the_policy_does_not_list_is_not_there(builtin: Guarded) -> None:
    steps = [call("process", action="list"), call("web_fetch", url="https://example.com"), {"text": "done"}]
    assert builtin.gateway.turn(steps).results == ["Tool process not found", "Tool web_fetch not found"]


def test_a_child_gets_its_budget_and_no_child_of_its_own(builtin: Guarded) -> None:
    """The installation allows depth 1 and 2 calls for a child."""
    grandchild = call("sessions_spawn", task="deeper", label="deep")
    child = [grandchild, call("exec", command="echo two"), call("exec", command="echo three"), {"text": "child done"}]
    steps = [call("sessions_spawn", task=f"sub SCRIPT:{json.dumps(child)}", label="sub"), {"text": "parent done"}]
    turn = builtin.gateway.turn(steps, session="agent:main:parent")
    found = re.search(r"agent:main:subagent:[0-9a-f-]+", turn.results[0])
    assert found, turn.results
    assert until(lambda: len(builtin.decisions(found[0])) == 3)
    spawn, second, third = builtin.decisions(found[0])
    assert (spawn["kind"], spawn["outcome"]) == ("spawn", "block")
    outcomes = [(d["tool"], d["outcome"]) for d in (second, third)]
    assert ("exec", "block") in outcomes  # the budget of 2 calls counts the refused spawn, or ends with the third
    assert "budget" in third["reason"]


def test_an_unannounced_child_has_no_calls_at_all(builtin: Guarded) -> None:
    session = "agent:main:subagent:00000000-0000-4000-8000-000000000000"
    turn = builtin.gateway.turn([call("exec", command="echo hello"), {"text": "done"}], session=session)
    assert turn.results == [] or turn.results[0].startswith("Refused:")
    assert all(decision["outcome"] == "block" for decision in builtin.decisions(session))


def test_a_killed_core_refuses_the_gateways_own_tools(builtin: Guarded) -> None:
    marker = writable(builtin) / "ran"
    live, gateway = builtin.live, builtin.gateway
    steps = [
        call("exec", command="echo one"),
        {"sleep": 2, **call("exec", command=f"echo x > {marker}")},
        {"text": "done"},
    ]
    asked = len(gateway.provider.requests())

    async def kill() -> list[str]:
        turn = asyncio.create_task(gateway.turn_async(steps))
        assert await asyncio.to_thread(until, lambda: len(gateway.provider.requests()) >= asked + 2)
        os.kill(live.process.pid, signal.SIGSTOP)
        live.kill("core")
        return (await turn).results

    try:
        first, second = asyncio.run(kill())
    finally:
        os.kill(live.process.pid, signal.SIGCONT)
    assert first == "one"
    assert second.startswith("Refused: the safety engine is not running")
    assert not marker.exists()
    live.wait_ready()
    assert until(lambda: gateway.turn([call("exec", command="echo back"), {"text": "done"}]).results == ["back"])
