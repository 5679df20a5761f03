"""Where a session's text came from. Unknown past = tainted; a child has its parents' past besides its own."""

from __future__ import annotations

from dataclasses import dataclass

from safety_wrapper.ledger import sessions
from safety_wrapper.ledger.transaction import Look, Txn


@dataclass(frozen=True, slots=True)
class Mark:
    """One source that a session has seen. ``ref`` is the record or call where it came in last."""

    source: str
    tainted: bool
    ref: str | None
    at: int


@dataclass(frozen=True, slots=True)
class Marks:
    """A session's past. ``known`` false: nothing is recorded of it or of a parent, hence ``tainted``."""

    known: bool
    tainted: bool
    marks: tuple[Mark, ...]


def mark(txn: Txn, *, session: str, source: str, tainted: bool, ref: str | None = None) -> None:
    """Record that ``session`` has seen ``source``. Taint never goes away: a clean mark stands beside it."""
    txn.db.execute(
        "INSERT INTO provenance(session, source, tainted, ref, at) VALUES (?, ?, ?, ?, ?) "
        "ON CONFLICT(session, source, tainted) DO UPDATE SET ref = excluded.ref, at = excluded.at",
        (session, source, int(tainted), ref, txn.now),
    )


def marks(look: Look, session: str | None) -> Marks:
    """All marks of the session and its ancestors. Raises LedgerCorruptError if a child's row was edited."""
    if session is None:
        return Marks(known=False, tainted=True, marks=())
    found: list[Mark] = []
    known = True
    for one in sessions.lineage(look, session):
        rows = look.db.execute(
            "SELECT source, tainted, ref, at FROM provenance WHERE session = ? ORDER BY source, tainted", (one,)
        ).fetchall()
        known = known and bool(rows)
        found += [Mark(source, bool(tainted), ref, at) for source, tainted, ref, at in rows]
    if sessions.is_orphan(look, session):
        known = False
    return Marks(known, not known or any(each.tainted for each in found), tuple(found))
