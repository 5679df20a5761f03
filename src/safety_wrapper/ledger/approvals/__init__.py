"""Approvals: the question (request) and the single-use answer (grant). Plain functions over a Txn or a Look."""

from safety_wrapper.ledger.approvals.grants import finish_grant, spend_grant
from safety_wrapper.ledger.approvals.looks import count_pending, get, list_requests, params_of, result_for, to_wake
from safety_wrapper.ledger.approvals.requests import (
    begin_execution,
    cancel,
    decide,
    finish_execution,
    mark_woken,
    open_request,
    sweep,
)
from safety_wrapper.ledger.approvals.rows import (
    HUB,
    LOCAL_ROOT,
    PASSKEY,
    Decided,
    NewRequest,
    Opened,
    RequestRow,
    StoredCall,
    WakeRow,
)

__all__ = [
    "HUB",
    "LOCAL_ROOT",
    "PASSKEY",
    "Decided",
    "NewRequest",
    "Opened",
    "RequestRow",
    "StoredCall",
    "WakeRow",
    "begin_execution",
    "cancel",
    "count_pending",
    "decide",
    "finish_execution",
    "finish_grant",
    "get",
    "list_requests",
    "mark_woken",
    "open_request",
    "params_of",
    "result_for",
    "spend_grant",
    "sweep",
    "to_wake",
]
