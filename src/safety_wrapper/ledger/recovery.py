"""What a start and a distrusted clock do to everything that was under way. Never makes anything live."""

from __future__ import annotations

from safety_wrapper.ledger import jobs
from safety_wrapper.ledger.approvals import requests
from safety_wrapper.ledger.transaction import Txn


def recover(txn: Txn) -> int:
    """After a start: whatever was executing becomes ``unknown``; what has expired meanwhile expires. Idempotent.

    Returns how many runs have an unknown end.
    """
    unknown = requests.interrupt_all(txn) + jobs.interrupt_all(txn)
    requests.sweep(txn)
    return unknown


def distrust_clock(txn: Txn) -> None:
    """After a reboot with a clock that can't be trusted: every open request and live grant expires."""
    expired = requests.expire_open(txn)
    txn.audit("clock", body={"event": "distrusted", "expired": expired})
