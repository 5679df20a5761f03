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
    agent, session, run = (_text(ctx.get(key)) for key in ("agentId", "sessionKey", "runId"))
    await core.observed("before_prompt_build", context=CallContext(core.config.tenant, agent, session, run))


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
