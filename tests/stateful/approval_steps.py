"""Short ways through the life of a request, for tests."""

from __future__ import annotations

import json
from typing import Any

from safety_wrapper.ledger import Ledger, approvals
from stateful.rig import new_request

DAY = 24 * 3600
HERE: dict[str, Any] = {"agent": "main", "session": "agent:main:main"}
CALL = new_request()
BUILTIN = new_request("builtin", own_tool=False)


def opened(ledger: Ledger, new: approvals.NewRequest = CALL) -> approvals.Opened:
    return ledger.write_blocking(lambda txn: approvals.open_request(txn, new))


def held(ledger: Ledger, new: approvals.NewRequest = CALL) -> str:
    found = opened(ledger, new)
    assert found.id is not None
    return found.id


def decide(ledger: Ledger, request: str, decision: str = "approve", **changes: Any) -> approvals.Decided:
    arguments = {"by": "local_root", "shown_digest": CALL.call_digest, **changes}
    return ledger.write_blocking(lambda txn: approvals.decide(txn, request, decision=decision, **arguments))


def approved(ledger: Ledger, new: approvals.NewRequest = CALL, by: str = "local_root") -> str:
    request = held(ledger, new)
    assert decide(ledger, request, shown_digest=new.call_digest, by=by).state == "approved"
    return request


def begin(ledger: Ledger, request: str, need: int = 0) -> approvals.StoredCall:
    return ledger.write_blocking(lambda txn: approvals.begin_execution(txn, request, need=need))


def finish(ledger: Ledger, request: str, *, ok: bool = True, text: str = "the result") -> None:
    ledger.write_blocking(
        lambda txn: approvals.finish_execution(txn, request, ok=ok, text=text, facts={"exit": 0}), finish=True
    )


def spend(ledger: Ledger, new: approvals.NewRequest = BUILTIN, need: int = 0, **changes: Any) -> str | None:
    arguments = {"call_digest": new.call_digest, "tool_call_id": "call_0", **HERE, **changes}
    return ledger.write_blocking(lambda txn: approvals.spend_grant(txn, need=need, **arguments))


def row(ledger: Ledger, request: str) -> approvals.RequestRow:
    with ledger.read() as look:
        found = approvals.get(look, request)
    assert found is not None
    return found


def bodies(ledger: Ledger, kind: str) -> list[dict[str, Any]]:
    with ledger.read() as look:
        rows = look.db.execute("SELECT body FROM audit WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    return [json.loads(body) for (body,) in rows]
