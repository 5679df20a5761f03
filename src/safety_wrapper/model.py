"""The values that travel through the engine, frozen and without behaviour beyond their own laws.

Imports nothing of ours. Enum order is the security order: ``max()`` is the combiner, and a test holds it.
Shapes are those of docs/reference/schemas.md; times end in ``_at`` (integer seconds, UTC), digests in ``_sha256``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Any, Final, NewType

CallId = NewType("CallId", str)
DecisionId = NewType("DecisionId", str)
RequestId = NewType("RequestId", str)

#: A value as JSON knows it, after strict parsing: no NaN, no lone surrogate, no duplicate key.
type Json = bool | int | float | str | list[Json] | dict[str, Json] | None


class SafetyClass(IntEnum):
    """How much harm a call can do. The order is the law: the strictest answer wins."""

    GREEN = 0
    YELLOW = 1
    YELLOW_EXTERNAL = 2
    RED = 3
    CRITICAL_RED = 4


class Outcome(IntEnum):
    """What happens with a call. The order is the law: the strictest answer wins."""

    ALLOW = 0
    REQUIRE_APPROVAL = 1
    BLOCK = 2

    @property
    def wire(self) -> str:
        """The name used in JSON: ``allow``, ``require_approval``, ``block``."""
        return self.name.lower()


class AutonomyLevel(IntEnum):
    """How far the owner lets an agent go without asking."""

    TRAINING_WHEELS = 1
    TRUSTED_ASSISTANT = 2
    FULL_AUTONOMY = 3


class GateState(StrEnum):
    """What may leave the tenant unasked. ``NAMED`` passes only values that the user named."""

    LOCKED = "locked"
    NAMED = "named"


class ToolKind(StrEnum):
    """Who runs a tool: ours, the gateway, an MCP server, a spawn, a channel, a code interpreter."""

    OWN_TOOL = "own_tool"
    BUILTIN = "builtin"
    MCP = "mcp"
    SPAWN = "spawn"
    MESSAGE = "message"
    CODE = "code"


EFFECT_KINDS: Final = frozenset({"read", "write", "delete", "execute", "send", "control", "pay"})
RESOURCES: Final = frozenset(
    [
        "path",
        "host",
        "url",
        "recipient",
        "table",
        "database",
        "container",
        "image",
        "volume",
        "unit",
        "package",
        "account",
        "channel",
        "record",
        "process",
        "control",
    ]
)


@dataclass(frozen=True, slots=True)
class Effect:
    """One thing that a call would do: ``kind`` on the ``value`` of a ``resource`` (a path, a host, a recipient …)."""

    kind: str
    resource: str
    value: str


@dataclass(frozen=True, slots=True)
class CallContext:
    """Where a call says it comes from. From the agent socket every field is a claim; ``None`` = not known = worst."""

    tenant: str
    agent: str | None = None
    session: str | None = None
    run: str | None = None
    depth: int | None = None
    channel: str | None = None
    trigger: str | None = None


@dataclass(frozen=True, slots=True)
class Binding:
    """What the core itself fixes about a call: never taken from the peer."""

    cwd: str | None
    sandbox: str | None
    tool_definition_sha256: str


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One proposed call, as it was digested. ``canonical`` is the RFC 8785 form of ``params``: whoever runs the
    call decodes *that*, so a plugin that changes ``params`` in place changes nothing that runs."""

    id: CallId
    tool: str
    kind: ToolKind
    params: Mapping[str, Any]
    context: CallContext
    binding: Binding
    canonical: bytes
    digest: str


@dataclass(frozen=True, slots=True)
class Classification:
    """One plugin's answer, or all of them combined. ``opaque``: what the call does can't be bounded."""

    safety_class: SafetyClass
    external: bool = False
    effects: tuple[Effect, ...] = ()
    rules: tuple[str, ...] = ()
    reason: str = ""
    instead: str = ""
    opaque: bool = False


@dataclass(frozen=True, slots=True)
class Objection:
    """What a plugin says against a call, a message or a spawn. It can only make the answer stricter."""

    outcome: Outcome
    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decision:
    """The recorded answer to one call; what the audit log stores."""

    id: DecisionId
    call: CallId
    call_digest: str
    outcome: Outcome
    safety_class: SafetyClass
    external: bool
    effects: tuple[Effect, ...]
    rules: tuple[str, ...]
    opaque: bool
    level: AutonomyLevel
    gate: GateState
    reason: str
    bundle_sha256: str
    plan_sha256: str
    at: int
    request: RequestId | None = None
    expires_in_s: int | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool gave back. ``is_error`` is also said in the text: the wire to the model has no error flag."""

    text: str
    is_error: bool = False
    truncated_bytes: int = 0
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutboundMessage:
    """A reply on its way to a channel."""

    to: str
    content: str
    channel: str | None
    context: CallContext


@dataclass(frozen=True, slots=True)
class SpawnRequest:
    """A parent asks for a child agent. ``depth`` is the depth that the child would have."""

    call: ToolCall
    depth: int


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One model call's tokens. ``input_tokens`` excludes cached ones. ``source`` is ``hook`` or ``wire``."""

    event_id: str
    source: str
    agent: str
    provider: str
    model: str
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    at: int


@dataclass(frozen=True, slots=True)
class Span:
    """Where a secret stands in a text: byte offsets into its UTF-8 form, and the reference that replaces it."""

    start: int
    end: int
    ref: str
    layer: str
    encoding: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """Single-use permission to put named secrets into named slots of one exact request or program."""

    id: str
    decision: DecisionId
    sink: str
    slots: Mapping[str, str]
    bind: Mapping[str, Any]
    ends_at: int
    mac: str


@dataclass(frozen=True, slots=True)
class Health:
    """One check's answer. ``ok`` false = not ready; ``weaker`` names what holds less than it could."""

    name: str
    ok: bool
    detail: str = ""
    weaker: bool = False


#: Rule ids for a block that no policy rule made.
SW_UNLISTED: Final = "sw.unlisted"
SW_MALFORMED: Final = "sw.malformed"
SW_NO_BUNDLE: Final = "sw.no_bundle"
SW_EXPIRED: Final = "sw.expired"
SW_FAULT: Final = "sw.fault"
SW_DEADLINE: Final = "sw.deadline"
SW_STOPPED: Final = "sw.stopped"
SW_FLOOD: Final = "sw.flood"
SW_CONTROL: Final = "sw.control"
RESERVED_RULES: Final = frozenset(
    {SW_UNLISTED, SW_MALFORMED, SW_NO_BUNDLE, SW_EXPIRED, SW_FAULT, SW_DEADLINE, SW_STOPPED, SW_FLOOD, SW_CONTROL}
)


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Every time limit of the engine, in one place."""

    hello_s: float = 2.0
    hook_answer_s: float = 5.0
    execute_s: float = 60.0
    sync_hook_ms: int = 50
    approval_request_s: int = 24 * 3600
    builtin_grant_s: int = 4 * 3600
    ticket_s: int = 60
    vault_answer_s: float = 2.0
    admin_s: float = 10.0


DEADLINES: Final = Deadlines()
MAX_RESULT_CHARS: Final = 16_000
