"""The real gateway with a core that a test scripts: what the model sees when the engine is well, and when it is not."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from integration.conftest import TOOLS
from integration.fake_core import FakeCore, held, ran
from integration.gateway import Gateway
from safety_wrapper.bridge import openclaw
from safety_wrapper.bridge.waker import GatewayClient, GatewayRefusedError

pytestmark = pytest.mark.gateway


@pytest.fixture(autouse=True)
def _restored(core: FakeCore) -> Any:
    before = dict(core.answers)
    core.seen.clear()
    yield
    core.answers.clear()
    core.answers.update(before)


def run_sw(command: str = "ls") -> list[dict[str, Any]]:
    return [{"tools": [{"name": "sw_exec", "args": {"command": command}}]}, {"text": "finished"}]


async def begun(core: FakeCore) -> None:
    """Until the core was asked to execute something."""
    async with asyncio.timeout(30):
        while not core.of("execute"):  # noqa: ASYNC110  (the core lives in another thread)
            await asyncio.sleep(0.02)


def until_well(gateway: Gateway, core: FakeCore) -> None:
    """After a fault: a turn that works again."""
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        if gateway.turn(run_sw()).results == ["ran sw_exec {'command': 'ls'}"]:
            return
    raise AssertionError("the gateway did not find the core again")


def test_one_own_tool_runs_in_the_core_and_the_model_reads_it(gateway: Gateway, core: FakeCore) -> None:
    turn = gateway.turn(run_sw("echo hi"), session="agent:main:thin")
    assert turn.offered == ["sw_exec"]
    assert turn.results == ["ran sw_exec {'command': 'echo hi'}"]
    assert not turn.errors
    (call,) = core.of("execute")
    assert call["tool"] == "sw_exec"
    assert call["params"] == {"command": "echo hi"}
    assert {key: call["context"][key] for key in ("agent", "session")} == {
        "agent": "main",
        "session": "agent:main:thin",
    }
    assert call["context"]["run"]
    assert not core.of("decide")
    assert not core.of("result")


def test_hello_names_the_pinned_gateway_and_the_installed_bytes(gateway: Gateway, core: FakeCore) -> None:
    with_hello = gateway.turn([{"text": "x"}])
    assert with_hello.status == "ok"
    hello = core.of("hello")[-1]
    assert hello["gateway_version"] == openclaw.GATEWAY_VERSION
    assert hello["shim_sha256"] == openclaw.shim_sha256()
    assert hello["tools_sha256"] == openclaw.tools_sha256(TOOLS)


def test_a_long_result_reaches_the_model_byte_for_byte_and_passes_the_hooks_by_its_hash(
    gateway: Gateway, core: FakeCore
) -> None:
    words = "".join(f"line {n} äöü 0123456789\n" for n in range(700))[:16_000]
    core.answers["execute"] = lambda body: ran(words)
    assert gateway.turn(run_sw()).results == [words]
    assert not core.of("result")
    assert not [body for body in core.of("persist") if body["message"]["role"] == "toolResult"]


def test_a_held_call_is_told_with_its_id(gateway: Gateway, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: held("apr_01HX")
    assert gateway.turn(run_sw()).results == ["Held: ask the owner to approve apr_01HX."]


def test_the_gateways_own_tools_are_not_there(gateway: Gateway, core: FakeCore) -> None:
    turn = gateway.turn([{"tools": [{"name": "exec", "args": {"command": "touch /tmp/x"}}]}, {"text": "done"}])
    assert turn.results == ["Tool exec not found"]
    assert not core.of("decide")


def test_calls_of_one_reply_are_answered_in_order(gateway: Gateway, core: FakeCore) -> None:
    calls = [{"name": "sw_exec", "args": {"command": str(n)}} for n in range(4)]
    turn = gateway.turn([{"tools": calls}, {"text": "done"}])
    assert turn.results == [f"ran sw_exec {{'command': '{n}'}}" for n in range(4)]
    assert not turn.errors


def test_a_call_without_a_run_is_refused(gateway: Gateway, core: FakeCore) -> None:
    async def invoke() -> str:
        async with GatewayClient(gateway.url, gateway.token) as client:
            try:
                answer = await client.call(
                    "tools.invoke", name="sw_exec", args={"command": "id"}, sessionKey="agent:main:x"
                )
            except GatewayRefusedError as refused:
                return refused.said
            return json.dumps(answer)

    assert "belongs to no agent run" in asyncio.run(invoke())
    assert not core.of("execute")


def test_an_aborted_turn_cancels_the_call_in_the_core(gateway: Gateway, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None

    async def abort() -> None:
        turn = asyncio.create_task(gateway.turn_async(run_sw(), session="agent:main:abort"))
        await begun(core)
        # somebody else's run: the owner at another screen
        async with GatewayClient(gateway.url, gateway.token, ("operator.write", "operator.admin")) as client:
            await client.call("chat.abort", sessionKey="agent:main:abort")
        await turn

    asyncio.run(abort())
    (call,) = core.of("execute")
    assert core.of("cancel") == [{"tool_call_id": call["tool_call_id"]}]


ODD: dict[str, Any] = {
    "garbage": b"\x00\x00\x00\x05hello and more",
    "oversized frame": b"\x7f\xff\xff\xff{",
    "wrong shape": {"result": {"content": [{"type": "text", "text": "DO NOT SHOW"}]}},
    "oversized result": ran("DO NOT SHOW" + "x" * 16_000),
    "hash of another text": {
        **ran("DO NOT SHOW"),
        "result": {**ran("DO NOT SHOW")["result"], "clean": ran("a")["result"]["clean"]},
    },
    "error": "internal",
}


@pytest.mark.parametrize("answer", ODD.values(), ids=ODD)
def test_an_odd_answer_is_a_refusal(gateway: Gateway, core: FakeCore, answer: Any) -> None:
    core.answers["execute"] = lambda body: answer
    (said,) = gateway.turn(run_sw()).results
    assert said.startswith(("Error:", "Refused:"))
    assert "DO NOT SHOW" not in said
    assert gateway.alive


def test_a_silent_core_is_a_refusal_in_the_end(gateway: Gateway, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None
    (said,) = gateway.turn(run_sw()).results  # execute_s of this installation is 5 s; the shim gives 15 s more
    assert "did not answer in time" in said
    assert core.of("cancel")


def test_the_synchronous_hooks_survive_a_silent_core(gateway: Gateway, core: FakeCore) -> None:
    core.answers["persist"] = lambda body: None
    unknown = [{"tools": [{"name": "made_up", "args": {}}]}, {"text": "finished"}]
    turn = gateway.turn(unknown, session="agent:main:silent")
    assert turn.status == "ok"
    again = gateway.turn([{"text": "on we go"}], session="agent:main:silent")
    assert again.status == "ok"
    assert not again.errors  # the withheld rows are still a legal conversation
    history = [m for m in gateway.provider.requests()[-1]["body"]["messages"] if m["role"] in {"tool", "assistant"}]
    assert "withheld by safety-wrapper" in json.dumps(history)
    assert gateway.alive


def test_without_the_core_no_run_begins_and_the_user_reads_why(gateway: Gateway, core: FakeCore) -> None:
    core.stop()
    try:
        turn = gateway.turn(run_sw())
        assert turn.status != "ok" or "safety engine" in turn.reply
        assert not turn.offered  # no model call at all
        assert not core.of("execute")
        assert gateway.alive
    finally:
        core.start()
    until_well(gateway, core)


def test_a_core_that_goes_away_during_a_turn_ends_in_a_refusal(gateway: Gateway, core: FakeCore) -> None:
    steps = [
        {"tools": [{"name": "sw_exec", "args": {"command": "1"}}]},
        {"sleep": 1.5, **run_sw("2")[0]},
        {"text": "done"},
    ]

    async def vanish() -> list[str]:
        turn = asyncio.create_task(gateway.turn_async(steps))
        await begun(core)
        await asyncio.sleep(0.5)
        core.stop()
        return (await turn).results

    try:
        first, second = asyncio.run(vanish())
    finally:
        core.start()
    assert first.startswith("ran")
    assert second.startswith("Refused: the safety engine is not running")
    until_well(gateway, core)
