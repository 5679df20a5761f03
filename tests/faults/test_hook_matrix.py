"""The hook × fault matrix, generated from the contracts, against a running core.

Each cell injects one fault into one hook of a plugin that a real core has loaded, and ends as the contract says. The
twin of every cell is the same request while the plugin behaves.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from faults import site
from safety_wrapper import installation, registry
from safety_wrapper.bridge.peer import Peer
from safety_wrapper.cli import base_policy
from safety_wrapper.cli.policy_source import compile_source
from safety_wrapper.hookspecs import CONTRACTS, VAULT_HOOKS, hookimpl
from safety_wrapper.testing.live import SESSION, Live, running, text_of

CANARY = "exception-text-that-must-not-get-out"
RUNTIME_FAULTS = ("raises", "wrong_type", "late")
#: Hooks whose answer is ignored: a wrong type is no fault of theirs.
ANSWER_IGNORED = {
    "after_tool_call",
    "llm_output",
    "before_prompt_build",
    "gateway_start",
    "notify_approval",
    "record_usage",
}
AT_START = {"register_tools"}


@dataclass
class Rig:
    live: Live
    peer: Peer
    control: Path

    def misbehave(self, hook: str | None, fault: str | None) -> None:
        self.control.write_text(json.dumps({"hook": hook, "fault": fault} if hook else {}))

    def alarms(self) -> int:
        return len(self.live.ask("audit.search", where={"kind": "alarm"}, limit=500)["records"])


#: A tool that the fault plugin owns, beside those of the base policy.
FAULT_TOOL = """\
- name: fault.run
  kind: own_tool
  runs: adapter
  offer: true
  summary: Misbehave.
  params: {type: object, additionalProperties: false, properties: {note: {type: string, maxLength: 100}}}
  base: {class: YELLOW, external: true}
