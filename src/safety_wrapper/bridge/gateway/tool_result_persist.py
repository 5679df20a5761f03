"""``tool_result_persist`` and the tool-result middleware: the middleware decides what the model sees."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.wire import Result
from safety_wrapper.model import MAX_RESULT_CHARS, ToolResult

GATEWAY_RULE: Final = (
    "persist: synchronous, errors ignored, raw text kept; middleware: a throw hides the result after the tool ran, "
    "and there is no timeout"
)


async def result(core: Core, request: Result) -> dict[str, Any]:
    """A built-in's result as the model may see it, or withheld."""
    context = core.context(request.context)
    content: list[dict[str, str]] = []
    for part in request.content:
        if core.withhold("tool_result_persist", text=part.text, tool=request.tool, context=context):
            return {"withheld": True}
        cleaned = await core.engine.clean(ToolResult(part.text), "tool_result")
        if cleaned.is_error:
            return {"withheld": True}
        content.append({"type": "text", "text": cleaned.text[: MAX_RESULT_CHARS * 4]})
    return {"content": content}
