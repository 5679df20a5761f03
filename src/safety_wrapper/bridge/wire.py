"""Request shapes of both sockets. Unknown keys are refused everywhere except in gateway payloads below ``raw``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from safety_wrapper.errors import WireError
from safety_wrapper.frames import MESSAGES

Id = Annotated[str, Field(min_length=1, max_length=256)]
Name = Annotated[str, Field(min_length=1, max_length=128)]
Text = Annotated[str, Field(max_length=1_000_000)]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Claims(_Shape):
    """What the gateway says about where a call comes from. All optional, all claims."""

    agent: Name | None = None
    session: Id | None = None
    run: Id | None = None
    depth: Annotated[int, Field(ge=0, le=1000)] | None = None
    channel: Name | None = None
    trigger: Name | None = None


class Hello(_Shape):
    gateway_version: Name
    shim_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    tools_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    mode: Literal["full", "discovery"]


class Execute(_Shape):
    tool_call_id: Id
    tool: Name
    params: dict[str, Any]
    context: Claims = Claims()


class Decide(_Shape):
    tool_call_id: Id
    tool: Name
    kind: Literal["builtin", "mcp", "spawn", "message", "code"]
    params: dict[str, Any]
    context: Claims = Claims()


class Content(_Shape):
    type: Literal["text"]
    text: Text


class Result(_Shape):
    tool_call_id: Id
    tool: Name
    content: list[Content] = Field(max_length=64)
    is_error: bool
    context: Claims = Claims()


class Persist(_Shape):
    message: dict[str, Any]
    context: Claims = Claims()


class Send(_Shape):
    to: Annotated[str, Field(max_length=1024)]
    content: Text
    channel: Name | None = None
    context: Claims = Claims()


class Observe(_Shape):
    hook: Name
    raw: dict[str, Any]


class Cancel(_Shape):
    tool_call_id: Id


class Nothing(_Shape):
    pass


class Stop(_Shape):
    scope: Literal["all"] = "all"


class ApprovalsList(_Shape):
    state: Name | None = None
    after: Id | None = None
    limit: int = Field(100, ge=1, le=500)


class ById(_Shape):
    id: Id


class ApprovalsDecide(_Shape):
    id: Id
    decision: Literal["approve", "deny"]
    shown_digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    comment: Annotated[str, Field(max_length=500)] | None = None


class Statement(_Shape):
    kind: Literal["level", "gate", "tenant"]
    body: dict[str, Any]
    reason: Annotated[str, Field(max_length=200)] = ""
    ends_at: int | None = None


class OwnSet(_Shape):
    statement: Statement


class AuditTail(_Shape):
    after_seq: int = Field(0, ge=0)
    limit: int = Field(100, ge=1, le=500)


class AuditWhere(_Shape):
    kind: Name | None = None
    agent: Name | None = None
    session: Id | None = None
    ref: Id | None = None
    since: int | None = None
    until: int | None = None
    outcome: Literal["allow", "require_approval", "block"] | None = None
    text: Annotated[str, Field(max_length=200)] | None = None


class AuditSearch(_Shape):
    where: AuditWhere = AuditWhere()
    limit: int = Field(100, ge=1, le=500)
    before_seq: int | None = Field(None, ge=1)


class AuditExport(_Shape):
    from_seq: int = Field(1, ge=1)
    to_seq: int | None = Field(None, ge=1)


class BundleActivate(_Shape):
    path: Annotated[str, Field(min_length=1, max_length=4096)]


def read[T: _Shape](shape: type[T], body: dict[str, Any]) -> T:
    """The request as its shape. Raises WireError ``bad_request``; the text never holds a value."""
    try:
        return shape.model_validate(body)
    except ValidationError as exc:
        raise WireError("bad_request", MESSAGES["bad_request"]) from exc
