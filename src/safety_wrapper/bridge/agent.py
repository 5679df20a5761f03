"""agent.sock: the verbs that the gateway's shim may use. No verb here approves, loosens or reads the ledger."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from safety_wrapper import reasons
from safety_wrapper.bridge import wire
from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.gateway import (
    after_tool_call,
    before_message_write,
    before_prompt_build,
    before_tool_call,
    gateway_start,
    llm_output,
    message_sending,
    subagent_spawning,
    tool_result_persist,
)
from safety_wrapper.errors import WireError
from safety_wrapper.frames import MESSAGES, Connection, Handler, Limits, Peer, Request, Server
from safety_wrapper.held import Answer
from safety_wrapper.model import SW_FLOOD, ToolKind
from safety_wrapper.normalise import Proposal
from safety_wrapper.settle import decision_body

LIMITS: Final = Limits(max_frame_bytes=1024 * 1024)

_OBSERVERS: Final[dict[str, Callable[[Core, dict[str, Any]], Awaitable[None]]]] = {
    "after_tool_call": after_tool_call.observe,
    "before_message_write": before_message_write.observe,
    "before_prompt_build": before_prompt_build.observe,
    "llm_output": llm_output.observe,
    "subagent_spawned": subagent_spawning.observe,
}
#: Observed for nothing yet, but known: anything else is refused.
_KNOWN: Final = frozenset({"gateway_start", "gateway_stop", "session_start", "session_end"})


def server(core: Core, admit: Callable[[Peer], bool]) -> Server:
    """The server of agent.sock; the caller makes it listen."""
    verbs: dict[str, Handler] = {
        "hello": lambda r: _hello(core, r),
        "execute": lambda r: _execute(core, r),
        "decide": lambda r: _decide(core, r),
        "result": lambda r: tool_result_persist.result(core, wire.read(wire.Result, r.body)),
        "persist": lambda r: before_message_write.persist(core, wire.read(wire.Persist, r.body)),
        "send": lambda r: message_sending.send(core, wire.read(wire.Send, r.body)),
        "observe": lambda r: _observe(core, r),
        "cancel": _cancel,
    }
    return Server(verbs, admit=admit, limits=LIMITS, on_fault=core.report_fault)


async def _hello(core: Core, request: Request) -> dict[str, Any]:
    answer = await gateway_start.hello(core, wire.read(wire.Hello, request.body))
    request.connection.state["complaint"] = answer["complaint"]
    request.connection.state.setdefault("running", {})  # the shim says hello again to ask whether we are ready
    return answer


async def _execute(core: Core, request: Request) -> dict[str, Any]:
    body = wire.read(wire.Execute, request.body)
    context = core.context(body.context)
    proposal = Proposal(body.tool_call_id, body.tool, ToolKind.OWN_TOOL, body.params, context)
    if (refusal := await _not_now(core, request, proposal)) is not None:
        return refusal
    running: dict[str, asyncio.Task[Answer]] = request.connection.state["running"]
    if body.tool_call_id in running:
        return _refusal("this call is running already")
    task = asyncio.create_task(core.held.execute(proposal))
    running[body.tool_call_id] = task
    try:
        answer = await task
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        if (current := asyncio.current_task()) is not None and current.cancelling():
            raise
        return _refusal("the call was aborted")
    finally:
        running.pop(body.tool_call_id, None)
    return answer_body(answer)


async def _decide(core: Core, request: Request) -> dict[str, Any]:
    body = wire.read(wire.Decide, request.body)
    context = core.context(body.context)
    proposal = Proposal(body.tool_call_id, body.tool, ToolKind(body.kind), body.params, context)
    if (refusal := await _not_now(core, request, proposal)) is not None:
        return refusal
    return await before_tool_call.decide(core, body)


async def _not_now(core: Core, request: Request, proposal: Proposal) -> dict[str, Any] | None:
    """Refusals that come before a record: a shim that is not the installed one, and a flood."""
    complaint = request.connection.state.get("complaint")
    if complaint is not None:
        return _refusal(str(complaint))
    now_s = time.monotonic()
    taken = core.buckets.take(request.connection.peer.uid, proposal.context.session or "", now_s)
    overflow = core.buckets.overflow(now_s)
    if overflow:
        total = sum(overflow.values())
        await core.engine.ledger.write(
            lambda txn: txn.audit("overflow", body={"calls": total, "sessions": sorted(overflow)[:32]})
        )
    return None if taken else _refusal("too many calls at once. Wait a few seconds", rule=SW_FLOOD)


async def _observe(core: Core, request: Request) -> dict[str, Any]:
    body = wire.read(wire.Observe, request.body)
    observer = _OBSERVERS.get(body.hook)
    if observer is not None:
        # what is seen is written down: dropped above a rate, since nothing is ever allowed by what was seen
        if not core.observing.take(request.connection.peer.uid, body.hook, time.monotonic()):
            return {}
        await observer(core, body.raw)
    elif body.hook not in _KNOWN:
        raise WireError("bad_request", MESSAGES["bad_request"])
    return {}


async def _cancel(request: Request) -> dict[str, Any]:
    body = wire.read(wire.Cancel, request.body)
    running: dict[str, asyncio.Task[Answer]] = request.connection.state["running"]
    task = running.get(body.tool_call_id)
    if task is not None:
        task.cancel()
    return {}


def answer_body(answer: Answer) -> dict[str, Any]:
    """An Answer on the wire. ``clean`` lets the gateway's synchronous hooks pass the text by its hash."""
    body: dict[str, Any] = {"decision": decision_body(answer.decision)}
    if answer.job is not None:
        body["job"] = answer.job
    if answer.result is not None:
        text = answer.result.text
        body["result"] = {
            "content": [{"type": "text", "text": text}],
            "is_error": answer.result.is_error,
            "clean": {"sha256": hashlib.sha256(text.encode()).hexdigest(), "registry": 0},
            "truncated_bytes": answer.result.truncated_bytes,
        }
    return body


def push_wake(connections: set[Connection], session: str, text: str) -> None:
    """Tell the shim that a session has something to read. Carries no authority."""
    for connection in connections:
        connection.push({"event": "wake", "session": session, "text": text})


def _refusal(reason: str, rule: str = "sw.control") -> dict[str, Any]:
    """A block that is not recorded: nothing was judged, nothing runs."""
    return {"decision": {"outcome": "block", "rules": [rule], "reason": reasons.refused(reason)}}
