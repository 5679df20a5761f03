"""Tools that touch one file: read, write, edit, list. The path is judged by its letters; links are the runner's."""

from __future__ import annotations

import unicodedata
from typing import Final

from safety_wrapper.model import ToolCall
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification.facts import NO_FLAGS, Fact, Findings
from sw_classification.paths import HOME, MAX_PATH, is_known, resolve
from sw_classification.symbolic import MARKERS, has_control

_METADATA: Final = frozenset({"metadata"})
#: The gateway's built-ins take these names for the same thing.
_PATH_NAMES: Final = ("path", "file_path", "file")


def analyse_read(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """One file is read."""
    _one_path(call, findings, "read", NO_FLAGS, default=None)


def analyse_write(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """One file is written, or a part of it replaced."""
    _one_path(call, findings, "write", NO_FLAGS, default=None)


def analyse_list(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """Names in a folder are read, not contents."""
    _one_path(call, findings, "read", _METADATA, default=".")


def path_fact(kind: str, path: str, *, flags: frozenset[str] = NO_FLAGS, program: str = "") -> Fact:
    """The fact for one effect on a resolved path."""
    return Fact(kind, "path", display(path), program=program, flags=flags, path=path, unresolved=not is_known(path))


def display(path: str) -> str:
    """A resolved path as people write it: the home folder as ``~``."""
    return path[1:] if path == HOME or path.startswith(HOME + "/") else path


def odd_path(path: str) -> str:
    """Why a path is not one that can be judged by its letters, or ``""``."""
    if len(path) > MAX_PATH:
        return "the path is longer than a path can be"
    if any(char in MARKERS for char in path) or has_control(path) or "\n" in path or "\t" in path:
        return "the path holds control characters"
    if not path.isascii():
        if any(unicodedata.category(char) in {"Cf", "Co", "Cn", "Zl", "Zp"} for char in path):
            return "the path holds characters that can't be seen"
        if unicodedata.normalize("NFKC", path).replace("…", "") != unicodedata.normalize("NFC", path).replace("…", ""):
            return "the path holds characters that look like others"
    return ""


def _one_path(call: ToolCall, findings: Findings, kind: str, flags: frozenset[str], *, default: str | None) -> None:
    path = next((call.params[name] for name in _PATH_NAMES if name in call.params), default)
    if type(path) is not str or path == "":
        findings.malformed = "it names no path"
        return
    if (path == "~" or path.startswith("~/")) and call.binding.sandbox in {None, "host"}:
        path = HOME + path[1:]  # the gateway's own file tools expand it
    fault = odd_path(path)
    if fault:
        findings.make_opaque(fault)
        findings.facts.append(Fact(kind, "path", path, path=None, flags=flags, unresolved=True))
        return
    resolved = resolve(path, call.binding.cwd)
    if not is_known(resolved):
        findings.make_opaque("the path is relative to a folder that is not known")
    findings.facts.append(path_fact(kind, resolved, flags=flags))
