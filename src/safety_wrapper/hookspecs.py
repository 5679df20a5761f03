"""The contract between the engine and its plugins: every hook, its arguments, and what a failure means.

docs/hooks.md and the hook × fault matrix are generated from this file; a test fails when they differ.
A plugin implements a hook by decorating a method with :data:`hookimpl` under the hook's name; it may leave out
arguments that it does not need. pluggy discovers and validates; calls go through the frozen plan of ``dispatch``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pluggy

if TYPE_CHECKING:
    from safety_wrapper.model import (
        CallContext,
        Classification,
        Decision,
        Health,
        Objection,
        OutboundMessage,
        Span,
        SpawnRequest,
        Ticket,
        ToolCall,
        ToolResult,
        UsageRecord,
    )
    from safety_wrapper.policy import Policy

PROJECT: Final = "safety_wrapper"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Contract:
    """What holds for a hook beside its arguments.

    process: where it is loaded · combine: how answers become one · on_error: what an exception, a wrong type or a
    late answer means · on_empty: what it means that nobody answers · is_async · budget_ms: hard limit for one
    implementation · openclaw: the gateway's own seam that leads here, or None for a stage of ours.
    """

    process: str
    combine: str
    on_error: str
    on_empty: str
    is_async: bool
    budget_ms: int
    openclaw: str | None


CONTRACTS: dict[str, Contract] = {}


def contract(
    *,
    process: str,
    combine: str,
    on_error: str,
    on_empty: str,
    budget_ms: int,
    is_async: bool = False,
    openclaw: str | None = None,
) -> Callable[[_F], _F]:
    """Attach a Contract to a hook spec."""

    def attach(spec: _F) -> _F:
        CONTRACTS[spec.__name__] = Contract(process, combine, on_error, on_empty, is_async, budget_ms, openclaw)
        return spec

    return attach


# ── mirrored: the gateway's own hook names ───────────────────────────────────────────────────────────────────────


@hookspec
@contract(
    process="core",
    combine="strictest outcome; all rules",
    on_error="block",
    on_empty="no objection",
    budget_ms=1000,
    openclaw="before_tool_call; execute of our own tools",
)
def before_tool_call(call: ToolCall, classification: Classification) -> Objection | None:
    """Object to a call that is classified already. Called once for each call, after every classifier.

    :param call: the call as it is digested. :param classification: all answers combined.
    No opinion: ``None``. An objection can only make the outcome stricter. Must not do I/O or keep a reference.
    """


@hookspec
@contract(
    process="core",
    combine="all called",
    on_error="alarm recorded; the result stays as it is",
    on_empty="nothing happens",
    budget_ms=1000,
    openclaw="after_tool_call",
)
def after_tool_call(call: ToolCall, decision: Decision, result: ToolResult) -> None:
    """Observe a finished call. Called once for each call that ran, with the cleaned result. No answer counts."""


@hookspec
@contract(
    process="core",
    combine="any objection cancels",
    on_error="message cancelled",
    on_empty="message passes",
    budget_ms=1000,
    openclaw="message_sending (a throw there would send: the shim answers cancel)",
)
def message_sending(message: OutboundMessage) -> Objection | None:
    """Object to a message that is about to reach a channel. Called once for each outgoing message."""


@hookspec
@contract(
    process="core",
    combine="any objection withholds",
    on_error="text withheld",
    on_empty="text passes",
    budget_ms=40,
    openclaw="before_message_write (synchronous; errors there keep the raw text)",
)
def before_message_write(text: str, context: CallContext) -> Objection | None:
    """Object to a message row that the gateway is about to store. Called twice by the gateway for some rows."""


@hookspec
@contract(
    process="core",
    combine="any objection withholds",
    on_error="text withheld",
    on_empty="text passes",
    budget_ms=40,
    openclaw="tool_result_persist (synchronous) and the tool-result middleware",
)
def tool_result_persist(text: str, tool: str, context: CallContext) -> Objection | None:
    """Object to a tool result before the model or the transcript gets it."""


@hookspec
@contract(
    process="core",
    combine="all called",
    on_error="alarm recorded",
    on_empty="nothing happens",
    budget_ms=1000,
    openclaw="llm_output (fire and forget, summed over the run; misses compaction)",
)
def llm_output(record: UsageRecord) -> None:
    """Observe the usage that the gateway reports for one run. A second source only: the wire counts."""


@hookspec
@contract(
    process="core",
    combine="all called",
    on_error="alarm recorded",
    on_empty="nothing happens",
    budget_ms=1000,
    openclaw="before_prompt_build (observe; prefix bytes are never changed)",
)
def before_prompt_build(context: CallContext) -> None:
    """Observe that the gateway builds a prompt for a run."""


@hookspec
@contract(
    process="core",
    combine="strictest outcome; all rules",
    on_error="block",
    on_empty="no objection",
    budget_ms=1000,
    openclaw="removed upstream: decided on before_tool_call of sessions_spawn",
)
def subagent_spawning(spawn: SpawnRequest) -> Objection | None:
    """Object to a child agent. Depth and call budget are checked by the core already."""


@hookspec
@contract(
    process="core",
    combine="all called",
    on_error="alarm recorded",
    on_empty="nothing happens",
    budget_ms=1000,
    openclaw="gateway_start (may come after the first turn: readiness never hangs on it)",
)
def gateway_start(gateway_version: str) -> None:
    """Observe that a gateway said hello."""


# ── stages: what a plugin swaps ──────────────────────────────────────────────────────────────────────────────────


@hookspec
@contract(
    process="core",
    combine="max class, union of effects",
    on_error="CRITICAL_RED and block",
    on_empty="block",
    budget_ms=1000,
)
def classify_tool_call(call: ToolCall, policy: Policy) -> Classification | None:
    """Say what a call would do and how bad that is. Called once for each call.

    :param call: canonical and digested. :param policy: the bundle in force and the owner's tenant facts; frozen,
    so that the answer is a pure function of both. No opinion: ``None``. Answers combine by the strictest class and
    the union of effects; no answer at all blocks. Must be pure: no I/O, no clock, no reference kept.
    Why ``policy`` is an argument: docs/adr/0002.
    """


@hookspec
@contract(
    process="core",
    combine="one owner per tool",
    on_error="nothing runs; the call ends as an error",
    on_empty="nothing runs",
    budget_ms=60_000,
    is_async=True,
)
async def execute_tool_call(call: ToolCall, tickets: Sequence[Ticket]) -> ToolResult:
    """Run a tool that runs in an adapter. Called once, after the decision is durable.

    The plugin that registered the tool is the only one asked. ``call.params`` is decoded afresh from the canonical
    bytes. Awaited under the execute deadline; cancelled when the agent aborts.
    """


@hookspec
@contract(
    process="core",
    combine="all called",
    on_error="request kept; shown in status",
    on_empty="request kept",
    budget_ms=1000,
)
def notify_approval(request: str, title: str, safety_class: str, expires_in_s: int) -> None:
    """Tell somebody that a request waits. Called once for each new request, never for a repeat."""


@hookspec
@contract(
    process="core",
    combine="all called; one stores",
    on_error="budget counts as spent",
    on_empty="nothing is stored",
    budget_ms=1000,
)
def record_usage(record: UsageRecord) -> None:
    """Store one model call's usage."""


