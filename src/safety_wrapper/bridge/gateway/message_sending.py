"""``message_sending``: a reply on its way to a channel."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper import dispatch
from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.wire import Send
from safety_wrapper.errors import StageError
from safety_wrapper.model import OutboundMessage, ToolResult

GATEWAY_RULE: Final = "throws or late: the message is sent; so the shim answers cancel by itself"


async def send(core: Core, request: Send) -> dict[str, Any]:
    """The content to send, or a cancellation with a reason."""
    if core.engine.standing.stopped:
        return {"cancel": True, "reason": "the owner has stopped all agents"}
    message = OutboundMessage(request.to, request.content, request.channel, core.context(request.context))
    try:
        objections = dispatch.object_to(core.engine.plan, "message_sending", message=message)
    except StageError:
        return {"cancel": True, "reason": "the message could not be checked"}
    if objections:
        return {"cancel": True, "reason": objections[0].reason}
    cleaned = await core.engine.clean(ToolResult(request.content), "message")
    if cleaned.is_error:
        return {"cancel": True, "reason": cleaned.text}
    return {"content": cleaned.text}