"""


@pytest.fixture(scope="module")
def fault_bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    source = tmp_path_factory.mktemp("policy") / "base"
    shutil.copytree(base_policy.source(), source)
    (source / "tools" / "fault.yaml").write_text(FAULT_TOOL)
    return compile_source(source)


@pytest.fixture(scope="module")
def rig(module_room: Path, fault_bundle: bytes) -> Iterator[Rig]:
    root = module_room
    env = site.make(root)
    control = root / "control.json"
    control.write_text("{}")
    plugins = site.allow_list(env, {"fault": {"control": str(control)}})
    changes = {"plugins": plugins, "limits": {"execute_s": 1.0, "calls_per_s": 1000, "burst": 1000}}
    with running(root, fault_bundle, changes=changes, env=env) as live, live.agent() as peer:
        yield Rig(live, peer, control)


# ── what is asked of each hook, and how its contract's words are checked ─────────────────────────────────────────


def green_call(rig: Rig) -> dict[str, Any]:
    return rig.live.execute(rig.peer, "sw_list", {"path": "/work"})


def held_call(rig: Rig) -> dict[str, Any]:
    params = {"command": f"rm -rf /work/{time.monotonic_ns()}"}
    return rig.live.execute(rig.peer, "sw_exec", params, session=f"{SESSION}:{time.monotonic_ns()}")


def adapter_call(rig: Rig) -> dict[str, Any]:
    held = rig.live.execute(rig.peer, "sw_fault__run", {"note": str(time.monotonic_ns())})
    request = held["decision"]["request"]
    shown = rig.live.ask("approvals.get", id=request)["request"]
    rig.live.ask("approvals.decide", id=request, decision="approve", shown_digest=shown["digest"])
    return rig.live.execute(rig.peer, "sw_resume", {"id": _wait_end(rig, request)})


def _wait_end(rig: Rig, request: str) -> str:
    end_s = time.monotonic() + 20
    while rig.live.ask("approvals.get", id=request)["request"]["state"] in {"approved", "executing"}:
        assert time.monotonic() < end_s, "a held call never ended"
        time.sleep(0.05)
    return request


def message(rig: Rig) -> dict[str, Any]:
    return rig.peer.call("send", to="telegram:1", content="good morning", channel="telegram", context={})


def stored_message(rig: Rig) -> dict[str, Any]:
    return rig.peer.call("persist", message={"role": "user", "content": "good morning"}, context={})


def builtin_result(rig: Rig) -> dict[str, Any]:
    content = [{"type": "text", "text": "good morning"}]
    return rig.peer.call("result", tool_call_id="c1", tool="read", content=content, is_error=False, context={})


def usage(rig: Rig) -> dict[str, Any]:
    event = {"runId": "r", "provider": "p", "model": "m", "usage": {"input": 1, "output": 2}}
    return rig.peer.call("observe", hook="llm_output", raw={"event": event, "ctx": {"agentId": "main"}})


def prompt(rig: Rig) -> dict[str, Any]:
    return rig.peer.call("observe", hook="before_prompt_build", raw={"event": {}, "ctx": {"agentId": "main"}})


def hello_again(rig: Rig) -> dict[str, Any]:
    with rig.live.agent() as other:
        return green_call(Rig(rig.live, other, rig.control))


def spawn(rig: Rig) -> dict[str, Any]:
    context = {"agent": "main", "session": SESSION, "run": "run-1"}
    params = {"task": "look around"}
    return rig.peer.call(
        "decide",
        tool_call_id=f"s{time.monotonic_ns()}",
        tool="sessions_spawn",
        kind="spawn",
        params=params,
        context=context,
    )


def health(rig: Rig) -> dict[str, Any]:
    return rig.live.ask("status")


ASK: dict[str, Callable[[Rig], dict[str, Any]]] = {
    "before_tool_call": green_call,
    "classify_tool_call": green_call,
    "after_tool_call": green_call,
    "execute_tool_call": adapter_call,
    "notify_approval": held_call,
    "message_sending": message,
    "before_message_write": stored_message,
    "tool_result_persist": builtin_result,
    "llm_output": usage,
    "record_usage": usage,
    "before_prompt_build": prompt,
    "gateway_start": hello_again,
    "subagent_spawning": spawn,
    "check_health": health,
}


def blocked(rig: Rig, answer: dict[str, Any]) -> None:
    assert answer["decision"]["outcome"] == "block"
    assert set(answer["decision"]["rules"]) & {"sw.fault", "sw.deadline"}
    assert "result" not in answer
    found = rig.live.ask("audit.search", where={"ref": answer["decision"]["id"]}, limit=5)["records"]
    assert [record["kind"] for record in found] == ["decision"], "a refusal without a record, or a run"


def alarmed(rig: Rig, answer: dict[str, Any]) -> None:
    assert answer.get("ok") is True


ENDS: dict[str, Callable[[Rig, dict[str, Any]], None]] = {
    "block": blocked,
    "CRITICAL_RED and block": blocked,
    "nothing runs; the call ends as an error": lambda rig, answer: _assert(answer["result"]["is_error"]),
    "message cancelled": lambda rig, answer: _assert(answer.get("cancel") is True and "content" not in answer),
    "text withheld": lambda rig, answer: _assert(
        answer.get("withheld") is True and not {"message", "content"} & set(answer)
    ),
    "alarm recorded; the result stays as it is": alarmed,
    "alarm recorded": alarmed,
    "budget counts as spent": alarmed,
    "request kept; shown in status": lambda rig, answer: _assert(answer["decision"]["outcome"] == "require_approval"),
    "reported; not ready": lambda rig, answer: _assert(answer["protected"] is False),
}


def _assert(holds: bool) -> None:
    assert holds


def well(hook: str, answer: dict[str, Any]) -> None:
    """What the twin, without the fault, must show."""
    if hook in {"before_tool_call", "classify_tool_call", "after_tool_call", "gateway_start"}:
        assert answer["decision"]["outcome"] == "allow"
        assert answer["result"]["is_error"] is False
    elif hook == "execute_tool_call":
        assert text_of(answer) == "the tool ran"
    elif hook == "notify_approval":
        assert answer["decision"]["outcome"] == "require_approval"
    elif hook == "message_sending":
        assert answer["content"] == "good morning"
    elif hook == "before_message_write":
        assert answer["message"]["content"] == "good morning"
    elif hook == "tool_result_persist":
        assert answer["content"][0]["text"] == "good morning"
    elif hook == "subagent_spawning":
        assert "sw.fault" not in answer["decision"]["rules"]
    elif hook == "check_health":
        assert answer["protected"] is True


RUNTIME_CELLS = [
    (hook, fault)
    for hook in CONTRACTS
    if hook not in VAULT_HOOKS | AT_START
    for fault in RUNTIME_FAULTS
    if not (fault == "wrong_type" and hook in ANSWER_IGNORED)
]


@pytest.mark.parametrize(("hook", "fault"), RUNTIME_CELLS)
def test_fault_in_a_hook_ends_as_its_contract_says(rig: Rig, hook: str, fault: str) -> None:
    rig.misbehave(None, None)
    well(hook, ASK[hook](rig))
    alarms = rig.alarms()
    rig.misbehave(hook, fault)
    try:
        answer = ASK[hook](rig)
    finally:
        rig.misbehave(None, None)
    contract = CONTRACTS[hook]
    if hook == "execute_tool_call" and fault == "late":
        assert text_of(answer) == "the tool ran"  # a slow tool is no fault: it goes on, and is read by its id
    else:
        ENDS[contract.on_error](rig, answer)
    if contract.on_error.startswith(("alarm", "budget")):
        assert rig.alarms() > alarms, "the fault left no alarm"
    assert CANARY not in json.dumps(answer), "the text of an exception got out"
    assert CANARY not in json.dumps(rig.live.ask("audit.tail", after_seq=0, limit=500)), "… into the log"
    well(hook, ASK[hook](rig))


@pytest.mark.parametrize("hook", sorted(set(CONTRACTS) - VAULT_HOOKS - AT_START))
def test_an_empty_answer_is_no_fault_where_the_contract_says_so(rig: Rig, hook: str) -> None:
    rig.misbehave(hook, "empty")
    try:
        answer = ASK[hook](rig)
    finally:
        rig.misbehave(None, None)
    if hook == "execute_tool_call":
        assert answer["result"]["is_error"] is True
    elif hook == "check_health":
        assert answer["protected"] is False
    else:
        well(hook, answer)


def _starts(root: Path, env: dict[str, str], plugins: list[dict[str, Any]], bundle: bytes) -> tuple[int, str]:
    """Start a real core with these plugins: its exit code and what it said. It is stopped when it comes up."""
    made = installation.create(root, bundle, changes={"plugins": plugins})
    process = subprocess.Popen(
        [sys.executable, "-m", "safety_wrapper", "--config", str(made.config_path), "up"],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **env},
    )  # fmt: skip
    end_s = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < end_s:
        if made.config.paths.agent_socket.exists():
            process.terminate()
        time.sleep(0.05)
    said, _ = process.communicate(timeout=20)
    return process.returncode, said


LOAD_CELLS = [(hook, shape) for hook in CONTRACTS for shape in ("async", "wrapper")]


@pytest.mark.parametrize(("hook", "shape"), LOAD_CELLS)
def test_a_hook_of_the_wrong_make_stops_the_start(room: Path, base_bundle: bytes, hook: str, shape: str) -> None:
    env = site.make(room)
    control = room / "control.json"
    control.write_text("{}")
    settings = {"control": str(control), "shape": {"hook": hook, "shape": shape}}
    plugins = site.allow_list(env, {"fault": settings})
    code, said = _starts(room, env, plugins, base_bundle)
    assert code != 0, said
    assert hook in said
    assert "Traceback" not in said


@pytest.mark.parametrize("fault", ["raises", "wrong_type"])
def test_a_fault_while_tools_are_registered_stops_the_start(room: Path, base_bundle: bytes, fault: str) -> None:
    env = site.make(room)
    control = room / "control.json"
    control.write_text(json.dumps({"hook": "register_tools", "fault": fault}))
    plugins = site.allow_list(env, {"fault": {"control": str(control)}})
    code, said = _starts(room, env, plugins, base_bundle)
    assert code != 0, said
    assert "register_tools" in said
    assert CANARY not in said


def test_without_any_plugin_the_core_does_not_start(room: Path, base_bundle: bytes) -> None:
    """Installed plugins that the list leaves out stop the start: an empty list can't be an empty guard."""
    code, said = _starts(room, {}, [], base_bundle)
    assert code != 0, said
    assert "not on the allow list" in said


@pytest.mark.parametrize("hook", sorted(VAULT_HOOKS))
def test_hooks_of_the_vault_are_not_loaded_by_the_core(hook: str) -> None:
    """Secrets are one process's affair: the core's plan holds none of these functions, whatever a plugin offers."""
    assert registry.vet({"tool": _Offers()}).hooks[hook] == ()
    assert registry.vet({"tool": _Offers()}, process="vault").hooks[hook] != ()


class _Offers:
    @hookimpl
    def find_secret_spans(self, segment: bytes) -> list[object]:
        return []

    @hookimpl
    def load_secrets(self) -> list[object]:
        return []

    @hookimpl
    def release_secret(self, slot: str) -> None:
        return None
