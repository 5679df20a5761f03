"""``after_tool_call``: ends the grant that a built-in's call was running on."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.ledger import approvals

GATEWAY_RULE: Final = "observe only; errors are logged"


async def observe(core: Core, raw: dict[str, Any]) -> None:
    """Note how a built-in's call ended. Unknown calls change nothing."""
    event, ctx = _dict(raw.get("event")), _dict(raw.get("ctx"))
    call_id = event.get("toolCallId") or ctx.get("toolCallId")
    session, run = ctx.get("sessionKey"), event.get("runId") or ctx.get("runId")
    if not isinstance(call_id, str) or not isinstance(session, str):
        return
    ok = event.get("error") is None
    key = f"{session}\x1f{run}\x1f{call_id}"
    await core.engine.ledger.write(lambda txn: approvals.finish_grant(txn, key, ok=ok), finish=True)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
