"""Approval requests: each step of docs/reference/approvals.md §2 with its record in the same transaction."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping
from typing import Any

from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import LedgerCorruptError, RefusedError
from safety_wrapper.ledger import outbox
from safety_wrapper.ledger.approvals import grants
from safety_wrapper.ledger.approvals.looks import load, stored_call
from safety_wrapper.ledger.approvals.rows import (
    COOLDOWN_S,
    GRANT_S,
    HUB,
    LOCAL_ROOT,
    REQUEST_S,
    Decided,
    NewRequest,
    Opened,
    Stored,
    StoredCall,
    assurance_of,
    decided_mac,
    opened_mac,
    shape_of,
)
from safety_wrapper.ledger.ids import new_id
from safety_wrapper.ledger.seals import check_mac, seal
from safety_wrapper.ledger.transaction import Txn

_MAX_COMMENT = 500
_INSERT = (
    "INSERT INTO approval_request(id, agent, session, call_digest, stored_call, tool, class, external, own_tool, "
    "rules, title, lines, reason, bundle_sha256, repeats, created_at, expires_at, opened_mac, shape, state) "
    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'pending')"
)


def open_request(txn: Txn, new: NewRequest) -> Opened:
    """Store a held call, or count it on the request that waits for the same call already."""
    sweep(txn)
    agent, session = new.agent or "", new.session or ""
    twin = txn.db.execute(
        "SELECT id, expires_at FROM approval_request "
        "WHERE call_digest = ? AND agent = ? AND session = ? AND state = 'pending'",
        (new.call_digest, agent, session),
    ).fetchone()
    if twin is not None:
        txn.db.execute("UPDATE approval_request SET count = count + 1 WHERE id = ?", (twin[0],))
        return Opened(twin[0], twin[1] - txn.now, repeated=True, state="pending")
    denied = _newest_no(txn, call_digest=new.call_digest)
    if denied is not None:
        return Opened(denied[0], denied[1] + COOLDOWN_S - txn.now, repeated=True, state="cooldown")
    waiting = txn.db.execute("SELECT count(*) FROM approval_request WHERE agent = ? AND state = 'pending'", (agent,))
    if waiting.fetchone()[0] >= new.max_pending:
        return Opened(None, 0, repeated=False, state="flood")
    return _insert(txn, new, agent, session)


def decide(txn: Txn, request: str, *, decision: str, by: str, shown_digest: str, comment: str = "") -> Decided:
    """A person's answer. The first one counts; a "no" still counts until the run begins.

    ``by``: ``local_root``, ``passkey:<id>``, or ``hub`` (which may only deny). Raises RefusedError for an unknown
    request, another digest than the one that waits, somebody who may not decide; LedgerCorruptError.
    """
    assurance = assurance_of(by)
    if decision not in ("approve", "deny") or len(comment) > _MAX_COMMENT:
        raise RefusedError("a decision is approve or deny, with a short comment")
    if not assurance or (decision == "approve" and assurance <= HUB):
        raise RefusedError("not allowed to decide this")
    sweep(txn)
    found = load(txn, request)
    if found is None:
        raise RefusedError("no such request")
    row = found.row
    if shown_digest != row.call_digest:
        raise RefusedError("another call was shown than the one that waits")
    if row.state == "pending":
        return _approve(txn, found, by, assurance, comment) if decision == "approve" else _deny(txn, found, by, comment)
    if row.state == "approved" and decision == "deny" and _revoke(txn, found, by, comment):
        return Decided("revoked", changed=True, own_tool=row.own_tool)
    event = "late_decision" if row.state == "expired" else "decision_rejected"
    _record(txn, found, event, {"decision": decision, "by": by, "state": row.state})
    return Decided(row.state, changed=False, own_tool=row.own_tool)


def begin_execution(txn: Txn, request: str, *, need: int = 0) -> StoredCall:
    """approved → executing for an own tool's stored call, with its ``execution`` record; then the caller runs it.

    ``need``: the assurance that the policy of this moment asks for. The caller has judged the call again before.
    Raises RefusedError unless it is approved, in time and not begun; LedgerCorruptError if anything was edited.
    """
    found = load(txn, request)
    if found is None or not found.row.own_tool or found.row.state != "approved":
        raise RefusedError("this request is not one that may run now")
    row = found.row
    wanted = decided_mac(txn, found.opened_mac, row.decided_by, row.decided_at, row.run_before)
    check_mac(found.decided_mac, wanted, "approval")
    if assurance_of(row.decided_by or "") < need:
        raise RefusedError("the policy now asks for a stronger approval")
    call = stored_call(txn, found)
    swapped = txn.db.execute(
        "UPDATE approval_request SET state = 'executing' WHERE id = ? AND state = 'approved' AND own_tool = 1",
        (row.id,),
    )
    if swapped.rowcount != 1:
        raise RefusedError("this request is not one that may run now")
    try:
        body = {"call_digest": row.call_digest, "tool": row.tool, "by": row.decided_by}
        grants.record_execution(txn, row.id, row.agent, row.session, body)
    except sqlite3.IntegrityError as exc:
        raise LedgerCorruptError("this call has run already, and its row was set back") from exc
    return StoredCall(row.id, row.agent, row.session, row.tool, row.call_digest, call, row.external, row.safety_class)


def finish_execution(txn: Txn, request: str, *, ok: bool, text: str, facts: Mapping[str, Any]) -> None:
    """executing → done | error. The text is sealed for `resume`; the record holds its length and digest only.

    ``facts``: numbers and names, no text of the call. Raises RefusedError unless it is executing.
    """
    data = text.encode("utf-8", "surrogatepass")
    swapped = txn.db.execute(
        "UPDATE approval_request SET state = ?, finished_at = ?, result = ?, wake = 1 "
        "WHERE id = ? AND state = 'executing'",
        ("done" if ok else "error", txn.now, seal(txn.keys, data, f"result/{request}"), request),
    )
    if swapped.rowcount != 1:
        raise RefusedError("this request is not running")
    agent, session = txn.db.execute("SELECT agent, session FROM approval_request WHERE id = ?", (request,)).fetchone()
    digest = hashlib.sha256(data).hexdigest()
    body = {"ok": ok, "bytes": len(data), "sha256": digest, "facts": dict(facts)}
    txn.audit("result", agent=agent or None, session=session or None, ref=request, body=body)


def cancel(txn: Txn, request: str, reason: str) -> bool:
    """pending, or approved and not begun → cancelled; a built-in's live grant is revoked. False if it is too late."""
    found = load(txn, request)
    if found is None:
        raise RefusedError("no such request")
    if found.row.state == "pending" or (found.row.state == "approved" and found.row.own_tool):
        return _close(txn, found, "cancelled", why=reason)
    if found.row.state == "approved" and grants.revoke_for(txn, request, reason):
        return _close(txn, found, "cancelled", why=reason)
    return False


