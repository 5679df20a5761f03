"""What a change and a look get into their hands: Txn writes inside the writer's transaction, Reader only looks."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any, Final

from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import LedgerError
from safety_wrapper.ledger import state as state_row
from safety_wrapper.ledger.chain import KINDS, checkpoint_text, record_mac, record_sha256, to_b64u
from safety_wrapper.ledger.keys import LedgerKeys
from safety_wrapper.ledger.state import State

_INSERT: Final = (
    "INSERT INTO audit(seq, at, kind, agent, session, ref, body, sha256, mac) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
)


class Txn:
    """One change's view. ``now`` = t_eff in seconds. Valid only while the change runs; never keep it."""

    __slots__ = ("_state", "db", "keys", "now", "tenant")

    def __init__(self, db: sqlite3.Connection, keys: LedgerKeys, state: State, now: int) -> None:
        self.db = db
        self.keys = keys
        self.tenant = state.tenant
        self.now = now
        self._state = state

    @property
    def state(self) -> State:
        """The ledger's counters; only modules of the ledger touch them."""
        return self._state

    def audit(
        self,
        kind: str,
        *,
        agent: str | None = None,
        session: str | None = None,
        ref: str | None = None,
        body: Mapping[str, Any],
    ) -> int:
        """Append one record; its number. Durable when the change is. ``body`` is JSON without secret or call text.

        Raises LedgerError for an unknown kind, CanonicalError for a body without canonical form. Hot path.
        """
        if kind not in KINDS:
            raise LedgerError("an audit record of unknown kind")
        state = self._state
        text = canonical_json(body if type(body) is dict else dict(body))
        seq = state.head_seq + 1
        sha256 = record_sha256(seq, self.now, kind, agent, session, ref, text, state.head_sha256)
        mac = record_mac(self.keys.audit, sha256)
        self.db.execute(_INSERT, (seq, self.now, kind, agent, session, ref, text, sha256, mac))
        state.head_seq = seq
        state.head_sha256 = sha256
        return seq


class Reader:
    """One look's view: a snapshot on a read-only connection. ``now`` = t_eff in seconds when it was opened."""

    __slots__ = ("_state", "db", "keys", "now", "tenant")

    def __init__(self, db: sqlite3.Connection, keys: LedgerKeys, tenant: str, now: int) -> None:
        self.db = db
        self.keys = keys
        self.tenant = tenant
        self.now = now
        self._state: State | None = None

    @property
    def state(self) -> State:
        """The ledger's counters in this snapshot. Raises LedgerCorruptError if their row was edited."""
        if self._state is None:
            self._state = state_row.load(self.db, self.keys, self.tenant)
        return self._state


#: Whoever only looks takes either.
type Look = Txn | Reader


def write_checkpoint(txn: Txn) -> None:
    """Append a signed checkpoint over the chain so far; nothing if the newest record is one."""
    state = txn.state
    seq, sha256 = state.head_seq, state.head_sha256.hex()
    if seq == state.checkpoint_seq:
        return
    signature = txn.keys.checkpoint.sign(checkpoint_text(txn.tenant, seq, sha256, txn.now))
    body = {"seq": seq, "sha256": sha256, "kid": txn.keys.kid, "sig": to_b64u(signature)}
    state.checkpoint_seq = txn.audit("checkpoint", body=body)
    state.checkpoint_at = txn.now
