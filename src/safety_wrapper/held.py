"""Calls that do not end at once: held ones that run after the owner's yes, and those that go on in the background."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from safety_wrapper.engine import Engine
from safety_wrapper.errors import LedgerError, RefusedError, StageError
from safety_wrapper.ledger import Txn, approvals, floor, jobs, owner
from safety_wrapper.model import (
    CallContext,
    Decision,
    Outcome,
    SafetyClass,
    ToolCall,
    ToolKind,
    ToolResult,
)
from safety_wrapper.naming import offered_name
from safety_wrapper.normalise import Proposal, for_running
from safety_wrapper.settle import Judgement, StaleError


@dataclass(frozen=True, slots=True)
class Answer:
    """What the bridge tells the shim: the decision, and the result or the id under which it will be found."""

    decision: Decision
    result: ToolResult | None = None
    job: str | None = None


@dataclass(slots=True)
class Held:
    """Runs what runs later. ``on_finished(request id)`` is called when a held call has ended."""

    engine: Engine
    tenant: str
    execute_s: float
    on_finished: Callable[[str], None] = lambda request: None
    _tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    _writes: set[asyncio.Task[Any]] = field(default_factory=set)

    async def execute(self, proposal: Proposal) -> Answer:
        """Decide, and if allowed run: here for ``execute_s`` seconds, then on in the background under a job id."""
        call, decision = await self.engine.decide(proposal)
        if decision.outcome is not Outcome.ALLOW:
            return Answer(decision)
        run = self._keep(self.engine.run(call, decision))
        at_once = call.params.get("background") is True
        try:
            done, _ = await asyncio.wait({run}, timeout=0 if at_once else self.execute_s)
        except asyncio.CancelledError:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            raise
        if run.cancelled():
            return Answer(decision, ToolResult("Stopped while it ran; it may have run in part.", is_error=True))
        if done:
            return Answer(decision, run.result())
        try:
            return await asyncio.shield(self._keep(self._to_background(call, decision, run)))
        except asyncio.CancelledError:
            run.cancel()  # nobody waits for it: it must not go on unseen
            raise

    async def _to_background(self, call: ToolCall, decision: Decision, run: asyncio.Task[ToolResult]) -> Answer:
        context = call.context
        agent, session = str(context.agent), str(context.session)
        try:
            job = await self.engine.ledger.write(
                lambda txn: jobs.open_job(txn, agent=agent, session=session, call_digest=call.digest)
            )
        except LedgerError:
            run.cancel()
            await asyncio.gather(run, return_exceptions=True)
            return Answer(decision, ToolResult("Stopped: it could not be recorded as a background job.", is_error=True))
        self._keep(self._finish_job(job, run))
        return Answer(decision, job=job)

    async def _finish_job(self, job: str, run: asyncio.Task[ToolResult]) -> None:
        try:
            result = await run
        except asyncio.CancelledError:
            result = ToolResult("Aborted.", is_error=True)
        await self._finish(lambda txn: jobs.finish_job(txn, job, ok=not result.is_error, text=result.text))

    async def decide(
        self, request: str, *, decision: str, by: str, shown_digest: str, comment: str | None
    ) -> tuple[str, bool]:
        """Take the owner's answer. On yes to an own tool's call the policy is asked again, then it runs once.

        Gives (state, changed). Raises RefusedError when the request can't be answered so.
        """
        ledger = self.engine.ledger
        judged = self._judge_again(request) if decision == "approve" else None
        if judged is not None and (why := self._why_not(request, judged)) is not None:
            await ledger.write(lambda txn: approvals.cancel(txn, request, why))
            raise RefusedError(f"not approved: {why}", do="let the agent make the call again")

        def change(txn: Txn) -> tuple[approvals.Decided, approvals.StoredCall | None]:
            if judged is not None and not _still_holds(txn, judged):
                raise StaleError
            decided = approvals.decide(
                txn,
                request,
                decision=decision,
                by=by,
                shown_digest=shown_digest,
                comment=comment or "",
            )
            starts = decided.changed and decided.own_tool and decided.state == "approved"
            return decided, approvals.begin_execution(txn, request) if starts else None

        try:
            decided, stored = await ledger.write(change, finish=decision == "deny")
        except StaleError as exc:
            self.engine.standing.forget_owner()
            raise RefusedError(
                "the owner's statements or the policy changed meanwhile", do="look at the request again"
            ) from exc
        if stored is not None and judged is not None:
            self._keep(self._run_stored(request, judged))
            return "executing", True
        if decided.changed:
            self.on_finished(request)
        return decided.state, decided.changed

    def _judge_again(self, request: str) -> Judgement:
        with self.engine.ledger.read() as reader:
            stored = approvals.params_of(reader, request)
        if stored is None:
            raise RefusedError("there is no such request")
        return self.engine.judge(proposal_of(stored, self.tenant, request))

    def _why_not(self, request: str, judged: Judgement) -> str | None:
        """Why an approved call must not run after all, as the policy stands now."""
        with self.engine.ledger.read() as reader:
            row = approvals.get(reader, request)
        if row is None or row.state != "pending":
            return None  # the state machine answers
        if judged.call.digest != row.call_digest:
            return "the tool's definition changed since the agent asked"
        if judged.outcome is Outcome.BLOCK:
            return "the policy refuses this call now"
        if judged.classification.safety_class > SafetyClass[row.safety_class] or (
            judged.classification.external and not row.external
        ):
            return "the policy rates this call as more dangerous than when the agent asked"
        return None

    async def _run_stored(self, request: str, judged: Judgement) -> None:
        """Run the stored call; its execution record is durable already. Whatever happens, its end is recorded."""
        entry = self.engine.entry(judged.call)
        try:
            if self.engine.standing.stopped:
                raise StageError("the owner has stopped all agents")
            if entry is None:
                raise StageError("the tool is not listed any more")
            result = await self.engine.execution.run(for_running(judged.call), entry.runs, request)
            result = await self.engine.clean(result, "tool_result")
        except StageError as exc:
            result = ToolResult(f"The tool could not run: {exc.message}.", is_error=True)
        except asyncio.CancelledError:
            result = ToolResult("Stopped while it ran; it may have run in part.", is_error=True)
        except Exception:  # noqa: BLE001 - whatever it was, its end must be recorded
            result = ToolResult("The tool failed by a fault of the engine; it may have run.", is_error=True)
        facts = {key: value for key, value in result.facts.items() if isinstance(value, int | str | None)}
        await self._finish(
            lambda txn: approvals.finish_execution(txn, request, ok=not result.is_error, text=result.text, facts=facts)
        )
        self.on_finished(request)

    def cancel_all(self) -> None:
        """The stop button: whatever runs now is killed."""
        for task in list(self._tasks):
            task.cancel()

    async def drain(self) -> None:
        """Wait until everything that was started has been recorded."""
        while self._tasks or self._writes:  # what ends may start the recording of its end
            await asyncio.gather(*self._tasks, *self._writes, return_exceptions=True)
            await asyncio.sleep(0)

    async def _finish(self, change: Callable[[Txn], None]) -> None:
        """Record an end, also on a full disk, and also when this task is cancelled meanwhile."""
        task = asyncio.create_task(self.engine.ledger.write(change, finish=True))
        self._writes.add(task)
        task.add_done_callback(self._writes.discard)
        await asyncio.shield(task)

    def _keep[T](self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Start it at once, so that cancelling always meets a task that records its end."""
        task = asyncio.Task(work, loop=asyncio.get_running_loop(), eager_start=True)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _still_holds(txn: Txn, judged: Judgement) -> bool:
    """Whether owner and bundle are those that a call was judged by."""
    known = floor.get(txn)
    return judged.epoch == owner.view(txn).epoch and (known is None or known.sha256 == judged.bundle_sha256)


def proposal_of(stored: bytes, tenant: str, request: str) -> Proposal:
    """The proposal that a stored call was, so that it is judged by the same path again."""
    data = json.loads(stored)
    kind = ToolKind(data["kind"])
    own = kind is ToolKind.OWN_TOOL
    tool = offered_name(data["tool"]) if own else data["tool"]
    return Proposal(request, tool, kind, data["params"], CallContext(tenant, **data["context"]))
