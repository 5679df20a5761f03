"""Shell: from a command's text to the effects that it would have.

``parse`` two readings that must agree · ``words`` quoting and expansion · ``walk`` follows control flow, ``cd`` and
variables · ``wrappers`` unwraps sudo, env, xargs, find, sh -c … · ``programs`` what each known program does. A program
that is not known, and a text that can't be bounded, are said to be so.
"""

from __future__ import annotations

from safety_wrapper.model import ToolCall
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification.facts import Findings
from sw_classification.paths import HOME
from sw_classification.shell.walk import Walker
from sw_classification.symbolic import has_control


def analyse_shell(call: ToolCall, entry: ToolEntry, policy: Policy, findings: Findings) -> None:
    """``exec``: one text for /bin/bash."""
    command = call.params.get("command")
    if type(command) is not str:
        findings.malformed = "it names no command"
        return
    findings.text = command
    if has_control(command.replace("\r\n", "\n")):
        findings.make_opaque("the command holds control characters")
        return
    boxed = call.binding.sandbox not in {None, "host"}
    home = "/work" if boxed else HOME
    Walker(findings, policy, cwd=call.binding.cwd, home=home).program(command)
