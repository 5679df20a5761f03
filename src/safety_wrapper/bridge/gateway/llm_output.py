"""``llm_output``: usage summed over a run. The second source; compaction is missing here, so the wire counts."""

from __future__ import annotations

import time
from typing import Any, Final

from safety_wrapper.bridge.core import Core
from safety_wrapper.model import UsageRecord

GATEWAY_RULE: Final = "fire and forget; ignored"


async def observe(core: Core, raw: dict[str, Any]) -> None:
    """Hand the usage of one run to the metering plugins."""
    record = usage_record(raw, int(time.time()))
    if record is not None:
        await core.observed("llm_output", record=record)
        await core.observed("record_usage", record=record)


def usage_record(raw: dict[str, Any], now: int) -> UsageRecord | None:
    """The gateway's event as a record; None when it holds no usage."""
    event, ctx = raw.get("event"), raw.get("ctx")
    if not isinstance(event, dict) or not isinstance(ctx, dict) or not isinstance(event.get("usage"), dict):
        return None
    usage = event["usage"]
    names = (event.get("runId"), event.get("provider"), event.get("model"), ctx.get("agentId"))
    counts = tuple(usage.get(key, 0) for key in ("input", "output", "cacheRead", "cacheWrite"))
    if not all(isinstance(name, str) for name in names) or not all(type(n) is int and n >= 0 for n in counts):
        return None
    run, provider, model, agent = (str(name) for name in names)
    taken, given, read, written = counts
    return UsageRecord(f"hook:{run}", "hook", agent, provider, model, taken, given, read, written, now)
