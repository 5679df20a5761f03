"""Grants: a yes for one exact call of a built-in, spent once by compare-and-swap, in the transaction of its record."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.ledger.approvals.rows import GRANT_S, SILENT_S, RequestRow
from safety_wrapper.ledger.ids import new_id
from safety_wrapper.ledger.seals import check_mac, row_mac
from safety_wrapper.ledger.transaction import Look, Txn

_BOUND: Final = (
    "id, request, agent, session, tool, call_digest, bundle_sha256, assurance, approver, minted_at, expires_at"
)


def mint(txn: Txn, request: RequestRow, *, by: str, assurance: int) -> str:
    """A live grant for an approved built-in; its id. Ends 4 h after the yes, or with the request if that is earlier."""
    grant = new_id("grt")
    bound = (
        grant,
        request.id,
        request.agent or "",
        request.session or "",
        request.tool,
        request.call_digest,
        request.bundle_sha256,
        assurance,
        by,
        txn.now,
        min(txn.now + GRANT_S, request.expires_at),
    )
    txn.db.execute(
        f"INSERT INTO approval_grant({_BOUND}, mac, state) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'live')",  # noqa: S608
        (*bound, _mac(txn, bound)),
    )
    _record(txn, bound, "minted")
    return grant


def spend_grant(
    txn: Txn, *, call_digest: str, agent: str | None, session: str | None, tool_call_id: str, need: int = 0
) -> str | None:
    """live → executing for this very call, with its ``execution`` record; the grant's id, or None if there is none.

    ``need``: the assurance that the policy of this moment asks for (rows.LOCAL_ROOT …); a grant below it is revoked.
    The caller has judged the call again before. Raises LedgerCorruptError if the grant was edited.
    """
    if agent is None or session is None:
        return None
    rows = txn.db.execute(
        f"SELECT {_BOUND}, mac FROM approval_grant INDEXED BY grant_past "  # noqa: S608
        "WHERE call_digest = ? AND state = 'live' AND agent = ? AND session = ? AND expires_at > ? ORDER BY n",
        (call_digest, agent, session, txn.now),
    ).fetchall()
    for row in rows:
        check_mac(row[-1], _mac(txn, row[:-1]), "grant")
        if row[7] < need:
            move(txn, row[0], "live", "revoked", why="assurance")
            continue
        swapped = txn.db.execute(
            "UPDATE approval_grant SET state = 'executing', used_at = ?, tool_call_id = ? "
            "WHERE id = ? AND state = 'live'",
            (txn.now, tool_call_id, row[0]),
        )
        if swapped.rowcount != 1:
            continue
        body = {"request": row[1], "call_digest": call_digest, "tool": row[4], "tool_call_id": tool_call_id}
        record_execution(txn, row[0], agent, session, body)
        return str(row[0])
    return None


def finish_grant(
    txn: Txn,
    tool_call_id: str,
    ok: bool,  # noqa: FBT001 - the seam's signature
    *,
    agent: str | None = None,
    session: str | None = None,
) -> bool:
    """executing → done_ok | done_err. An error does not give the grant back: the effect may have happened.

    Call ids of gateways collide (``call_0``): with agent and session it is exact; where several still fit, none is
    touched, and they end ``unknown``. False if nothing changed.
    """
    rows = txn.db.execute(
        "SELECT id FROM approval_grant WHERE tool_call_id = ? AND state = 'executing' "
        "AND (? IS NULL OR agent = ?) AND (? IS NULL OR session = ?)",
        (tool_call_id, agent, agent, session, session),
    ).fetchall()
    if len(rows) != 1:
        return False
    return move(txn, rows[0][0], "executing", "done_ok" if ok else "done_err")


def revoke_for(txn: Txn, request: str, why: str) -> bool:
    """live → revoked for one request's grant; False if it was spent or over already."""
    row = txn.db.execute("SELECT id FROM approval_grant WHERE request = ? AND state = 'live'", (request,)).fetchone()
    return row is not None and move(txn, row[0], "live", "revoked", why=why)


def sweep_grants(txn: Txn) -> None:
    """Expire what is over; an execution that nobody reported for 15 minutes is ``unknown``."""
    live = txn.db.execute("SELECT id FROM approval_grant WHERE state = 'live' AND expires_at <= ?", (txn.now,))
    for (grant,) in live.fetchall():
        move(txn, grant, "live", "expired", why="time")
    silent = txn.db.execute(
        "SELECT id FROM approval_grant WHERE state = 'executing' AND used_at <= ?", (txn.now - SILENT_S,)
    )
    for (grant,) in silent.fetchall():
        move(txn, grant, "executing", "unknown", why="silent")


def move_all(txn: Txn, old: str, new: str, why: str) -> int:
    """Move every grant from one state to another, each with its record; how many."""
    rows = txn.db.execute("SELECT id FROM approval_grant WHERE state = ? ORDER BY n", (old,)).fetchall()
    return sum(move(txn, grant, old, new, why=why) for (grant,) in rows)


def move(txn: Txn, grant: str, old: str, new: str, *, why: str | None = None) -> bool:
    """One transition with its record, by compare-and-swap."""
    swapped = txn.db.execute("UPDATE approval_grant SET state = ? WHERE id = ? AND state = ?", (new, grant, old))
    if swapped.rowcount != 1:
        return False
    bound = txn.db.execute(f"SELECT {_BOUND} FROM approval_grant WHERE id = ?", (grant,)).fetchone()  # noqa: S608
    _record(txn, bound, new, why)
    return True


def record_execution(txn: Txn, ref: str, agent: str | None, session: str | None, body: dict[str, Any]) -> None:
    """The record that precedes a run. The table holds one for each ``ref``: a second one is refused by the database."""
    txn.audit("execution", agent=agent, session=session, ref=ref, body=body)


def _record(txn: Txn, bound: tuple[Any, ...], event: str, why: str | None = None) -> None:
    body = {"event": event, "request": bound[1], "call_digest": bound[5]}
    if why is not None:
        body["why"] = why
    txn.audit("grant", agent=bound[2] or None, session=bound[3] or None, ref=bound[0], body=body)


def _mac(look: Look, bound: tuple[Any, ...]) -> bytes:
    return row_mac(look.keys.grant, "sw/grant/v1", look.tenant, *bound)
