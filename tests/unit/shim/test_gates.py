"""The gateway's hooks through the shim: each fault ends as our rule says, whatever the gateway's own rule is."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from integration.fake_core import DECISION, FakeCore, held, refused
from unit.shim.shim import SESSION, Shim

WITHHELD = "[withheld by safety-wrapper: this text could not be checked]"
CTX = {"agentId": "main", "sessionKey": SESSION}
#: What the core may do instead of answering well.
FAULTS: dict[str, Any] = {
    "silent": None,
    "error": "internal",
    "empty": {},
    "garbage": b"garbage that is no frame",
    "wrong types": {"content": 5, "decision": 5, "message": 5, "params": 5},
    "unknown key": {"content": "x", "decision": DECISION, "message": {}, "note": 1},
    "allow by another name": {"allow": True, "block": False, "ok2": True},
}
faulty = pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)


# ── before_tool_call ─────────────────────────────────────────────────────────────────────────────────────────────


def test_in_the_recommended_profile_only_our_tools_pass(shim: Shim, core: FakeCore) -> None:
    assert shim.before("exec")["block"] is True
    assert "only the sw_ tools" in shim.before("sessions_spawn")["blockReason"]
    assert shim.before("sw_exec") is None
    assert not core.of("decide")


@pytest.mark.parametrize(
    ("tool", "kind"),
    [("exec", "builtin"), ("message", "message"), ("sessions_spawn", "spawn"), ("rig__echo", "mcp")],
)
def test_a_builtin_runs_with_exactly_the_decided_params(
    builtin_shim: Shim, builtin_core: FakeCore, tool: str, kind: str
) -> None:
    builtin_core.answers["decide"] = lambda body: {"decision": DECISION, "params": {"command": "decided"}}
    assert builtin_shim.before(tool, params={"command": "proposed"}) == {"params": {"command": "decided"}}
    (asked,) = builtin_core.of("decide")
    context = {"agent": "main", "session": SESSION, "run": "run_1"}
    call = {"tool_call_id": "call_1", "tool": tool, "kind": kind, "params": {"command": "proposed"}}
    assert asked == {**call, "context": context}


def test_an_allow_may_name_the_request_whose_yes_it_spends(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    spent = {**DECISION, "request": "apr_01"}
    builtin_core.answers["decide"] = lambda body: {"decision": spent, "params": body["params"]}
    assert builtin_shim.before("exec") == {"params": {}}
    spent["request"] = 5
    assert builtin_shim.before("exec")["block"] is True


@pytest.mark.parametrize("answer", [held(), refused()])
def test_a_builtin_that_is_not_allowed_is_blocked_with_the_reason(
    builtin_shim: Shim, builtin_core: FakeCore, answer: Any
) -> None:
    builtin_core.answers["decide"] = lambda body: answer
    assert builtin_shim.before("exec") == {"block": True, "blockReason": answer["decision"]["reason"]}


@faulty
def test_a_fault_blocks_a_builtin(builtin_shim: Shim, builtin_core: FakeCore, fault: Any) -> None:
    builtin_core.answers["decide"] = lambda body: fault
    assert builtin_shim.before("exec")["block"] is True


@pytest.mark.parametrize("params", [None, [], "x", 5])
def test_allowed_without_params_is_blocked(builtin_shim: Shim, builtin_core: FakeCore, params: Any) -> None:
    builtin_core.answers["decide"] = lambda body: {"decision": DECISION, "params": params}
    assert builtin_shim.before("exec")["block"] is True


def test_own_tools_are_not_asked_about_twice(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    assert builtin_shim.before("sw_exec") is None
    assert not builtin_core.of("decide")


def test_the_gates_run_last_and_the_gateway_waits_longer_than_we_do(shim: Shim) -> None:
    for name in ("before_tool_call", "before_agent_run", "message_sending"):
        assert shim.call("options", name=name).value == {"priority": -1_000_000, "timeoutMs": 10_000}


# ── trusted policy: the second gate asks nobody ──────────────────────────────────────────────────────────────────


def policy(shim: Shim, tool: str, **changes: Any) -> Any:
    event = {"toolName": tool, "params": {}, "runId": "run_1", "toolCallId": "call_1", **changes}
    return shim.call("policy", event=event, ctx=CTX).value


def test_the_policy_refuses_what_needs_no_question(shim: Shim, core: FakeCore) -> None:
    assert policy(shim, "sw_exec") is None
    assert policy(shim, "exec")["allow"] is False
    assert policy(shim, "sw_exec", runId=None)["allow"] is False
    core.stop()
    shim.call("sleep", ms=100)
    assert policy(shim, "sw_exec")["allow"] is False


def test_the_policy_leaves_builtins_to_the_one_decision(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    assert policy(builtin_shim, "exec") is None
    assert not builtin_core.of("decide")


# ── what the model reads ─────────────────────────────────────────────────────────────────────────────────────────

SECRET = "echoed secret"


def middleware(shim: Shim, content: Any, details: Any = None) -> Any:
    event = {"toolCallId": "call_1", "toolName": "exec", "args": {"command": "x"}, "isError": False}
    result = {"content": content, "details": details}
    return shim.call("middleware", event={**event, "result": result}, ctx={**CTX, "runId": "run_1"}).value


def parts(*texts: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": text} for text in texts]


def test_a_builtins_result_is_cleaned_before_the_model_reads_it(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    builtin_core.answers["result"] = lambda body: {"content": parts("clean")}
    details = {"status": "completed", "exitCode": 0, "aggregated": SECRET, "nested": {"a": SECRET}}
    answer = middleware(builtin_shim, parts(SECRET), details)
    assert answer == {"result": {"content": parts("clean"), "details": {"status": "completed", "exitCode": 0}}}
    assert builtin_core.of("result")[0]["content"] == parts(SECRET)


def test_a_part_that_is_no_text_is_withheld(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    image = {"type": "image", "data": "AAAA", "mimeType": "image/png"}
    shown = middleware(builtin_shim, [image, *parts("text")])["result"]["content"]
    assert shown == parts("[withheld by safety-wrapper: a part that is not text]", "text")


@faulty
def test_a_fault_withholds_a_result(builtin_shim: Shim, builtin_core: FakeCore, fault: Any) -> None:
    builtin_core.answers["result"] = lambda body: fault
    assert middleware(builtin_shim, parts(SECRET)) == {"result": {"content": parts(WITHHELD), "details": {}}}


def test_the_core_can_withhold_and_must_keep_the_number_of_parts(builtin_shim: Shim, builtin_core: FakeCore) -> None:
    for answer in ({"withheld": True}, {"content": parts("a", "b")}, {"content": []}):
        builtin_core.answers["result"] = lambda body, answer=answer: answer
        assert middleware(builtin_shim, parts(SECRET))["result"]["content"] == parts(WITHHELD)


def test_a_result_that_the_core_gave_passes_untouched(shim: Shim, core: FakeCore) -> None:
    result = shim.execute()
    assert middleware(shim, result["content"]) is None
    assert not core.of("result")
    assert middleware(shim, parts("something else")) is not None


# ── the two synchronous hooks ────────────────────────────────────────────────────────────────────────────────────


def row(text: str = SECRET, **changes: Any) -> dict[str, Any]:
    message = {"role": "toolResult", "toolCallId": "call_1", "toolName": "exec", "content": parts(text), "details": {}}
    return {**message, **changes}


def warm(shim: Shim) -> None:
    """Let the worker thread say its hello; until then everything is withheld, which other tests look at."""
    shim.call("sleep", ms=400)


@pytest.mark.parametrize("hook", ["tool_result_persist", "before_message_write"])
def test_rows_are_cleaned_at_once_and_never_as_a_promise(shim: Shim, core: FakeCore, hook: str) -> None:
    warm(shim)
    core.answers["persist"] = lambda body: {"message": {**body["message"], "content": parts("clean")}}
    answer = shim.hook(hook, {"message": row()}, CTX)
    assert answer.promised is False
    assert answer.value == {"message": row("clean")}
    assert core.of("persist")[0] == {"message": row(), "context": {"agent": "main", "session": SESSION}}


@pytest.mark.parametrize("hook", ["tool_result_persist", "before_message_write"])
@faulty
def test_a_fault_withholds_a_row(shim: Shim, core: FakeCore, hook: str, fault: Any) -> None:
    warm(shim)
    core.answers["persist"] = lambda body: fault
    answer = shim.hook(hook, {"message": row(details={"aggregated": SECRET})}, CTX)
    assert answer.promised is False
    assert answer.value["message"]["content"] == parts(WITHHELD)
    assert SECRET not in str(answer.value)


def test_a_silent_core_holds_the_gateway_for_the_budget_only(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    core.answers["persist"] = lambda body: None
    waits = [shim.hook("tool_result_persist", {"message": row(f"{n}")}, CTX).ms for n in range(5)]
    assert sorted(waits)[2] < 200
    core.answers["persist"] = lambda body: {"message": body["message"]}
    shim.call("sleep", ms=50)
    assert shim.hook("tool_result_persist", {"message": row("next")}, CTX).value == {"message": row("next")}


def test_a_late_answer_is_not_taken_for_the_next_row(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    bodies: list[Any] = []

    def late(body: Any) -> Any:
        bodies.append(body)
        if len(bodies) == 1:
            time.sleep(0.12)
            return {"message": {**body["message"], "content": parts("belongs to the first row")}}
        return {"message": body["message"]}

    core.answers["persist"] = late
    first = shim.hook("tool_result_persist", {"message": row("first")}, CTX).value
    assert first["message"]["content"] == parts(WITHHELD)
    shim.call("sleep", ms=200)
    assert shim.hook("tool_result_persist", {"message": row("second")}, CTX).value == {"message": row("second")}


def test_an_answer_for_another_call_is_withheld(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    core.answers["persist"] = lambda body: {"message": {**body["message"], "toolCallId": "call_2"}}
    assert shim.hook("tool_result_persist", {"message": row()}, CTX).value["message"]["content"] == parts(WITHHELD)


def test_the_bridge_finds_the_core_again(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    core.stop()
    shim.call("sleep", ms=100)
    assert shim.hook("tool_result_persist", {"message": row()}, CTX).value["message"]["content"] == parts(WITHHELD)
    core.start()
    assert shim.ready()
    shim.call("sleep", ms=1500)
    assert shim.hook("tool_result_persist", {"message": row()}, CTX).value == {"message": row()}


@pytest.mark.parametrize("message", [None, "text", 5, [], {"role": {"$": "fn"}}, {"content": {"$": "cycle"}}])
def test_a_row_of_odd_shape_never_throws(shim: Shim, message: Any) -> None:
    warm(shim)
    assert "message" in shim.hook("tool_result_persist", {"message": message}, CTX).value


def test_what_the_core_cleaned_passes_by_its_hash_without_a_question(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    result = shim.execute()
    clean = row(result["content"][0]["text"], details=result["details"])
    assert shim.hook("tool_result_persist", {"message": clean}, CTX).value is None
    assert shim.hook("before_message_write", {"message": clean}, CTX).value is None
    assert not core.of("persist")
    shim.hook("tool_result_persist", {"message": {**clean, "details": {"aggregated": SECRET}}}, CTX)
    assert len(core.of("persist")) == 1


def test_a_newer_registry_ends_the_trust_in_older_hashes(shim: Shim, core: FakeCore) -> None:
    warm(shim)
    old = shim.execute()["content"]
    answer = core.answers["execute"]({"tool": "sw_exec", "params": {"n": 2}})
    assert isinstance(answer, dict)
    answer["result"]["clean"]["registry"] = 2
    core.answers["execute"] = lambda body: answer
    shim.execute(call_id="call_2")
    shim.hook("tool_result_persist", {"message": row(old[0]["text"])}, CTX)
    assert len(core.of("persist")) == 1


def test_a_withheld_reply_keeps_its_tool_calls(shim: Shim, core: FakeCore) -> None:
    call = {"type": "toolCall", "id": "call_1", "name": "sw_exec", "arguments": {}}
    core.stop()
    shim.call("sleep", ms=100)
    message = {"role": "assistant", "content": [*parts(SECRET), call]}
    written = shim.hook("before_message_write", {"message": message}, CTX).value["message"]
    assert written == {"role": "assistant", "content": [*parts(WITHHELD), call]}


# ── the user's words ─────────────────────────────────────────────────────────────────────────────────────────────


def test_the_users_rows_are_observed_in_full_and_left_alone(shim: Shim, core: FakeCore) -> None:
    message = {
        "role": "user",
        "content": "  Grüße,\n  https://example.com/a?b=c  ",
        "idempotencyKey": "k1:user",
        "timestamp": 1795442944030,
        "__openclaw": {"senderId": "555", "senderIsOwner": True, "transport": {"channel": "telegram"}},
        "attachments": ["never sent"],
    }
    answer = shim.hook("before_message_write", {"message": message}, CTX)
    assert answer.value is None
    assert answer.promised is False
    shim.call("sleep", ms=50)
    (seen,) = core.of("observe")
    del message["attachments"]
    assert seen == {"hook": "before_message_write", "raw": {"event": {"message": message}, "ctx": CTX}}
    assert not core.of("persist")


def test_provenance_is_handed_on(shim: Shim, core: FakeCore) -> None:
    message = {
        "role": "user",
        "content": "x",
        "provenance": {"kind": "internal_system", "sourceTool": "safety-wrapper"},
    }
    shim.hook("before_message_write", {"message": message}, CTX)
    shim.call("sleep", ms=50)
    assert core.of("observe")[0]["raw"]["event"]["message"] == message


# ── messages that leave ──────────────────────────────────────────────────────────────────────────────────────────

MESSAGE = {"to": "telegram:777", "content": "hello", "metadata": {"channel": "telegram", "mediaUrls": []}}
MESSAGE_CTX = {"channelId": "telegram", "sessionKey": SESSION}


def test_a_message_leaves_as_the_core_gives_it(shim: Shim, core: FakeCore) -> None:
    core.answers["send"] = lambda body: {"content": "hello, checked"}
    assert shim.hook("message_sending", MESSAGE, MESSAGE_CTX).value == {"content": "hello, checked"}
    context = {"session": SESSION, "channel": "telegram"}
    assert core.of("send") == [{"to": "telegram:777", "content": "hello", "channel": "telegram", "context": context}]


def test_a_message_that_the_core_cancels_is_cancelled(shim: Shim, core: FakeCore) -> None:
    core.answers["send"] = lambda body: {"cancel": True, "reason": "not to strangers"}
    assert shim.hook("message_sending", MESSAGE, MESSAGE_CTX).value == {
        "cancel": True,
        "cancelReason": "not to strangers",
    }


@faulty
def test_a_fault_cancels_a_message(shim: Shim, core: FakeCore, fault: Any) -> None:
    core.answers["send"] = lambda body: fault
    assert shim.hook("message_sending", MESSAGE, MESSAGE_CTX).value["cancel"] is True


@pytest.mark.parametrize("event", [{}, None, {**MESSAGE, "content": 5}, {**MESSAGE, "metadata": {"mediaUrls": ["a"]}}])
def test_a_message_that_is_not_all_text_is_cancelled(shim: Shim, core: FakeCore, event: Any) -> None:
    assert shim.hook("message_sending", event, MESSAGE_CTX).value["cancel"] is True
    assert not core.of("send")


def test_without_a_core_a_message_is_cancelled(shim: Shim, core: FakeCore) -> None:
    core.stop()
    shim.call("sleep", ms=100)
    assert shim.hook("message_sending", MESSAGE, MESSAGE_CTX).value["cancel"] is True


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_engine_no_run_and_the_user_reads_what_to_do(node_program: Path, folder: Path) -> None:
    shim = Shim(node_program, folder, folder / "nobody.sock")
    answer = shim.hook("before_agent_run", {}, {"runId": "run_1"})
    assert answer.value["outcome"] == "block"
    assert "safety-wrapper status" in answer.value["message"]
    assert answer.ms < 5000
    shim.close()


@faulty
def test_a_fault_blocks_the_run(shim: Shim, core: FakeCore, fault: Any) -> None:
    core.answers["hello"] = lambda body: fault
    assert shim.hook("before_agent_run", {}, {"runId": "run_1"}).value["outcome"] == "block"


def test_a_run_waits_for_a_core_that_is_just_starting(node_program: Path, folder: Path) -> None:
    core = FakeCore(folder / "agent.sock")
    shim = Shim(node_program, folder, core.path)
    number = shim.begin("hook", name="before_agent_run", event={}, ctx={"runId": "run_1"})
    core.start()
    assert shim.wait(number).value == {"outcome": "pass"}
    shim.close()
    core.close()


# ── observed ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_observations_carry_ids_and_numbers_and_no_texts(shim: Shim, core: FakeCore) -> None:
    event = {
        "toolName": "exec",
        "params": {"command": SECRET},
        "runId": "run_1",
        "toolCallId": "call_1",
        "result": {"content": parts(SECRET), "details": {"exitCode": 1, "aggregated": SECRET}},
        "error": f"failed: {SECRET}",
        "durationMs": 3,
    }
    shim.hook("after_tool_call", event, {**CTX, "abortSignal": {}, "trace": {"traceId": SECRET}})
    usage = {"input": 800, "output": 100, "cacheRead": 1200, "cacheWrite": 0}
    told = {"runId": "run_1", "provider": "p", "model": "m", "usage": usage}
    shim.hook("llm_output", {**told, "assistantTexts": [SECRET]}, CTX)
    shim.hook("before_prompt_build", {"prompt": SECRET, "messages": [SECRET]}, {**CTX, "runId": "run_1"})
    shim.call("sleep", ms=50)
    assert SECRET not in str(core.of("observe"))
    after, output, prompt = core.of("observe")
    same = {"toolName": "exec", "toolCallId": "call_1", "runId": "run_1", "durationMs": 3}
    assert after["raw"] == {"event": {**same, "error": "error", "exitCode": 1}, "ctx": CTX}
    assert output["raw"]["event"] == told
    assert prompt["raw"] == {"event": {}, "ctx": {**CTX, "runId": "run_1"}}


def test_a_child_is_named_with_its_parent(shim: Shim, core: FakeCore) -> None:
    event = {"runId": "run_2", "childSessionKey": "agent:main:subagent:x", "agentId": "main", "label": "sub"}
    ctx = {"runId": "run_2", "childSessionKey": "agent:main:subagent:x", "requesterSessionKey": SESSION}
    shim.hook("subagent_spawned", event, ctx)
    shim.call("sleep", ms=50)
    assert core.of("observe") == [{"hook": "subagent_spawned", "raw": {"event": event, "ctx": ctx}}]


def test_observing_never_throws_and_never_floods(shim: Shim, core: FakeCore) -> None:
    core.answers["observe"] = lambda body: None
    for n in range(40):
        assert shim.hook("after_tool_call", {"toolCallId": f"call_{n}", "result": {"$": "cycle"}}, CTX).value is None
    for odd in (None, {"$": "cycle"}, {"$": "fn"}):
        for hook in ("after_tool_call", "llm_output", "session_start", "session_end", "gateway_start", "gateway_stop"):
            assert shim.hook(hook, odd, odd).value is None
    shim.call("sleep", ms=50)
    assert len(core.of("observe")) == 16
    assert shim.before() is None  # there is room for what somebody waits for


@pytest.mark.parametrize("event", [None, {}, {"toolName": {"$": "fn"}}, {"$": "cycle"}])
def test_a_gate_that_is_given_odd_things_refuses(shim: Shim, event: Any) -> None:
    assert shim.hook("before_tool_call", event, None).value["block"] is True
    assert shim.call("policy", event=event, ctx=None).value["allow"] is False
    assert "message" in shim.hook("before_message_write", event, None).value
    assert shim.call("middleware", event=event, ctx=None).value is not None