@hookspec
@contract(
    process="each",
    combine="all called; worst wins",
    on_error="reported; not ready",
    on_empty="ready",
    budget_ms=1000,
)
def check_health() -> Sequence[Health]:
    """Say how the plugin is. Called by ``status`` and ``doctor``."""


@hookspec
@contract(
    process="vault",
    combine="union of spans on the original text, applied once",
    on_error="segment withheld",
    on_empty="segment withheld",
    budget_ms=2000,
)
def find_secret_spans(segment: bytes, surface: str) -> Sequence[Span]:
    """Find secrets in one segment of UTF-8 text. Loaded only in the vault process."""


@hookspec
@contract(
    process="vault",
    combine="one owner",
    on_error="nothing released",
    on_empty="nothing released",
    budget_ms=2000,
)
def load_secrets() -> Sequence[tuple[str, bytes]]:
    """Give every registered secret to the matcher. Loaded only in the vault process."""


@hookspec
@contract(
    process="vault",
    combine="one owner",
    on_error="nothing released",
    on_empty="nothing released",
    budget_ms=2000,
)
def release_secret(ticket: Ticket, slot: str) -> bytes | None:
    """Release one value against a ticket. Loaded only in the vault process."""


@hookspec
@contract(
    process="core",
    combine="disjoint",
    on_error="start refused",
    on_empty="no adapter tools",
    budget_ms=1000,
)
def register_tools() -> Sequence[str]:
    """Name the tools (dotted) whose ``execute_tool_call`` this plugin owns. Called once, at start."""


HOOKS: Final = tuple(CONTRACTS)
#: Hooks of the vault process; the core loads none of their implementations.
VAULT_HOOKS: Final = frozenset(name for name, c in CONTRACTS.items() if c.process == "vault")
