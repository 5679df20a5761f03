"""The walk of one tool call, top to bottom: normalise, classify, decide, ledger, run, clean, record.

Every arrow refuses when it fails. Nothing runs before its decision is durable; see ARCHITECTURE.md for the picture.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

from safety_wrapper import dispatch, reasons
from safety_wrapper.decide import decide, effective_class
from safety_wrapper.errors import DeadlineError, LedgerError, StageError
from safety_wrapper.execution import Execution
from safety_wrapper.ids import new_id
from safety_wrapper.ledger import Ledger, Txn, provenance
from safety_wrapper.model import (
    DEADLINES,
    SW_DEADLINE,
    SW_FAULT,
    SW_STOPPED,
    AutonomyLevel,
    CallId,
    Classification,
    Decision,
    DecisionId,
    GateState,
    Objection,
    Outcome,
    SafetyClass,
    SpawnRequest,
    ToolCall,
    ToolKind,
    ToolResult,
)
from safety_wrapper.normalise import NotACallError, Proposal, for_running, normalise, unknown_call
from safety_wrapper.policy import Bundle, ToolEntry
from safety_wrapper.settle import Judgement, Limits, StaleError, settle, unrecorded
from safety_wrapper.standing import NO_BUNDLE, InForce, Refusal, Standing

#: Cleans a text of secrets for a surface; the vault process answers. None = this installation has no vault.
type Redactor = Callable[[str, str], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Engine:
    """All that the walk needs, passed in. One per core process."""

    ledger: Ledger
    plan: dispatch.Plan
    standing: Standing
    execution: Execution
    limits: Limits
    workspaces: dict[str, str]
    redact: Redactor | None = None
    on_request: Callable[[Judgement, Decision], None] = lambda judged, decision: None

    async def decide(self, proposal: Proposal) -> tuple[ToolCall, Decision]:
        """Judge a call and make the answer durable. Never raises: what can't be judged or recorded is blocked."""
        judged = self._judge_or_block(proposal)
        for _ in range(3):
            decision_id = DecisionId(new_id("dec"))
            try:
                async with asyncio.timeout(DEADLINES.hook_answer_s):
                    settled = await self.ledger.write(
                        partial(settle, judged=judged, decision_id=decision_id, limits=self.limits)
                    )
                if settled.new_request:
                    with contextlib.suppress(Exception):  # the request waits, whether or not a screen could be told
                        self.on_request(judged, settled.decision)
                if settled.decision.outcome is Outcome.ALLOW and self.standing.stopped:
                    # pressed while the allow was on its way to the disk
                    await asyncio.shield(self.record(judged.call, settled.decision, ToolResult("Not run: stopped.")))
                    return judged.call, unrecorded(judged, SW_STOPPED, "the owner has stopped all agents")
                return judged.call, settled.decision
            except StaleError:
                self.standing.forget_owner()
                judged = self._judge_or_block(proposal)
            except TimeoutError:
                return judged.call, unrecorded(judged, SW_DEADLINE, "it could not be recorded in time")
            except LedgerError as exc:
                return judged.call, unrecorded(judged, SW_FAULT, f"it could not be recorded: {exc.message}")
        return judged.call, unrecorded(judged, SW_FAULT, "the owner's statements keep changing; try again")

    async def run(self, call: ToolCall, decision: Decision) -> ToolResult:
        """Run an allowed call once, clean what came back, and record it. Never raises, except when cancelled."""
        if decision.outcome is not Outcome.ALLOW:
            raise StageError("only an allowed call runs")
        entry = self.entry(call)
        try:
            if entry is None:
                result = ToolResult("The tool is not listed any more.", is_error=True)
            else:
                result = await self.execution.run(for_running(call), entry.runs, decision.id)
            result = await self.clean(result, "tool_result")
        except asyncio.CancelledError:
            await asyncio.shield(self.record(call, decision, ToolResult("Aborted.", is_error=True)))
            raise
        except Exception:  # noqa: BLE001 - whatever it was, that the call ended must be recorded
            result = ToolResult("The tool failed by a fault of the engine; it may have run.", is_error=True)
        # shielded: a call that is cancelled when it has ended already is recorded all the same
        return await asyncio.shield(self.record(call, decision, result))

    def _judge_or_block(self, proposal: Proposal) -> Judgement:
        """A fault of our own is a recorded block like any other."""
        try:
            return self.judge(proposal)
        except Exception:  # noqa: BLE001 - whatever it was, the call must not run and the refusal must be recorded
            call = unknown_call(replace(proposal, params={}), CallId(proposal.tool_call_id))
            return self.refuse(call, SW_FAULT, "it could not be judged", None)

    def judge(self, proposal: Proposal) -> Judgement:
        """Normalise, classify, decide: everything before the ledger. Pure but for what is in force. Hot path."""
        in_force = self.standing.now_in_force()
        call_id = CallId(proposal.tool_call_id)
        if isinstance(in_force, Refusal):
            return self.refuse(unknown_call(proposal, call_id), in_force.rule, in_force.reason, None)
        try:
            workspace = self.workspaces.get(proposal.context.agent or "")
            call = normalise(proposal, in_force.catalogue, call_id, workspace=workspace)
        except NotACallError as exc:
            return self.refuse(exc.call, exc.rule, exc.reason, in_force)
        return self.weigh(call, in_force)

    def weigh(self, call: ToolCall, in_force: InForce) -> Judgement:
        """Classify and decide a call that is normalised already."""
        try:
            classification = self._classify(call, in_force)
            objections = self._objections(call, classification)
        except DeadlineError:
            return self.refuse(call, SW_DEADLINE, "it could not be judged in time", in_force)
        except StageError:
            return self.refuse(call, SW_FAULT, "it could not be judged", in_force)
        return self._judged(call, classification, objections, in_force)

    def _classify(self, call: ToolCall, in_force: InForce) -> Classification:
        """What the plugins say, never below the floor that the registry sets for the tool."""
        found = dispatch.classify(self.plan, call, in_force.policy)
        entry = entry_of(in_force.policy.bundle, call)
        if entry is None:
            raise StageError("the tool has no registry entry")
        external = found.external or entry.base_external
        floor = max(found.safety_class, entry.base_class)
        final = effective_class(floor, external=external or found.safety_class is SafetyClass.YELLOW_EXTERNAL)
        if final is found.safety_class and external is found.external:
            return found
        return Classification(final, external, found.effects, found.rules, found.reason, found.instead, found.opaque)

    def _objections(self, call: ToolCall, classification: Classification) -> tuple[Objection, ...]:
        objections = dispatch.object_to(self.plan, "before_tool_call", call=call, classification=classification)
        if call.kind is ToolKind.SPAWN:
            spawn = SpawnRequest(call, (call.context.depth or 0) + 1)
            objections += dispatch.object_to(self.plan, "subagent_spawning", spawn=spawn)
        return objections

    def _judged(
        self, call: ToolCall, c: Classification, objections: tuple[Objection, ...], in_force: InForce
    ) -> Judgement:
        level = in_force.owner.level_for(call.context.agent)
        outcome = decide(
            c.safety_class,
            external=c.external,
            level=level,
            gate_passes=False,  # no unlock and no provenance yet: both gate states pass nothing
            objections=[o.outcome for o in objections],
        )
        raised = [o for o in objections if o.outcome is outcome and o.outcome is not Outcome.ALLOW]
        rules = tuple(sorted({*c.rules, *(o.rule for o in raised)}))
        why = raised[0].reason if raised else c.reason
        final = Classification(c.safety_class, c.external, c.effects, rules, why, c.instead, c.opaque)
        reason = reasons.refused(why, c.instead) if outcome is Outcome.BLOCK else reasons.allowed(final)
        gate = in_force.owner.gate_for(call.context.agent)
        return self._judgement(call, final, outcome, reason, (level, gate), in_force)

    def refuse(self, call: ToolCall, rule: str, reason: str, in_force: InForce | None) -> Judgement:
        c = Classification(SafetyClass.CRITICAL_RED, rules=(rule,), reason=reason, opaque=True)
        strictest = (AutonomyLevel.TRAINING_WHEELS, GateState.LOCKED)
        return self._judgement(call, c, Outcome.BLOCK, reasons.refused(reason), strictest, in_force)

    def _judgement(
        self,
        call: ToolCall,
        c: Classification,
        outcome: Outcome,
        reason: str,
        owner_says: tuple[AutonomyLevel, GateState],
        in_force: InForce | None,
    ) -> Judgement:
        sha256 = in_force.policy.bundle.sha256 if in_force else NO_BUNDLE
        epoch = in_force.owner.epoch if in_force else None
        return Judgement(call, c, outcome, *owner_says, reason, sha256, self.plan.digest, epoch)

    async def clean(self, result: ToolResult, surface: str) -> ToolResult:
        """The result with every secret replaced. Where the vault does not answer, the text is withheld."""
        if self.redact is None:
            return result
        try:
            async with asyncio.timeout(DEADLINES.vault_answer_s):
                text = await self.redact(result.text, surface)
        except (StageError, TimeoutError):
            return ToolResult("The result is withheld: it could not be checked for secrets.", is_error=True)
        return ToolResult(text, result.is_error, result.truncated_bytes, result.facts)

    async def record(self, call: ToolCall, decision: Decision, result: ToolResult) -> ToolResult:
        """Record that a call ended, mark its session, tell observers. A result that can't be recorded is withheld."""
        failed = dispatch.observe(self.plan, "after_tool_call", call=call, decision=decision, result=result)
        try:
            await self.ledger.write(lambda txn: _record(txn, call, decision, result, failed), finish=True)
        except LedgerError:
            return ToolResult("The result is withheld: it could not be recorded. It may have run.", is_error=True)
        return result

    def entry(self, call: ToolCall) -> ToolEntry | None:
        """The registry entry of a call, in the bundle in force now."""
        bundle = self.standing.bundle
        return entry_of(bundle, call) if bundle else None


def entry_of(bundle: Bundle, call: ToolCall) -> ToolEntry | None:
    """The registry entry of a call."""
    key = call.tool if call.kind is ToolKind.OWN_TOOL else f"{call.kind.value}:{call.tool}"
    return bundle.tools.get(key)


def _record(txn: Txn, call: ToolCall, decision: Decision, result: ToolResult, failed: tuple[str, ...]) -> None:
    where = {"agent": call.context.agent, "session": call.context.session, "ref": decision.id}
    data = result.text.encode()
    txn.audit(
        "result",
        **where,
        body={
            "call": call.id,
            "tool": call.tool,
            "is_error": result.is_error,
            "bytes": len(data),
            "sha256": hashlib.sha256(data).hexdigest(),
            "truncated_bytes": result.truncated_bytes,
            "facts": {key: value for key, value in result.facts.items() if isinstance(value, int | str | None)},
        },
    )
    if call.context.session:
        provenance.mark(txn, session=call.context.session, source=f"result:{call.tool}", tainted=True, ref=decision.id)
    for plugin in failed:
        txn.audit("alarm", **where, body={"what": "after_tool_call failed", "plugin": plugin})
