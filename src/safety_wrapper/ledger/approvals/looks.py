"""Looking at approval requests. Time counts here too: what is over shows as expired before a sweep writes it down."""

from __future__ import annotations

from safety_wrapper.errors import LedgerCorruptError
from safety_wrapper.ledger.approvals.rows import EFFECTIVE, SELECT, RequestRow, Stored, WakeRow, read_row
from safety_wrapper.ledger.seals import unseal
from safety_wrapper.ledger.transaction import Look


def get(look: Look, request: str) -> RequestRow | None:
    """One request, or None. Raises LedgerCorruptError if it was edited."""
    found = load(look, request)
    return None if found is None else found.row


def list_requests(
    look: Look, *, state: str | None = None, after: str | None = None, limit: int = 100
) -> list[RequestRow]:
    """Newest first; ``after`` = id of the last one seen, older ones follow. ``state`` is the one that counts now.

    Raises LedgerCorruptError if one of them was edited.
    """
    rows = look.db.execute(
        SELECT  # noqa: S608 - fixed text
        + f"WHERE (:state IS NULL OR {EFFECTIVE} = :state) "
        + "AND (:after IS NULL OR r.n < (SELECT n FROM approval_request WHERE id = :after)) "
        + "ORDER BY r.n DESC LIMIT :limit",
        {"state": state, "after": after, "limit": limit, "now": look.now},
    ).fetchall()
    return [read_row(look, row).row for row in rows]


def count_pending(look: Look) -> int:
    """How many requests wait for a person now."""
    row = look.db.execute(
        "SELECT count(*) FROM approval_request WHERE state = 'pending' AND expires_at > ?", (look.now,)
    ).fetchone()
    return int(row[0])


def params_of(look: Look, request: str) -> bytes | None:
    """The stored call's bytes, for the person who decides. Raises LedgerCorruptError if they were edited."""
    found = load(look, request)
    return None if found is None else stored_call(look, found)


def result_for(look: Look, request: str, *, agent: str | None, session: str | None) -> tuple[str, str | None] | None:
    """(state, text or None), or None where there is no such request of this agent and session."""
    found = load(look, request)
    if found is None or found.row.agent != agent or found.row.session != session:
        return None
    row = look.db.execute("SELECT result FROM approval_request WHERE id = ?", (request,)).fetchone()
    if row[0] is None:
        return found.row.state, None
    return found.row.state, unseal(look.keys, row[0], f"result/{request}").decode("utf-8", "surrogatepass")


def to_wake(look: Look, *, limit: int = 50) -> list[WakeRow]:
    """Sessions to be told: a live grant waits, a stored call has ended, or the answer was no. Oldest first."""
    rows = look.db.execute(
        "SELECT r.id, r.agent, r.session, r.state, r.tool, r.own_tool FROM approval_request r "
        "LEFT JOIN approval_grant g ON g.request = r.id WHERE r.wake = 1 AND r.session <> '' "
        "AND (r.state <> 'approved' OR (g.state = 'live' AND g.expires_at > ?)) ORDER BY r.n LIMIT ?",
        (look.now, limit),
    )
    return [
        WakeRow(id_, agent or None, session, state, tool, bool(own)) for id_, agent, session, state, tool, own in rows
    ]


def load(look: Look, request: str) -> Stored | None:
    """One row with its opening MAC checked."""
    row = look.db.execute(SELECT + "WHERE r.id = ?", (request,)).fetchone()
    return None if row is None else read_row(look, row)


def stored_call(look: Look, found: Stored) -> bytes:
    """The sealed call in the clear. Raises LedgerCorruptError."""
    call = unseal(look.keys, found.sealed_call, f"call/{found.row.id}")
    if not call:
        raise LedgerCorruptError("a request without a call")
    return call
