"""The ledger: one SQLite file for the audit chain, approvals, the owner's word, provenance and the outbox.

One transaction spans them all, so what was decided and what was recorded can't differ.
"""

from safety_wrapper.ledger import approvals, export, floor, jobs, outbox, owner, provenance, sessions
from safety_wrapper.ledger.clock import Clock, ClockReading, SystemClock
from safety_wrapper.ledger.keys import LedgerKeys
from safety_wrapper.ledger.store import Ledger, verify_all
from safety_wrapper.ledger.transaction import Look, Reader, Txn

__all__ = [
    "Clock",
    "ClockReading",
    "Ledger",
    "LedgerKeys",
    "Look",
    "Reader",
    "SystemClock",
    "Txn",
    "approvals",
    "export",
    "floor",
    "jobs",
    "outbox",
    "owner",
    "provenance",
    "sessions",
    "verify_all",
]
