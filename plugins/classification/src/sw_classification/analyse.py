"""Which analyser looks at a call: chosen by kind, by what runs the tool, and by its name, never by the name alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from safety_wrapper.model import ToolCall, ToolKind
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification import files, structured, web
from sw_classification.facts import Findings
from sw_classification.shell import analyse_shell
from sw_classification.symbolic import has_surrogate

type Analyser = Callable[[ToolCall, ToolEntry, Policy, Findings], None]

_OWN, _BUILTIN = ToolKind.OWN_TOOL, ToolKind.BUILTIN
_ANALYSERS: Final[dict[tuple[ToolKind, str, str], Analyser]] = {
    (_OWN, "runner", "exec"): analyse_shell,
    (_OWN, "runner", "read"): files.analyse_read,
    (_OWN, "runner", "write"): files.analyse_write,
    (_OWN, "runner", "edit"): files.analyse_write,
    (_OWN, "runner", "list"): files.analyse_list,
    (_OWN, "adapter", "http.request"): web.analyse_request,
    (_BUILTIN, "gateway", "exec"): analyse_shell,
    (_BUILTIN, "gateway", "read"): files.analyse_read,
    (_BUILTIN, "gateway", "write"): files.analyse_write,
    (_BUILTIN, "gateway", "edit"): files.analyse_write,
}


def analyse(call: ToolCall, entry: ToolEntry, policy: Policy) -> Findings:
    """The facts of a call. A value of a wrong type, with a NUL or a lone surrogate is malformed."""
    findings = Findings()
    fault = _unreadable(call.params)
    if fault:
        findings.malformed = fault
        return findings
    analyser = _ANALYSERS.get((call.kind, entry.runs, call.tool), structured.analyse_templates)
    analyser(call, entry, policy, findings)
    return findings


def _unreadable(value: object, depth: int = 64) -> str:
    if type(value) is str:
        if "\x00" in value:
            return "its parameters hold a NUL character"
        return "its parameters hold a lone surrogate" if has_surrogate(value) else ""
    if depth <= 0:
        return "its parameters are nested too deeply"
    if isinstance(value, dict):
        for key, item in value.items():
            fault = _unreadable(key, 1) or _unreadable(item, depth - 1)
            if fault:
                return fault
    elif isinstance(value, (list, tuple)):
        for item in value:
            fault = _unreadable(item, depth - 1)
            if fault:
                return fault
    return ""
