"""The one row that says how far the ledger has come: clock mark, head of the chain, owner's count, version floor.

It is written with each commit under its own MAC, so that rows cut off the end are noticed as well as edited ones.
"""

from __future__ import annotations

import hmac
import sqlite3
from typing import Final

from safety_wrapper.errors import LedgerCorruptError
from safety_wrapper.ledger.clock import ClockMark
from safety_wrapper.ledger.keys import LedgerKeys
from safety_wrapper.ledger.seals import check_mac

ZERO: Final = bytes(32)

_COLUMNS: Final = (
    "tenant, t_ns, boottime_ns, boot_id, synchronised, head_seq, head_sha256, checkpoint_seq, checkpoint_at, "
    "owner_count, owner_mac, floor_version, floor_sha256"
)
_SELECT: Final = f"SELECT {_COLUMNS}, mac FROM state WHERE id = 1"  # noqa: S608 - fixed text
_INSERT: Final = f"INSERT INTO state(id, {_COLUMNS}, mac) VALUES (1, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UPDATE: Final = (
    "UPDATE state SET tenant = ?, t_ns = ?, boottime_ns = ?, boot_id = ?, synchronised = ?, head_seq = ?, "
    "head_sha256 = ?, checkpoint_seq = ?, checkpoint_at = ?, owner_count = ?, owner_mac = ?, floor_version = ?, "
    "floor_sha256 = ?, mac = ? WHERE id = 1"
)

type Counters = tuple[int, bytes, int, int, int, bytes, int | None, str | None]


class State:
    """Mutable, owned by the writer thread; readers load their own copy. ``counters`` and ``restore`` undo a change."""

    __slots__ = (
        "checkpoint_at",
        "checkpoint_seq",
        "floor_sha256",
        "floor_version",
        "head_seq",
        "head_sha256",
        "mark",
        "owner_count",
        "owner_mac",
        "tenant",
    )

    def __init__(self, tenant: str, mark: ClockMark | None) -> None:
        self.tenant = tenant
        self.mark = mark
        self.head_seq = 0
        self.head_sha256 = ZERO
        self.checkpoint_seq = 0
        self.checkpoint_at = 0
        self.owner_count = 0
        self.owner_mac = ZERO
        self.floor_version: int | None = None
        self.floor_sha256: str | None = None

    def counters(self) -> Counters:
        """All that a change can move."""
        return (
            self.head_seq,
            self.head_sha256,
            self.checkpoint_seq,
            self.checkpoint_at,
            self.owner_count,
            self.owner_mac,
            self.floor_version,
            self.floor_sha256,
        )

    def restore(self, counters: Counters) -> None:
        """Take back what a change moved since ``counters``."""
        (
            self.head_seq,
            self.head_sha256,
            self.checkpoint_seq,
            self.checkpoint_at,
            self.owner_count,
            self.owner_mac,
            self.floor_version,
            self.floor_sha256,
        ) = counters


def load(db: sqlite3.Connection, keys: LedgerKeys, tenant: str) -> State:
    """Read the row. Raises LedgerCorruptError if it is missing, edited, of another tenant or under another key."""
    row = db.execute(_SELECT).fetchone()
    if row is None:
        raise LedgerCorruptError("the ledger has lost its state row")
    check_mac(row[13], _mac(keys, row[:13]), "state")
    if row[0] != tenant:
        raise LedgerCorruptError("the ledger belongs to another tenant")
    state = State(tenant, ClockMark(row[1], row[2], row[3], bool(row[4])))
    state.restore(row[5:13])
    return state


def save(db: sqlite3.Connection, keys: LedgerKeys, state: State, mark: ClockMark, *, is_new: bool = False) -> None:
    """Write the row inside the open transaction. Hot path."""
    values = (state.tenant, mark.t_ns, mark.boottime_ns, mark.boot_id, int(mark.synchronised), *state.counters())
    db.execute(_INSERT if is_new else _UPDATE, (*values, _mac(keys, values)))


def _mac(keys: LedgerKeys, values: tuple[object, ...]) -> bytes:
    # repr keeps types and fields apart; canonical JSON refuses nanoseconds, which exceed 2^53.
    return hmac.digest(keys.audit, b"sw/state/v1\x00" + repr(values).encode("utf-8"), "sha256")
