"""Small plugins for tests: one that answers, one that objects, one that fails in a named way, one that owns tools."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from safety_wrapper.hookspecs import CONTRACTS, hookimpl
from safety_wrapper.model import Classification, Objection, Outcome, SafetyClass, Ticket, ToolCall, ToolResult


class Classifies:
    """Gives every call the same answer, or what ``answer`` computes from it."""

    def __init__(self, answer: Classification | Callable[[ToolCall], Classification | None] | None) -> None:
        self._answer = answer

    @hookimpl
    def classify_tool_call(self, call: ToolCall) -> Classification | None:
        return self._answer(call) if callable(self._answer) else self._answer


def classifies(safety_class: SafetyClass, *, external: bool = False, rule: str = "test.rule") -> Classifies:
    """A plugin that finds ``safety_class`` in everything."""
    return Classifies(Classification(safety_class, external=external, rules=(rule,), reason="for a test"))


class Objects:
    """Objects to every call, message and child in the same way."""

    def __init__(self, outcome: Outcome, rule: str = "test.objection", reason: str = "for a test") -> None:
        self._objection = Objection(outcome, rule, reason)

    @hookimpl
    def before_tool_call(self) -> Objection:
        return self._objection

    @hookimpl
    def message_sending(self) -> Objection:
        return self._objection

    @hookimpl
    def subagent_spawning(self) -> Objection:
        return self._objection

    @hookimpl
    def before_message_write(self) -> Objection:
        return self._objection

    @hookimpl
    def tool_result_persist(self) -> Objection:
        return self._objection


class Runs:
    """Owns ``tools`` and answers each of their calls with ``run(call)``; keeps the calls that it saw."""

    def __init__(self, *tools: str, run: Callable[[ToolCall], ToolResult] = lambda call: ToolResult(call.tool)) -> None:
        self._tools = tools
        self._run = run
        self.seen: list[ToolCall] = []

    @hookimpl
    def register_tools(self) -> Sequence[str]:
        return self._tools

    @hookimpl
    async def execute_tool_call(self, call: ToolCall, tickets: Sequence[Ticket]) -> ToolResult:
        self.seen.append(call)
        return self._run(call)


class FaultError(Exception):
    """What a :func:`faulty` plugin raises. Its text stands for a value that must not get out."""


def _raise(**_: Any) -> Any:
    raise FaultError("hunter2")


def _exit(**_: Any) -> Any:
    raise SystemExit(3)


def _cancel(**_: Any) -> Any:
    raise asyncio.CancelledError


def _wrong_type(**_: Any) -> Any:
    return {"outcome": "allow", "safety_class": 0, "ok": True}


def _late(**_: Any) -> Any:
    while True:
        time.sleep(0.01)


def _stubborn(**_: Any) -> Any:
    """Late, and swallows the first interruptions, whatever their type."""
    for _turn in range(3):
        with contextlib.suppress(BaseException):
            time.sleep(3600)


FAULTS: Final[dict[str, Callable[..., Any]]] = {
    "raises": _raise,
    "exits": _exit,
    "cancels": _cancel,
    "wrong_type": _wrong_type,
    "late": _late,
    "stubborn": _stubborn,
}


def faulty(hook: str, fault: str) -> object:
    """A plugin whose ``hook`` has one of FAULTS. ``late`` and ``stubborn`` need installed time limits."""
    body = FAULTS[fault]
    if CONTRACTS[hook].is_async:

        async def run(self: object) -> Any:
            if fault in {"late", "stubborn"}:
                await asyncio.Event().wait()
            return body()

        implementation: Any = run
    else:

        def answer(self: object) -> Any:
            return body()

        implementation = answer
    implementation.__name__ = hook
    return type("Faulty", (), {hook: hookimpl(implementation)})()
