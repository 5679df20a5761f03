"""The transaction that makes a judgement count: spend what must be spent, store what must be asked, record it all.

Everything here runs inside one ledger change: either the whole of it is durable before anything runs, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final

from safety_wrapper import reasons
from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger import Txn, approvals, floor, owner, sessions
from safety_wrapper.model import (
    SW_CONTROL,
    SW_FLOOD,
    AutonomyLevel,
    Classification,
    Decision,
    DecisionId,
    GateState,
    Outcome,
    RequestId,
    ToolCall,
    ToolKind,
)

SPAWN_LIMIT: Final = "sw.spawn"
#: An effect's value in a record: what the owner must see whole stands in the request.
MAX_VALUE: Final = 500


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the stages before the ledger found. ``epoch`` names the owner's statements it was judged by."""

    call: ToolCall
    classification: Classification
    outcome: Outcome
    level: AutonomyLevel
    gate: GateState
    reason: str
    bundle_sha256: str
    plan_sha256: str
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Limits:
    """What the configuration bounds in a settlement."""

    max_depth: int
    child_calls: int
    max_pending: int


class StaleError(Exception):
    """The owner said something else since the judgement: judge again."""


@dataclass(frozen=True, slots=True)
class Settled:
    """A recorded decision. ``new_request``: the owner has not been told of its request yet."""

    decision: Decision
    new_request: bool


def settle(txn: Txn, judged: Judgement, decision_id: DecisionId, limits: Limits) -> Settled:
    """Turn a judgement into a recorded Decision. Raises StaleError; any other exception leaves nothing behind."""
    if judged.epoch is not None and judged.epoch != owner.view(txn).epoch:
        raise StaleError
    decision = _draft(judged, decision_id, txn.now)
    if judged.epoch is not None and (known := floor.get(txn)) is not None and known.sha256 != judged.bundle_sha256:
        raise StaleError
    new_request = False
    if decision.outcome is not Outcome.BLOCK:
        decision = _spend(txn, judged, decision)
    if decision.outcome is Outcome.REQUIRE_APPROVAL:
        decision, new_request = _ask(txn, judged, decision, limits)
    if decision.outcome is Outcome.ALLOW and judged.call.kind is ToolKind.SPAWN:
        decision = _spawn(txn, judged, decision, limits)
    call = judged.call
    txn.audit(
        "decision", agent=call.context.agent, session=call.context.session, ref=decision.id,
        body={**decision_body(decision), "tool": call.tool, "kind": call.kind.value, "run": call.context.run},
    )  # fmt: skip
    return Settled(decision, new_request)


def _draft(judged: Judgement, decision_id: DecisionId, now: int) -> Decision:
    c = judged.classification
    return Decision(
        id=decision_id,
        call=judged.call.id,
        call_digest=judged.call.digest,
        outcome=judged.outcome,
        safety_class=c.safety_class,
        external=c.external,
        effects=c.effects,
        rules=c.rules,
        opaque=c.opaque,
        level=judged.level,
        gate=judged.gate,
        reason=judged.reason,
        bundle_sha256=judged.bundle_sha256,
        plan_sha256=judged.plan_sha256,
        at=now,
    )


def unrecorded(judged: Judgement, rule: str, reason: str) -> Decision:
    """The answer when nothing could be recorded: nothing runs."""
    return _refuse(_draft(judged, DecisionId("dec_unrecorded"), 0), rule, reason)


