"""``subagent_spawning``: removed upstream. Gated as before_tool_call of ``sessions_spawn``; here a child is adopted."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger import sessions

GATEWAY_RULE: Final = "subagent_spawned is observe only, and comes before the spawn call's result"
#: A session with a longer key can make no call: the wire refuses it.
MAX_ID: Final = 256


async def observe(core: Core, raw: dict[str, Any]) -> None:
    """Give a child the depth and the budget that its parent's allowed spawn reserved. No reservation: no budget."""
    ctx = raw.get("ctx")
    if not isinstance(ctx, dict):
        return
    child, parent = ctx.get("childSessionKey"), ctx.get("requesterSessionKey")
    if not isinstance(child, str) or not isinstance(parent, str) or max(len(child), len(parent)) > MAX_ID:
        return
    try:
        await core.engine.ledger.write(lambda txn: sessions.adopt(txn, child=child, parent=parent))
    except RefusedError:
        await core.alarm("a child without an allowed spawn", session=child)
