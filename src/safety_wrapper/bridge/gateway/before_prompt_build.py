"""``before_prompt_build``: observed; prefix bytes are never changed, so that the provider's cache holds."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.model import CallContext

GATEWAY_RULE: Final = "throws or late: skipped"


async def observe(core: Core, raw: dict[str, Any]) -> None:
    """Tell the plugins that a prompt is built."""
    ctx = raw.get("ctx")
    ctx = ctx if isinstance(ctx, dict) else {}
    known = {"agent": ctx.get("agentId"), "session": ctx.get("sessionKey"), "run": ctx.get("runId")}
    context = CallContext(core.config.tenant, **{k: v for k, v in known.items() if isinstance(v, str)})
    await core.observed("before_prompt_build", context=context)