def sweep(txn: Txn) -> None:
    """Write down what time has ended. Every change of this module does it first; call it now and then besides."""
    due = txn.db.execute(
        "SELECT id FROM approval_request WHERE state = 'pending' AND expires_at <= ?1 "
        "UNION ALL SELECT id FROM approval_request WHERE state = 'approved' AND own_tool = 1 AND run_before <= ?1",
        (txn.now,),
    ).fetchall()
    for (request,) in due:
        _close_by_id(txn, request, "expired", why="time")
    grants.sweep_grants(txn)


def expire_open(txn: Txn) -> int:
    """The clock can't be trusted: everything open expires; how many requests and grants."""
    rows = txn.db.execute(
        "SELECT id FROM approval_request WHERE state = 'pending' OR (state = 'approved' AND own_tool = 1) ORDER BY n"
    ).fetchall()
    closed = sum(_close_by_id(txn, request, "expired", why="clock") for (request,) in rows)
    return closed + grants.move_all(txn, "live", "expired", "clock")


def interrupt_all(txn: Txn) -> int:
    """After a start: executing → unknown, never live again; how many."""
    rows = txn.db.execute("SELECT id FROM approval_request WHERE state = 'executing' ORDER BY n").fetchall()
    closed = sum(_close_by_id(txn, request, "unknown", why="restart") for (request,) in rows)
    return closed + grants.move_all(txn, "executing", "unknown", "restart")


def mark_woken(txn: Txn, request: str) -> None:
    """The session was told."""
    txn.db.execute("UPDATE approval_request SET wake = 2 WHERE id = ? AND wake = 1", (request,))


# ── steps ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _insert(txn: Txn, new: NewRequest, agent: str, session: str) -> Opened:
    request = new_id("apr")
    shape = shape_of(new)
    # A person who was asked for one like it, or has just refused one, is told without a new push.
    quiet = _newest_no(txn, shape=shape) is not None or _is_waiting(txn, agent, shape)
    fixed = (
        request,
        agent,
        session,
        new.call_digest,
        seal(txn.keys, new.stored_call, f"call/{request}"),
        new.tool,
        new.safety_class,
        int(new.external),
        int(new.own_tool),
        canonical_json(list(new.rules)).decode("utf-8"),
        new.title,
        canonical_json([list(line) for line in new.lines]).decode("utf-8"),
        new.reason,
        new.bundle_sha256,
        _may_have_run(txn, new.call_digest),
        txn.now,
        txn.now + REQUEST_S,
    )
    txn.db.execute(_INSERT, (*fixed, opened_mac(txn, fixed), shape))
    body = {"request": request, "tool": new.tool, "class": new.safety_class, "external": new.external, "quiet": quiet}
    outbox.put(txn, "approval.create", request, body, priority=1)
    record = {
        "event": "pending",
        "call_digest": new.call_digest,
        "tool": new.tool,
        "class": new.safety_class,
        "external": new.external,
        "rules": list(new.rules),
        "own_tool": new.own_tool,
    }
    txn.audit("approval", agent=new.agent, session=new.session, ref=request, body=record)
    return Opened(request, REQUEST_S, repeated=False, state="pending")