def _ask(txn: Txn, judged: Judgement, decision: Decision, limits: Limits) -> tuple[Decision, bool]:
    """A built-in may hold a grant for exactly this call; otherwise the owner is asked."""
    call, c = judged.call, judged.classification
    own = call.kind is ToolKind.OWN_TOOL
    if not own:
        grant = approvals.spend_grant(
            txn,
            call_digest=call.digest,
            agent=str(call.context.agent),
            session=str(call.context.session),
            tool_call_id=call_key(call),
        )
        if grant is not None:
            return replace(decision, outcome=Outcome.ALLOW, reason=reasons.allowed(c)), False
    opened = approvals.open_request(
        txn,
        approvals.NewRequest(
            agent=str(call.context.agent),
            session=str(call.context.session),
            call_digest=call.digest,
            stored_call=store(call),
            tool=call.tool,
            safety_class=c.safety_class.name,
            external=c.external,
            rules=c.rules,
            title=reasons.title(call, c),
            lines=reasons.lines(c.effects),
            reason=reasons.one_line(c.reason or reasons.IN_WORDS[c.safety_class], reasons.MAX_REASON),
            own_tool=own,
            bundle_sha256=judged.bundle_sha256,
            max_pending=limits.max_pending,
        ),
    )
    if opened.state == "cooldown":
        why = "the owner said no to this call a short while ago. Do something else."
        return _refuse(decision, SW_CONTROL, why), False
    if opened.state == "flood" or opened.id is None:
        return _refuse(decision, SW_FLOOD, "too many requests of this agent wait for the owner already."), False
    asked = replace(
        decision,
        request=RequestId(opened.id),
        expires_in_s=opened.expires_in_s,
        reason=reasons.held(c, opened.id) if own else _held_builtin(c, opened.id),
    )
    return asked, not opened.repeated


def _held_builtin(classification: Classification, request: str) -> str:
    text = reasons.held(classification, request)
    return text.replace("then call sw_resume with that id. Do not repeat the call.", "then make the same call again.")


def _spend(txn: Txn, judged: Judgement, decision: Decision) -> Decision:
    """Count the call against its session's budget; a held call is a call too."""
    try:
        sessions.spend_call(txn, str(judged.call.context.session))
    except RefusedError as exc:
        return _refuse(decision, SPAWN_LIMIT, exc.message)
    return decision


def _spawn(txn: Txn, judged: Judgement, decision: Decision, limits: Limits) -> Decision:
    """Reserve one child with its depth and budget."""
    parent = str(judged.call.context.session)
    try:
        sessions.allow_spawn(txn, parent=parent, max_depth=limits.max_depth, child_calls=limits.child_calls)
    except RefusedError as exc:
        return _refuse(decision, SPAWN_LIMIT, exc.message)
    return decision


def _refuse(decision: Decision, rule: str, reason: str) -> Decision:
    return replace(
        decision,
        outcome=Outcome.BLOCK,
        rules=tuple(sorted({*decision.rules, rule})),
        reason=reasons.refused(reason),
        request=None,
        expires_in_s=None,
    )


def call_key(call: ToolCall) -> str:
    """What ties a built-in's grant to the after_tool_call that ends it: the gateway's call id within its session."""
    return f"{call.context.session}\x1f{call.context.run}\x1f{call.id}"


def store(call: ToolCall) -> bytes:
    """A call in the form in which it waits for the owner: everything that judging it again needs."""
    context = call.context
    return canonical_json(
        {
            "tool": call.tool,
            "kind": call.kind.value,
            "params": dict(call.params),
            "context": {
                "agent": context.agent, "session": context.session, "run": context.run,
                "depth": context.depth, "channel": context.channel, "trigger": context.trigger,
            },
        }
    )  # fmt: skip


def decision_body(decision: Decision) -> dict[str, Any]:
    """A Decision as JSON: the shape of docs/reference/schemas.md §2."""
    body: dict[str, Any] = {
        "id": decision.id,
        "call": decision.call,
        "call_digest": decision.call_digest,
        "outcome": decision.outcome.wire,
        "class": decision.safety_class.name,
        "external": decision.external,
        "effects": [
            {"kind": e.kind, "resource": e.resource, "value": reasons.visible(e.value[:MAX_VALUE])}
            for e in decision.effects[:64]
        ],
        "rules": list(decision.rules),
        "opaque": decision.opaque,
        "level": int(decision.level),
        "gate": decision.gate.value,
        "reason": decision.reason,
        "bundle_sha256": decision.bundle_sha256,
        "plan_sha256": decision.plan_sha256,
        "at": decision.at,
    }
    if decision.request is not None:
        body["request"] = decision.request
        body["expires_in_s"] = decision.expires_in_s
    return body
