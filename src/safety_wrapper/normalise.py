"""First stage: from what the gateway proposed to a typed, canonical, digested ToolCall, or a refusal with a rule."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import jsonschema_rs

from safety_wrapper.canonical import canonical_json, digest_bytes
from safety_wrapper.errors import CanonicalError
from safety_wrapper.model import (
    SW_MALFORMED,
    SW_UNLISTED,
    Binding,
    CallContext,
    CallId,
    ToolCall,
    ToolKind,
)
from safety_wrapper.naming import dotted_name, offered_name
from safety_wrapper.policy import Bundle, ToolEntry
from safety_wrapper.policy.bundle import thaw
from safety_wrapper.secrets import contains_reference

NO_DEFINITION: Final = "0" * 64
#: An engine without backtracking: no text makes a pattern slow.
_LINEAR: Final = jsonschema_rs.RegexOptions()
MAX_PARAMS_BYTES: Final = 512 * 1024
#: An escaped NUL in canonical JSON; an even number of backslashes before it would be text that mentions one.
_NUL: Final = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a peer asks for, checked for shape only. ``context`` is claims; ``tool`` is the gateway's name."""

    tool_call_id: str
    tool: str
    kind: ToolKind
    params: Mapping[str, Any]
    context: CallContext

    @property
    def own(self) -> bool:
        """True for one of our own tools, under the name that models are offered."""
        return self.kind is ToolKind.OWN_TOOL


@dataclass(frozen=True, slots=True)
class Catalogue:
    """The registry of the bundle in force, with compiled parameter schemas."""

    bundle: Bundle
    validators: Mapping[str, jsonschema_rs.Validator]

    @classmethod
    def of(cls, bundle: Bundle) -> Catalogue:
        """Compile every schema once, at activation."""
        validators = {
            key: jsonschema_rs.validator_for(thaw(entry.params), pattern_options=_LINEAR)
            for key, entry in bundle.tools.items()
        }
        return cls(bundle, validators)

    def find(self, proposal: Proposal) -> tuple[str, ToolEntry] | None:
        """The registry key and entry of a proposal. Names are compared exactly."""
        key = dotted_name(proposal.tool) if proposal.own else f"{proposal.kind.value}:{proposal.tool}"
        entry = self.bundle.tools.get(key) if key else None
        if key is None or entry is None or (entry.kind is ToolKind.OWN_TOOL) is not proposal.own:
            return None
        return key, entry

    def offered(self) -> list[str]:
        """The names of the tools that a model is offered."""
        return sorted(offered_name(e.name) for e in self.bundle.tools.values() if e.offer and _is_own(e))


class NotACallError(Exception):
    """The proposal is no call that could be judged. Carries the digest of what came, the rule and the reason."""

    def __init__(self, rule: str, reason: str, call: ToolCall) -> None:
        super().__init__(rule)
        self.rule = rule
        self.reason = reason
        self.call = call


def normalise(proposal: Proposal, catalogue: Catalogue, call_id: CallId, *, workspace: str | None) -> ToolCall:
    """Make the ToolCall. Raises NotACallError for a tool that is not listed or a call that does not fit its schema.

    ``workspace`` is the sandbox profile of the agent, from the configuration; None for an agent that has none.
    """
    found = catalogue.find(proposal)
    if found is None:
        call = unknown_call(proposal, call_id)
        offered = ", ".join(catalogue.offered()[:8])
        raise NotACallError(SW_UNLISTED, f"the tool is not listed. Use one of: {offered}", call)
    key, entry = found
    sandbox, cwd = _place(entry, workspace)
    binding = Binding(cwd, sandbox, entry.definition_sha256)
    call = _call(proposal, call_id, entry.name, entry.kind, binding)
    if call.canonical == b"":
        raise NotACallError(SW_MALFORMED, "its parameters have no canonical form", call)
    if len(call.canonical) > MAX_PARAMS_BYTES:
        raise NotACallError(SW_MALFORMED, "its parameters are too long", call)
    if not catalogue.validators[key].is_valid(proposal.params):
        raise NotACallError(SW_MALFORMED, f"its parameters do not fit the schema of {entry.name}", call)
    if _has_nul(call.canonical):
        raise NotACallError(SW_MALFORMED, "its parameters hold a NUL character", call)
    if contains_reference(call.canonical):
        raise NotACallError(
            SW_MALFORMED, "it carries a SECRET_REF, and this installation has no vault that could resolve it", call
        )
    context = proposal.context
    if proposal.own and not (context.agent and context.session and context.run):
        raise NotACallError(SW_MALFORMED, "the gateway did not name agent, session and run of this call", call)
    if not (context.agent and context.session):
        raise NotACallError(SW_MALFORMED, "the gateway did not name agent and session of this call", call)
    if entry.runs == "runner" and workspace is None:
        raise NotACallError(SW_MALFORMED, "this agent has no workspace", call)
    return call


def unknown_call(proposal: Proposal, call_id: CallId) -> ToolCall:
    """A ToolCall that stands for something that can't be one: it only serves to record the refusal."""
    return _call(proposal, call_id, proposal.tool[:128], proposal.kind, Binding(None, None, NO_DEFINITION))


def for_running(call: ToolCall) -> ToolCall:
    """The call as it is run: its parameters decoded afresh from the canonical bytes that were digested."""
    return replace(call, params=json.loads(call.canonical))


def _call(proposal: Proposal, call_id: CallId, tool: str, kind: ToolKind, binding: Binding) -> ToolCall:
    context = proposal.context
    try:
        canonical = canonical_json(dict(proposal.params))
        digest = digest_bytes("sw/call/v1", _digested(context, tool, kind, canonical, binding))
    except CanonicalError:
        canonical, digest = b"", digest_bytes("sw/call/v1", b"")
    return ToolCall(call_id, tool, kind, proposal.params, context, binding, canonical, digest)


def _digested(context: CallContext, tool: str, kind: ToolKind, canonical: bytes, binding: Binding) -> bytes:
    """The canonical form of {agent, binding, kind, params, tenant, tool}, put together from parts that are canonical:
    keys in their order, ``params`` not encoded a second time. A test holds it against the encoder."""
    return b"".join(
        (
            b'{"agent":', canonical_json(context.agent), b',"binding":', _bound(binding),
            b',"kind":', canonical_json(kind.value), b',"params":', canonical,
            b',"tenant":', canonical_json(context.tenant), b',"tool":', canonical_json(tool), b"}",
        )
    )  # fmt: skip


@lru_cache(maxsize=512)
def _bound(binding: Binding) -> bytes:
    """A binding's canonical form: there are as many as tools and workspaces."""
    return canonical_json(
        {
            "cwd": binding.cwd,
            "sandbox": binding.sandbox,
            "tool_definition_sha256": binding.tool_definition_sha256,
        }
    )


def _place(entry: ToolEntry, workspace: str | None) -> tuple[str | None, str | None]:
    """Sandbox and working directory: fixed by what runs the tool. Built-ins run on the host, in an unknown place."""
    if entry.runs == "runner":
        return workspace, "/work"
    if entry.runs == "gateway":
        return "host", None
    return None, None


def _has_nul(canonical: bytes) -> bool:
    return b"\\u0000" in canonical and _NUL.search(canonical) is not None


def _is_own(entry: ToolEntry) -> bool:
    return entry.kind is ToolKind.OWN_TOOL
