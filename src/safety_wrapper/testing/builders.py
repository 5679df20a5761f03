"""Values as the core makes them, from as little as a test wants to say."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from safety_wrapper.canonical import canonical_json, digest
from safety_wrapper.model import Binding, CallContext, CallId, ToolCall, ToolKind
from safety_wrapper.policy import Policy, TenantFacts, parse

NO_DEFINITION = "0" * 64
_EMPTY_BUNDLE: Mapping[str, Any] = {
    "format": 1,
    "name": "testing",
    "version": 1,
    "min_wrapper": "0.1.0",
    "expires_at": 4_102_444_800,  # the year 2100
    "tools": {},
    "rules": [],
    "egress": [],
    "redaction": [],
    "prices": {},
    "adapters": {},
    "templates": {},
    "suite": [],
}


def make_context(
    *,
    tenant: str = "ten_test",
    agent: str | None = "main",
    session: str | None = "agent:main:test",
    run: str | None = "run-1",
    depth: int | None = 0,
    channel: str | None = None,
    trigger: str | None = None,
) -> CallContext:
    """A context in which everything is known that usually is."""
    return CallContext(tenant, agent, session, run, depth, channel, trigger)


def make_call(
    tool: str = "exec",
    params: Mapping[str, Any] | None = None,
    *,
    kind: ToolKind = ToolKind.OWN_TOOL,
    context: CallContext | None = None,
    cwd: str | None = "/work",
    sandbox: str | None = "work",
    tool_definition_sha256: str = NO_DEFINITION,
    call_id: str = "call_test",
) -> ToolCall:
    """A call with its canonical form and digest. Raises CanonicalError for params that have none."""
    context = context or make_context()
    plain = dict(params or {})
    head = {
        "agent": context.agent,
        "binding": {"cwd": cwd, "sandbox": sandbox, "tool_definition_sha256": tool_definition_sha256},
        "kind": kind.value,
        "params": plain,
        "tenant": context.tenant,
        "tool": tool,
    }
    return ToolCall(
        id=CallId(call_id),
        tool=tool,
        kind=kind,
        params=plain,
        context=context,
        binding=Binding(cwd, sandbox, tool_definition_sha256),
        canonical=canonical_json(plain),
        digest=digest("sw/call/v1", head),
    )


def make_policy(
    bundle: Mapping[str, Any] | None = None, *, domains: Iterable[str] = (), internal_hosts: Iterable[str] = ()
) -> Policy:
    """A policy over an empty bundle with ``bundle``'s keys on top, in compiled form; not signed.

    Raises BundleFormatError when that is no bundle.
    """
    compiled = parse(canonical_json({**_EMPTY_BUNDLE, **(bundle or {})}))
    return Policy(compiled, TenantFacts(tuple(domains), tuple(internal_hosts)))
