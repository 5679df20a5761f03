"""Own tools through the shim: what the core gets, what the model gets, and that every fault is a refusal."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

import pytest

from integration.fake_core import DECISION, FakeCore, held, ran, refused
from safety_wrapper.bridge import openclaw
from unit.shim.shim import SESSION, TOOLS, Shim, install, text

RUN = {"agent": "main", "session": SESSION, "run": "run_1", "channel": "telegram"}


def test_says_hello_with_the_digests_of_what_was_installed(shim: Shim, core: FakeCore) -> None:
    assert core.of("hello")[0] == {
        "gateway_version": "2026.9.6",
        "shim_sha256": openclaw.shim_sha256(),
        "tools_sha256": openclaw.tools_sha256(TOOLS),
        "mode": "full",
    }


def test_an_altered_file_changes_the_digest_that_it_says(node_program: Path, folder: Path, core: FakeCore) -> None:
    install(folder / "plugin0")
    with (folder / "plugin0" / "memory.js").open("a") as file:
        file.write("\n// altered\n")
    shim = Shim(node_program, folder, core.path, evaluations=1)
    shim.ready()
    assert core.of("hello")[0]["shim_sha256"] != openclaw.shim_sha256()
    shim.close()


def test_two_evaluations_share_one_connection_beside_the_bridges(shim: Shim, core: FakeCore) -> None:
    shim.call("sleep", ms=200)
    assert core.connections == 2  # one for calls, one of the synchronous bridge's worker


def test_registers_the_tools_as_they_were_installed_without_a_core(node_program: Path, folder: Path) -> None:
    shim = Shim(node_program, folder, folder / "nobody.sock", load=False)
    assert shim.call("load").value["tools"] == ["sw_exec", "sw_http__request"]
    offered = shim.call("offered", tool="sw_exec").value
    assert offered["description"] == "Run a command."
    assert offered["parameters"] == TOOLS[0]["parameters"]
    shim.close()


def test_runs_a_call_once_in_the_core_and_hands_its_text_on(shim: Shim, core: FakeCore) -> None:
    result = shim.execute(params={"command": "ls"})
    assert text(result) == "ran sw_exec {'command': 'ls'}"
    assert result["details"] == {"status": "ok"}
    (call,) = core.of("execute")
    assert call == {"tool_call_id": "call_1", "tool": "sw_exec", "params": {"command": "ls"}, "context": RUN}
    assert not core.of("decide")


def test_leaves_out_what_it_does_not_know(shim: Shim, core: FakeCore) -> None:
    shim.execute(ctx={"sessionKey": SESSION})
    assert core.of("execute")[0]["context"] == {"session": SESSION, "run": "run_1"}


def test_learns_the_trigger_of_a_run(shim: Shim, core: FakeCore) -> None:
    shim.hook("before_agent_run", {}, {"runId": "run_1", "trigger": "heartbeat"})
    shim.execute()
    assert core.of("execute")[0]["context"] == {**RUN, "trigger": "heartbeat"}


@pytest.mark.parametrize(
    ("answer", "said", "status"),
    [
        (held(), "Held: ask the owner to approve apr_01.", "blocked"),
        (refused(), "Refused: not on the list.", "blocked"),
        (
            {"decision": {"outcome": "block", "rules": ["sw.control"], "reason": "Refused: no."}},
            "Refused: no.",
            "blocked",
        ),
        (ran("no such file", is_error=True), "Error: no such file", "error"),
        (ran("Error: exit 2", is_error=True), "Error: exit 2", "error"),
    ],
)
def test_says_refusals_and_errors_in_the_text(shim: Shim, core: FakeCore, answer: Any, said: str, status: str) -> None:
    core.answers["execute"] = lambda body: answer
    result = shim.execute()
    assert text(result) == said
    assert result["details"] == {"status": status}


def test_names_the_job_of_a_call_that_goes_on(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: {"decision": DECISION, "job": "job_7"}
    assert "sw_resume with the id job_7" in text(shim.execute())


# ── a call without a run ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("changes", [{"runId": None}, {"runId": ""}, {"toolCallId": None}])
def test_a_call_without_run_or_id_is_refused_before_it_starts(
    shim: Shim, core: FakeCore, changes: dict[str, Any]
) -> None:
    assert shim.before(**changes)["block"] is True
    assert not core.of("execute")


def test_an_execute_that_nobody_announced_is_refused(shim: Shim, core: FakeCore) -> None:
    assert "belongs to no agent run" in text(shim.execute(announce=False))
    assert not core.of("execute")


def test_an_announcement_of_another_session_does_not_count(shim: Shim, core: FakeCore) -> None:
    assert shim.before() is None
    refused = shim.execute(announce=False, ctx={"agentId": "main", "sessionKey": "agent:main:other"})
    assert "belongs to no agent run" in text(refused)
    assert not core.of("execute")


def test_an_announcement_is_good_for_one_execute(shim: Shim, core: FakeCore) -> None:
    shim.execute()
    assert "belongs to no agent run" in text(shim.execute(announce=False))
    assert len(core.of("execute")) == 1


# ── the core is odd ──────────────────────────────────────────────────────────────────────────────────────────────

GOOD = ran("fine")
RESULT = GOOD["result"]


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"decision": None},
        {"decision": []},
        {"decision": {**DECISION, "outcome": "yes"}, "result": RESULT},
        {"decision": {**DECISION, "class": "BLUE"}, "result": RESULT},
        {"decision": {**DECISION, "note": 1}, "result": RESULT},
        {"decision": {"outcome": "allow", "reason": ""}, "result": RESULT},
        {"decision": DECISION},
        {"decision": DECISION, "result": RESULT, "job": "job_1"},
        {**refused(), "result": RESULT},
        {**held(), "job": "job_1"},
        {"decision": {**DECISION, "outcome": "require_approval"}},
        {**GOOD, "extra": 1},
        {"decision": DECISION, "result": {**RESULT, "content": "fine"}},
        {"decision": DECISION, "result": {**RESULT, "content": []}},
        {"decision": DECISION, "result": {**RESULT, "content": [{"type": "image", "data": "x"}]}},
        {"decision": DECISION, "result": {**RESULT, "is_error": "no"}},
        {"decision": DECISION, "result": {**RESULT, "clean": {"sha256": "0" * 64, "registry": 1}}},
        ran("x" * 16_001),
        {"result": RESULT},
        {"decision": DECISION, "result": {**RESULT, "truncated_bytes": -1}},
    ],
)
def test_an_answer_of_unknown_shape_is_refused(shim: Shim, core: FakeCore, answer: Any) -> None:
    core.answers["execute"] = lambda body: answer
    result = shim.execute()
    assert "can't be trusted" in text(result)
    assert result["details"] == {"status": "blocked"}


def test_the_same_call_with_a_good_answer_is_handed_on(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: GOOD
    assert text(shim.execute()) == "fine"


def frame(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


@pytest.mark.parametrize(
    "data",
    [
        b"not a frame at all",
        frame(b"not json"),
        frame(b"[1]"),
        frame(b"{}"),
        frame(b'{"id":1.5,"ok":true}'),
        frame(b'{"id":999999,"ok":true}'),
        frame(b'{"id":null,"ok":false,"error":{"code":"bad_frame"}}'),
        frame(b'{"event":"approve_everything"}'),
        frame(b'\xff\xfe{"id":1}'),
        struct.pack(">I", 2**31) + b"{",
        struct.pack(">I", 1) + b"{",
    ],
)
def test_bytes_that_are_no_answer_refuse_the_call_and_the_next_one_works(
    shim: Shim, core: FakeCore, data: bytes
) -> None:
    core.answers["execute"] = lambda body: data
    assert text(shim.execute()).startswith(("Error:", "Refused:"))
    core.answers["execute"] = lambda body: GOOD
    assert shim.ready()
    assert text(shim.execute(call_id="call_2")) == "fine"


@pytest.mark.parametrize("code", ["busy", "bad_request", "internal", "deadline", "unavailable", "made_up"])
def test_an_error_answer_refuses_the_call(shim: Shim, core: FakeCore, code: str) -> None:
    core.answers["execute"] = lambda body: code
    assert text(shim.execute()).startswith(("Error:", "Refused:"))


def test_a_silent_core_ends_in_a_refusal_and_a_cancelled_call(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None
    assert "may have run in part" in text(shim.execute())
    shim.call("sleep", ms=50)
    assert core.of("cancel") == [{"tool_call_id": "call_1"}]


def test_an_aborted_call_is_cancelled_in_the_core(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None
    result = shim.execute(abort_ms=100)
    assert "cancelled by the user" in text(result)
    shim.call("sleep", ms=50)
    assert core.of("cancel") == [{"tool_call_id": "call_1"}]


def test_a_core_that_went_away_refuses_at_once_and_is_found_again(shim: Shim, core: FakeCore) -> None:
    core.stop()
    shim.call("sleep", ms=100)
    assert shim.before()["block"] is True
    assert "not running" in shim.before()["blockReason"]
    assert shim.call("execute", tool="sw_exec", id="call_1", params={}, ctx={}).value["details"]["status"] == "blocked"
    core.start()
    assert shim.ready()
    assert text(shim.execute(call_id="call_2")).startswith("ran")


def test_a_core_that_dies_during_a_call_is_said_to_have_perhaps_run_it(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None
    assert shim.before() is None
    ctx = {"agentId": "main", "sessionKey": SESSION}
    number = shim.begin("execute", tool="sw_exec", id="call_1", params={}, ctx=ctx)
    shim.call("sleep", ms=100)
    core.stop()
    assert "may have run in part" in text(shim.wait(number).value)


def test_a_socket_that_was_removed_refuses(shim: Shim, core: FakeCore) -> None:
    core.path.unlink()
    core.stop()
    shim.call("sleep", ms=100)
    assert shim.before()["block"] is True
    assert not shim.ready()


# ── what may not be sent ─────────────────────────────────────────────────────────────────────────────────────────

DEEP: Any = "x"
for _ in range(80):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    "params",
    [
        {"a": {"$": "nan"}},
        {"a": {"$": "surrogate"}},
        {"a": {"$": "big"}},
        {"a": {"$": "cycle"}},
        {"a": {"$": "fn"}},
        {"a": {"$": "date"}},
        {"a": DEEP},
        {"a": "x" * 1_100_000},
        [1],
        "text",
    ],
)
def test_arguments_without_one_meaning_are_refused_here(shim: Shim, core: FakeCore, params: Any) -> None:
    result = shim.execute(params=params)
    assert "can't be read safely" in text(result)
    assert not core.of("execute")
    assert text(shim.execute(call_id="call_2", params={"a": "é", "b": 1.5, "c": None})).startswith("ran")


def test_too_many_calls_at_once_are_refused_and_the_others_answered(shim: Shim, core: FakeCore) -> None:
    core.answers["execute"] = lambda body: None
    numbers = []
    for n in range(40):
        assert shim.before(call_id=f"call_{n}") is None
        ctx = {"agentId": "main", "sessionKey": SESSION}
        numbers.append(shim.begin("execute", tool="sw_exec", id=f"call_{n}", params={}, ctx=ctx))
    said = [text(shim.wait(number).value) for number in numbers]
    assert sum("too many calls" in words for words in said) == 8
    assert sum("may have run" in words for words in said) == 32


# ── another gateway, a broken installation ───────────────────────────────────────────────────────────────────────


def test_another_version_of_the_gateway_is_refused(node_program: Path, folder: Path, core: FakeCore) -> None:
    shim = Shim(node_program, folder, core.path, version="2026.9.7")
    assert not shim.ready()
    assert core.of("hello")[0]["gateway_version"] == "2026.9.7"
    assert "openclaw doctor" in shim.before()["blockReason"]
    assert not core.of("execute")
    shim.close()


def test_a_core_that_is_not_ready_refuses_until_it_is(shim: Shim, core: FakeCore) -> None:
    good = core.answers["hello"]
    core.answers["hello"] = lambda body: {
        "core_version": "0",
        "profile": "recommended",
        "ready": False,
        "complaint": "x",
    }
    assert not shim.ready()
    assert shim.before()["block"] is True
    core.answers["hello"] = good
    assert shim.ready()
    assert shim.before() is None


@pytest.mark.parametrize("damage", ["missing", "garbage", "foreign name"])
def test_without_its_tools_file_everything_is_refused(
    node_program: Path, folder: Path, core: FakeCore, damage: str
) -> None:
    plugin = install(folder / "plugin0")
    if damage == "missing":
        (plugin / "tools.json").unlink()
    else:
        (plugin / "tools.json").write_text(
            "{" if damage == "garbage" else '[{"name":"exec","description":"","parameters":{}}]'
        )
    shim = Shim(node_program, folder, core.path)
    assert shim.call("load").value["tools"] == []
    if damage != "foreign name":
        assert not shim.ready()
    assert shim.before("exec")["block"] is True
    shim.close()


def test_a_hook_that_the_gateway_does_not_take_refuses_everything(
    node_program: Path, folder: Path, core: FakeCore
) -> None:
    shim = Shim(node_program, folder, core.path, load=False)
    shim.call("refuse", names=["message_sending"])
    shim.call("load")
    assert not shim.ready()
    assert shim.before()["block"] is True
    shim.close()


def test_a_result_is_known_to_be_clean_by_its_hash() -> None:
    assert ran("é")["result"]["clean"]["sha256"] == hashlib.sha256("é".encode()).hexdigest()
