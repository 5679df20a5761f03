"""Children and their budgets: a child never has more than its parent has left; an unknown child has nothing.

A child is recognised by ``:subagent:`` in its key. A root session has no limit of calls here.
"""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.errors import LedgerCorruptError, RefusedError
from safety_wrapper.ledger.seals import check_mac, row_mac
from safety_wrapper.ledger.transaction import Look, Txn

CHILD_MARK: Final = ":subagent:"
#: Deeper than any limit that can be configured: a longer line of parents is a loop.
_MAX_LINE: Final = 64


def is_child(session: str) -> bool:
    """Whether the key names a child, however it is written."""
    return CHILD_MARK in session.casefold()


def allow_spawn(txn: Txn, *, parent: str, max_depth: int, child_calls: int) -> None:
    """Reserve one spawn for ``parent``. Raises RefusedError where depth or budget is used up; 0 means none."""
    if max_depth < 1 or child_calls < 1:
        raise RefusedError("no children are allowed")
    parent_depth, left = 0, child_calls
    if is_child(parent):
        row = _child(txn, parent)
        if row is None:
            raise RefusedError("this session is an unknown child: it has no budget")
        parent_depth = int(row[1])
        left = min([child_calls, *(each[2] for each in _ancestry(txn, parent))])
    if parent_depth + 1 > max_depth:
        raise RefusedError("no deeper children are allowed")
    if left < 1:
        raise RefusedError("the budget of calls is used up")
    # Numbered by hand: the MAC covers the number, so a reservation can't be copied.
    number = int(txn.db.execute("SELECT coalesce(max(n), 0) + 1 FROM spawn_reservation").fetchone()[0])
    values = (number, parent, parent_depth + 1, left, txn.now)
    txn.db.execute(
        "INSERT INTO spawn_reservation(n, parent, depth, calls, made_at, mac) VALUES (?, ?, ?, ?, ?, ?)",
        (*values, _mac(txn, "sw/spawn/v1", *values)),
    )
    txn.audit("spawn", session=parent, body={"event": "reserved", "depth": parent_depth + 1, "calls": left})


def adopt(txn: Txn, *, child: str, parent: str) -> None:
    """Spend one reservation of ``parent`` on the child that appeared. Raises RefusedError without a reservation, for
    a child that is known already, and for a key that names no child."""
    if not is_child(child):
        raise RefusedError("the session's key names no child")
    if _child(txn, child) is not None:
        raise RefusedError("this child is known already")
    row = txn.db.execute(
        "SELECT n, parent, depth, calls, made_at, mac FROM spawn_reservation WHERE parent = ? ORDER BY n LIMIT 1",
        (parent,),
    ).fetchone()
    if row is None:
        raise RefusedError("no spawn was allowed to this parent")
    check_mac(row[5], _mac(txn, "sw/spawn/v1", *row[:5]), "spawn reservation")
    depth, calls = row[2], row[3]
    if is_child(parent):
        # What the parent spent since the reservation is gone for the child too.
        calls = min([calls, *(each[2] for each in _ancestry(txn, parent))])
    txn.db.execute("DELETE FROM spawn_reservation WHERE n = ?", (row[0],))
    _put(txn, child, parent, depth, calls)
    txn.audit("spawn", session=child, ref=parent, body={"event": "adopted", "depth": depth, "calls": calls})


def spend_call(txn: Txn, session: str) -> int | None:
    """Take one call from a child's budget and from each of its ancestors'; what is left, None for a root session.

    Raises RefusedError when any of them is used up, or the child is unknown.
    """
    if not is_child(session):
        return None
    line = _ancestry(txn, session)
    if not line:
        raise RefusedError("this session is an unknown child: it has no budget")
    if min(each[2] for each in line) < 1:
        raise RefusedError("the budget of calls is used up")
    for each in line:
        _put(txn, each[3], each[0], each[1], each[2] - 1)
    return min(int(each[2]) for each in line) - 1


def depth(look: Look, session: str) -> int | None:
    """0 for a root session, a child's depth, None for an unknown child."""
    if not is_child(session):
        return 0
    row = _child(look, session)
    return None if row is None else int(row[1])


def lineage(look: Look, session: str) -> list[str]:
    """The session, its parent, and so on up to the root, as far as they are known."""
    line = [session]
    while is_child(line[-1]) and len(line) < _MAX_LINE:
        row = _child(look, line[-1])
        if row is None:
            break
        line.append(row[0])
    return line


def is_orphan(look: Look, session: str) -> bool:
    """Whether the line of parents does not end at a root session."""
    return is_child(lineage(look, session)[-1])


def _ancestry(look: Look, session: str) -> list[tuple[Any, ...]]:
    """(parent, depth, calls left, session) of a child and all its ancestors that are children; [] if one is unknown."""
    line: list[tuple[Any, ...]] = []
    while is_child(session):
        row = _child(look, session)
        if row is None:
            return []
        if len(line) >= _MAX_LINE:
            raise LedgerCorruptError("child sessions form a loop")
        line.append((*row, session))
        session = row[0]
    return line


def _child(look: Look, session: str) -> tuple[Any, ...] | None:
    row = look.db.execute(
        "SELECT parent, depth, calls_left, mac FROM child_session WHERE session = ?", (session,)
    ).fetchone()
    if row is None:
        return None
    check_mac(row[3], _mac(look, "sw/child/v1", session, *row[:3]), "child session")
    return (row[0], row[1], row[2])


def _put(txn: Txn, child: str, parent: str, child_depth: int, calls: int) -> None:
    txn.db.execute(
        "INSERT OR REPLACE INTO child_session(session, parent, depth, calls_left, mac) VALUES (?, ?, ?, ?, ?)",
        (child, parent, child_depth, calls, _mac(txn, "sw/child/v1", child, parent, child_depth, calls)),
    )


def _mac(look: Look, domain: str, *values: Any) -> bytes:
    return row_mac(look.keys.grant, domain, look.tenant, *values)
