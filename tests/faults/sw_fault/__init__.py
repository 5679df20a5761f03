"""A real plugin that misbehaves on demand: one hook, one fault, read from a control file at each call.

Settings: ``control`` the file, ``{"hook": …, "fault": …}`` or ``{}``; ``shape``: ``{"hook": …, "shape": …}`` builds
one hook async, as a wrapper or as an unknown name, which the registry must refuse.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from safety_wrapper.hookspecs import CONTRACTS, hookimpl
from safety_wrapper.model import ToolResult

#: If this text ever shows in an answer or a log, an exception's text got out.
CANARY = "exception-text-that-must-not-get-out"


def plugin(settings: dict[str, Any]) -> object:
    """The factory that the entry point names."""
    control = Path(settings["control"])
    shape = settings.get("shape", {})
    methods: dict[str, Any] = {}
    for hook, contract in CONTRACTS.items():
        wanted = shape.get("shape") if shape.get("hook") == hook else None
        methods[hook] = _method(hook, control, is_async=contract.is_async, shape=wanted)
    return type("FaultPlugin", (), methods)()


def _method(hook: str, control: Path, *, is_async: bool, shape: str | None) -> Any:
    if shape == "wrapper":

        def wrapper(self: object) -> Any:
            answer = yield
            return answer

        return hookimpl(wrapper=True, specname=hook)(wrapper)

    def sync(self: object) -> Any:
        fault = _fault(control, hook)
        if fault == "late":
            time.sleep(30)
        return _misbehave(hook, fault)

    async def coroutine(self: object) -> Any:
        fault = _fault(control, hook)
        if fault == "late":
            await asyncio.sleep(4)
        return _misbehave(hook, fault)

    if shape == "async":
        is_async = not is_async
    return hookimpl(specname=hook)(coroutine if is_async else sync)


def _misbehave(hook: str, fault: str | None) -> Any:
    if fault == "raises":
        raise ValueError(CANARY)
    if fault == "wrong_type":
        return {"outcome": "allow", "decision": "allow"}
    if fault == "empty":
        return None
    if hook == "register_tools":
        return ["fault.run"]
    if hook == "execute_tool_call":
        return ToolResult("the tool ran")
    if hook in {"check_health", "find_secret_spans", "load_secrets"}:
        return []
    return None


def _fault(control: Path, hook: str) -> str | None:
    wanted = json.loads(control.read_text())
    return wanted.get("fault") if wanted.get("hook") == hook else None