def _approve(txn: Txn, found: Stored, by: str, assurance: int, comment: str) -> Decided:
    row = found.row
    run_before = min(txn.now + GRANT_S, row.expires_at)
    mac = decided_mac(txn, found.opened_mac, by, txn.now, run_before)
    # A built-in's session is woken to try again; an own tool's when there is a result.
    swapped = txn.db.execute(
        "UPDATE approval_request SET state = 'approved', decided_by = ?, decided_at = ?, comment = ?, run_before = ?, "
        "decided_mac = ?, wake = ? WHERE id = ? AND state = 'pending'",
        (by, txn.now, comment, run_before, mac, int(not row.own_tool), row.id),
    )
    if swapped.rowcount != 1:
        raise LedgerCorruptError("the request changed inside its own transaction")
    _record(txn, found, "approved", {"by": by, "assurance": assurance, "run_before": run_before})
    outbox.put(txn, "approval.closed", row.id, {"request": row.id, "state": "approved"})
    if not row.own_tool:
        grants.mint(txn, row, by=by, assurance=assurance)
    return Decided("approved", changed=True, own_tool=row.own_tool)


def _deny(txn: Txn, found: Stored, by: str, comment: str) -> Decided:
    _say_no(txn, found.row.id, by, comment)
    _close(txn, found, "denied", why=None, by=by)
    return Decided("denied", changed=True, own_tool=found.row.own_tool)


def _revoke(txn: Txn, found: Stored, by: str, comment: str) -> bool:
    """A "no" after the "yes": it counts as long as nothing has begun."""
    row = found.row
    if not row.own_tool and not grants.revoke_for(txn, row.id, "denied"):
        return False
    _say_no(txn, row.id, by, comment)
    return _close(txn, found, "revoked", why="denied", by=by)


def _say_no(txn: Txn, request: str, by: str, comment: str) -> None:
    txn.db.execute(
        "UPDATE approval_request SET decided_by = ?, decided_at = ?, comment = ?, decided_mac = NULL WHERE id = ?",
        (by, txn.now, comment, request),
    )


def _close_by_id(txn: Txn, request: str, state: str, *, why: str) -> bool:
    found = load(txn, request)
    return found is not None and _close(txn, found, state, why=why)


def _close(txn: Txn, found: Stored, state: str, *, why: str | None, by: str | None = None) -> bool:
    """One step into a final state, by compare-and-swap, with its record and its message."""
    wake = int(state in ("denied", "revoked", "unknown"))
    swapped = txn.db.execute(
        "UPDATE approval_request SET state = ?, closed_why = ?, finished_at = ?, wake = ? WHERE id = ? AND state = ?",
        (state, why, txn.now, wake, found.row.id, found.raw_state),
    )
    if swapped.rowcount != 1:
        return False
    extra: dict[str, Any] = {} if why is None else {"why": why}
    if by is not None:
        extra["by"] = by
    _record(txn, found, state, extra)
    outbox.put(txn, "approval.closed", found.row.id, {"request": found.row.id, "state": state})
    return True


def _record(txn: Txn, found: Stored, event: str, extra: Mapping[str, Any]) -> None:
    row = found.row
    body = {"event": event, "call_digest": row.call_digest, **extra}
    txn.audit("approval", agent=row.agent, session=row.session, ref=row.id, body=body)


def _newest_no(txn: Txn, *, call_digest: str | None = None, shape: str | None = None) -> tuple[str, int] | None:
    """(request, when) of the newest refusal of that call, or of one of that shape, which is still warm."""
    row = txn.db.execute(
        "SELECT id, decided_at FROM approval_request WHERE (state = 'denied' OR state = 'revoked') AND decided_at > ? "
        "AND (call_digest = ? OR shape = ?) ORDER BY decided_at DESC LIMIT 1",
        (txn.now - COOLDOWN_S, call_digest, shape),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def _is_waiting(txn: Txn, agent: str, shape: str) -> bool:
    row = txn.db.execute(
        "SELECT 1 FROM approval_request WHERE state = 'pending' AND agent = ? AND shape = ? LIMIT 1", (agent, shape)
    )
    return row.fetchone() is not None


def _may_have_run(txn: Txn, call_digest: str) -> str | None:
    """An earlier request for the same call whose run has an unknown end."""
    row = txn.db.execute(
        "SELECT id FROM approval_request WHERE call_digest = ?1 AND state = 'unknown' "
        "UNION ALL SELECT request FROM approval_grant WHERE call_digest = ?1 AND state = 'unknown' LIMIT 1",
        (call_digest,),
    ).fetchone()
    return None if row is None else str(row[0])


__all__ = [
    "LOCAL_ROOT",
    "begin_execution",
    "cancel",
    "decide",
    "expire_open",
    "finish_execution",
    "interrupt_all",
    "mark_woken",
    "open_request",
    "sweep",
]
