"""``before_tool_call``: gates the gateway's own tools in the built-in profile. Our own tools come as ``execute``."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.wire import Decide
from safety_wrapper.model import Outcome, ToolKind
from safety_wrapper.normalise import Proposal
from safety_wrapper.settle import decision_body

GATEWAY_RULE: Final = "throws or 15 s: blocked; a malformed answer is an allow; the last plugin's params win"


async def decide(core: Core, request: Decide) -> dict[str, Any]:
    """Decide a built-in's call. On allow the answer carries the very params that were decided."""
    context = core.context(request.context)
    proposal = Proposal(request.tool_call_id, request.tool, ToolKind(request.kind), request.params, context)
    _, decision = await core.engine.decide(proposal)
    answer: dict[str, Any] = {"decision": decision_body(decision)}
    if decision.outcome is Outcome.ALLOW:
        answer["params"] = request.params
    return answer
