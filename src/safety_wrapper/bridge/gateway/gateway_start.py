"""``gateway_start`` and the shim's hello: which gateway this is, and whether it runs what we installed."""

from __future__ import annotations

from typing import Any, Final

from safety_wrapper import __version__
from safety_wrapper.bridge import openclaw
from safety_wrapper.bridge.core import Core
from safety_wrapper.bridge.wire import Hello

GATEWAY_RULE: Final = "observe only; may come after the first turn"
PINNED_VERSION: Final = openclaw.GATEWAY_VERSION


async def hello(core: Core, request: Hello) -> dict[str, Any]:
    """Say whether calls of this gateway will be decided. What it says of itself is no proof; it finds accidents."""
    core.gateway.version = request.gateway_version
    complaint = core.gateway.complaint = complaint_about(core, request)
    await core.observed("gateway_start", gateway_version=request.gateway_version)
    return {
        "core_version": __version__,
        "profile": core.config.gateway.profile,
        "ready": complaint is None and core.engine.standing.bundle is not None,
        "complaint": complaint,
    }


def complaint_about(core: Core, request: Hello) -> str | None:
    """What is wrong with this gateway, or None."""
    if request.gateway_version != PINNED_VERSION:
        return f"the gateway is not the pinned version {PINNED_VERSION}"
    if core.expected_shim_sha256 not in (None, request.shim_sha256):
        return "the shim differs from the one installed: reinstall"
    bundle = core.engine.standing.bundle
    if bundle is not None and openclaw.tools_sha256(openclaw.offered_tools(bundle)) != request.tools_sha256:
        return "the tool list differs from the bundle's: reinstall"
    return None
