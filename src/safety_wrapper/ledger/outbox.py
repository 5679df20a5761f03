"""What others must be told, in the same transaction as the change it tells of: acked or still queued, never lost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from safety_wrapper.canonical import canonical_json
from safety_wrapper.ledger.transaction import Look, Txn


@dataclass(frozen=True, slots=True)
class Message:
    """One message that is not acked yet. ``seq`` is its idempotency key."""

    seq: int
    kind: str
    ref: str
    body: Mapping[str, Any]
    priority: int
    put_at: int


def put(txn: Txn, kind: str, ref: str, body: Mapping[str, Any], priority: int = 0) -> int:
    """Queue a message; its number. Higher ``priority`` goes first. Raises CanonicalError for a body that is no JSON."""
    cursor = txn.db.execute(
        "INSERT INTO outbox(kind, ref, body, priority, put_at) VALUES (?, ?, ?, ?, ?)",
        (kind, ref, canonical_json(dict(body)).decode("utf-8"), priority, txn.now),
    )
    return int(cursor.lastrowid or 0)


def due(look: Look, *, limit: int = 100) -> list[Message]:
    """What waits, most urgent first."""
    rows = look.db.execute(
        "SELECT seq, kind, ref, body, priority, put_at FROM outbox WHERE acked_at IS NULL "
        "ORDER BY priority DESC, seq LIMIT ?",
        (limit,),
    )
    return [Message(seq, kind, ref, orjson.loads(body), priority, at) for seq, kind, ref, body, priority, at in rows]


def ack(txn: Txn, seq: int) -> bool:
    """The receiver has it. False if it was acked before or never was: the answer may be repeated."""
    changed = txn.db.execute("UPDATE outbox SET acked_at = ? WHERE seq = ? AND acked_at IS NULL", (txn.now, seq))
    return changed.rowcount == 1
