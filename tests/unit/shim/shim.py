"""The shim in a bare Node process, driven over pipes: the gateway's part is played by driver.mjs."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safety_wrapper.bridge import openclaw

DRIVER: Final = Path(__file__).parent / "driver.mjs"
SESSION: Final = "agent:main:s1"
TOOLS: Final = [
    {
        "name": "sw_exec",
        "description": "Run a command.",
        "parameters": {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]},
    },
    {"name": "sw_http__request", "description": "Ask a server.", "parameters": {"type": "object", "properties": {}}},
]


@dataclass(frozen=True, slots=True)
class Answered:
    """What a call into the shim gave. ``promised``: it was a promise; ``ms``: how long it took."""

    value: Any
    promised: bool
    ms: float


def install(folder: Path, *, impatient: bool = False) -> Path:
    """A plugin folder as the installer writes it. ``impatient``: hooks wait 0.4 s instead of 5 s, to save time."""
    folder.mkdir(parents=True)
    for name, data in {**openclaw.shim_files(), "tools.json": openclaw.tools_json(TOOLS)}.items():
        (folder / name).write_bytes(data)
    if impatient:
        constants = folder / "constants.js"
        patient = constants.read_text()
        constants.write_text(patient.replace("HOOK_MS = 5_000", "HOOK_MS = 400"))
        assert constants.read_text() != patient
    return folder


class Shim:
    """One Node process with the plugin loaded. Ends with an error when anything in it was unhandled."""

    def __init__(
        self, node: Path, root: Path, socket: Path, *, evaluations: int = 2, version: str = "2026.9.6",
        load: bool = True, execute_ms: int = 2000,
    ) -> None:  # fmt: skip
        first = root / "plugin0"
        if not first.exists():
            install(first)
        folders = [first]
        for number in range(1, evaluations):
            folders.append(root / f"plugin{number}")
            if not folders[-1].exists():
                shutil.copytree(first, folders[-1])
        config = {"socket": str(socket), "executeDeadlineMs": execute_ms}
        settings = json.dumps({"folders": [str(f) for f in folders], "version": version, "config": config})
        self._process = subprocess.Popen(
            [str(node), str(DRIVER), settings], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._next = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self.fatal: dict[str, Any] | None = None
        assert self._process.stdout is not None
        self._process.stdout.readline()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        if load:
            self.call("load")

    def call(self, command: str, **rest: Any) -> Answered:
        """One command; waits for its answer. Raises AssertionError when the shim threw."""
        return self.wait(self.begin(command, **rest))

    def begin(self, command: str, **rest: Any) -> int:
        """Start a command; its number for ``wait``."""
        self._next += 1
        self._answers[self._next] = queue.Queue()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"n": self._next, "command": command, **rest}) + "\n")
        return self._next

    def wait(self, number: int) -> Answered:
        answer = self._answers[number].get(timeout=20)
        del self._answers[number]
        assert {"thrown", "fatal"}.isdisjoint(answer), answer
        return Answered(answer.get("value"), bool(answer.get("promised")), answer["ms"])

    def close(self) -> None:
        """End it; nothing may have been unhandled until now."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()  # the driver's only reason to go on: what the shim opened must not hold it
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._thread.join(5)
        self._process.stdout.close()
        assert self.fatal is None, self.fatal
        assert code == 0, code

    # ── the gateway's calls ──────────────────────────────────────────────────────────────────────────────────

    def hook(self, name: str, event: Any, ctx: Any | None = None) -> Answered:
        return self.call("hook", name=name, event=event, ctx=ctx or {})

    def ready(self) -> bool:
        """Wait until the shim has greeted the core (or says that it can't)."""
        return self.hook("before_agent_run", {}, {"runId": "run_0", "trigger": "user"}).value["outcome"] == "pass"

    def before(self, tool: str = "sw_exec", call_id: str = "call_1", params: Any = None, **changes: Any) -> Any:
        """before_tool_call of a call that belongs to a run."""
        event = {"toolName": tool, "params": {} if params is None else params, "runId": "run_1", "toolCallId": call_id}
        ctx = {"toolName": tool, "agentId": "main", "sessionKey": SESSION, "runId": "run_1", "toolCallId": call_id}
        return self.hook("before_tool_call", {**event, **changes}, {**ctx, **changes}).value

    def execute(self, call_id: str = "call_1", params: Any = None, *, announce: bool = True, **rest: Any) -> Any:
        """before_tool_call, then the tool's execute; the text that the model would read and the details."""
        params = {"command": "ls"} if params is None else params
        if announce:
            assert self.before(call_id=call_id, params=params) is None
        ctx = rest.pop("ctx", {"agentId": "main", "sessionKey": SESSION, "messageChannel": "telegram"})
        return self.call("execute", tool="sw_exec", id=call_id, params=params, ctx=ctx, **rest).value

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            if "fatal" in answer:
                self.fatal = answer
                for waiting in self._answers.values():
                    waiting.put(answer)
            else:
                self._answers[answer["n"]].put(answer)


def text(result: Any) -> str:
    """The text of a tool's result."""
    assert [part["type"] for part in result["content"]] == ["text"]
    return str(result["content"][0]["text"])
