"""``before_message_write``: a row of the transcript is about to be stored. Also where the user's own words are seen."""

from __future__ import annotations

import json
from typing import Any, Final, TypeGuard

from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.wire import Persist
from safety_wrapper.ledger import provenance
from safety_wrapper.model import ToolResult

GATEWAY_RULE: Final = "synchronous; errors and promises are ignored and the raw text is kept"
#: Longer ones name nothing that a call could name.
MAX_ID: Final = 256


async def persist(core: Core, request: Persist) -> dict[str, Any]:
    """The message as it may be stored, or withheld."""
    context = core.context(request.context)
    text = json.dumps(request.message, ensure_ascii=False)
    if core.withhold("before_message_write", text=text, context=context):
        return {"withheld": True}
    if core.engine.redact is not None:
        cleaned = await core.engine.clean(ToolResult(text), "transcript")
        if cleaned.is_error:
            return {"withheld": True}
        return {"message": json.loads(cleaned.text)}
    return {"message": request.message}


async def observe(core: Core, raw: dict[str, Any]) -> None:
    """Mark the user's words in the provenance of their session. The gateway sends each row twice."""
    event, ctx = raw.get("event"), raw.get("ctx")
    message = event.get("message") if isinstance(event, dict) else None
    if not isinstance(message, dict) or not isinstance(ctx, dict):
        return
    session, key = ctx.get("sessionKey"), message.get("idempotencyKey")
    if _is_id(session) and _is_id(key) and is_users_words(message, core.config.gateway.owner_senders):
        await core.engine.ledger.write(
            lambda txn: provenance.mark(txn, session=session, source="user", tainted=False, ref=key)
        )


def _is_id(value: Any) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= MAX_ID


def is_users_words(message: dict[str, Any], owner_senders: list[str]) -> bool:
    """True for a row that the owner wrote: role user, nobody's injection, a sender whom the configuration names.

    Rows without provenance also come from HTTP, subagents and hooks; those name no sender. The gateway's own
    ``senderIsOwner`` is not believed.
    """
    meta = message.get("__openclaw")
    sender = meta.get("senderId") if isinstance(meta, dict) else None
    return (
        message.get("role") == "user"
        and "provenance" not in message
        and not str(message.get("idempotencyKey", "")).startswith("hook-block:")
        and isinstance(sender, str)
        and sender in owner_senders
    )
