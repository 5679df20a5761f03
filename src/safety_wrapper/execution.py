"""Run an allowed call: in the runner's sandbox, in an adapter, or in the core itself. Cut and counted at the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from safety_wrapper import dispatch
from safety_wrapper.config import RunnerLimits
from safety_wrapper.errors import AdapterError, StageError
from safety_wrapper.ledger import Ledger, Reader, approvals, jobs
from safety_wrapper.model import MAX_RESULT_CHARS, Health, ToolCall, ToolResult
from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.runner.protocol import FileOp, FileOutcome, FileRequest, Limits, RunOutcome, RunRequest

_FILE_TOOLS: Final[dict[str, FileOp]] = {"read": "read", "write": "write", "edit": "edit", "list": "list"}
_ENDED: Final = {
    "timeout": "stopped after {wall_s} s: it took too long",
    "killed": "stopped: it was aborted",
    "output_limit": "stopped: it wrote more output than allowed",
    "start_failed": "it could not be started",
}


class Execution:
    """Knows where each tool runs. Holds the connections to the processes that run them."""

    def __init__(self, runner: RunnerClient, ledger: Ledger, plan: dispatch.Plan, limits: RunnerLimits) -> None:
        self._runner = runner
        self._ledger = ledger
        self._plan = plan
        self._limits = limits

    async def run(self, call: ToolCall, runs: str, job: str) -> ToolResult:
        """Run ``call`` where the registry says. A tool that fails is a result that says so, never an exception;
        cancelling kills what runs."""
        try:
            match runs:
                case "core" if call.tool == "resume":
                    return self._resume(call)
                case "runner" if call.tool in _FILE_TOOLS:
                    return await self._file(call, job)
                case "runner" if call.tool == "exec":
                    return await self._command(call, job)
                case "adapter":
                    return bounded(await dispatch.execute(self._plan, call, ()))
                case _:
                    raise AdapterError("nothing runs this tool")
        except StageError as exc:
            return ToolResult(f"The tool could not run: {exc.message}.", is_error=True)

    async def health(self) -> list[Health]:
        """The runner's own word on itself. Raises RunnerError when it is away."""
        return await self._runner.health()

    async def _command(self, call: ToolCall, job: str) -> ToolResult:
        p = call.params
        wall_s = int(p.get("timeout_s", self._limits.wall_s))
        request = RunRequest(
            job=job,
            argv=("/bin/bash", "-c", p["command"]),
            cwd="/work",
            profile=str(call.binding.sandbox),
            env=(),
            stdin=None,
            limits=_limits(self._limits, wall_s),
        )
        outcome = await self._killable(job, self._runner.run(request))
        return command_result(outcome, wall_s)

    async def _file(self, call: ToolCall, job: str) -> ToolResult:
        p = call.params
        request = FileRequest(
            job=job,
            op=_FILE_TOOLS[call.tool],
            path=p.get("path", "/work"),
            profile=str(call.binding.sandbox),
            content=p.get("content"),
            old=p.get("old"),
            new=p.get("new"),
            all=p.get("all", False),
            offset=p.get("offset"),
            limit=p.get("limit"),
            depth=p.get("depth"),
        )
        return file_result(await self._killable(job, self._runner.file(request)))

    def _resume(self, call: ToolCall) -> ToolResult:
        """The state of a held call or background job of this agent and session, and its result once there is one."""
        wanted = call.params["id"]
        with self._ledger.read() as reader:
            found = _look_up(reader, wanted, str(call.context.agent), str(call.context.session))
        if found is None:
            return ToolResult("There is no such request of this session.", is_error=True)
        state, text = found
        if text is not None:
            return bounded(ToolResult(text, is_error=state not in {"done", "done_ok"}))
        return ToolResult(
            json.dumps({"id": wanted, "state": state, "next": _NEXT.get(state, "Nothing more will come.")})
        )

    async def _killable[T](self, job: str, work: Awaitable[T]) -> T:
        try:
            return await work
        except asyncio.CancelledError:
            # the runner also kills it when this connection goes; asking is faster
            await asyncio.shield(asyncio.wait_for(self._kill(job), 2.0))
            raise

    async def _kill(self, job: str) -> None:
        try:
            await self._runner.kill(job)
        except (StageError, OSError):
            return


_NEXT: Final = {
    "pending": "The owner has not answered yet. Go on with other work.",
    "approved": "The owner said yes; it is about to run. Ask again in a moment.",
    "executing": "It is running. Ask again in a moment.",
    "unknown": "It may have run: the engine was interrupted. Check before you ask for it again.",
    "expired": "Nobody answered in time. You may ask again.",
    "denied": "The owner said no. Do something else.",
    "cancelled": "It was cancelled since the policy changed. You may make the call again.",
}


def command_result(outcome: RunOutcome, wall_s: int) -> ToolResult:
    """What the model reads of a command: output, then how it ended where that matters."""
    parts = [outcome.stdout]
    if outcome.stderr:
        parts.append(f"[stderr]\n{outcome.stderr}")
    if outcome.ended != "exit":
        parts.append(f"[{_ENDED.get(outcome.ended, outcome.ended).format(wall_s=wall_s)}]")
    elif outcome.signal is not None:
        parts.append(f"[ended by signal {outcome.signal}]")
    elif outcome.exit != 0:
        parts.append(f"[exit code {outcome.exit}]")
    text = "\n".join(part.rstrip("\n") for part in parts if part) or "[no output]"
    failed = outcome.ended != "exit" or outcome.exit != 0
    facts = {"exit": outcome.exit, "signal": outcome.signal, "ended": outcome.ended, "wall_ms": outcome.wall_ms}
    shown = len(outcome.stdout.encode()) + len(outcome.stderr.encode())
    left_out = 0 if outcome.lossy else max(0, outcome.stdout_bytes + outcome.stderr_bytes - shown)
    return bounded(ToolResult(text, is_error=failed, truncated_bytes=left_out, facts=facts))


def file_result(outcome: FileOutcome) -> ToolResult:
    """What the model reads of a file operation."""
    if not outcome.ok:
        return ToolResult(outcome.error, is_error=True)
    return bounded(ToolResult(outcome.text, truncated_bytes=outcome.truncated_bytes))


def bounded(result: ToolResult) -> ToolResult:
    """At most MAX_RESULT_CHARS characters: then the gateway passes it byte for byte. The middle is left out."""
    text = result.text
    if len(text) <= MAX_RESULT_CHARS:
        return result
    note = "\n[… {} characters left out …]\n"
    keep = MAX_RESULT_CHARS - len(note) - 10
    head, tail = text[: keep * 3 // 4], text[-(keep // 4) :]
    left_out = text[len(head) : len(text) - len(tail)]
    cut = head + note.format(len(left_out)) + tail
    return replace(result, text=cut, truncated_bytes=result.truncated_bytes + len(left_out.encode()))


def _look_up(reader: Reader, wanted: str, agent: str, session: str) -> tuple[str, str | None] | None:
    find: Callable[..., tuple[str, str | None] | None]
    find = jobs.result_for if wanted.startswith("job_") else approvals.result_for
    return find(reader, wanted, agent=agent, session=session)


def _limits(limits: RunnerLimits, wall_s: int) -> Limits:
    return Limits(
        wall_s=wall_s,
        cpu_s=max(limits.cpu_s, wall_s),
        memory_bytes=limits.memory_bytes,
        total_memory_bytes=limits.total_memory_bytes,
        processes=limits.processes,
        output_bytes=limits.output_bytes,
        file_bytes=limits.file_bytes,
        open_files=limits.open_files,
    )
