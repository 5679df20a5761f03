"""The plugin: one pure function of call and policy, and the block for what is no call at all."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, Final

from safety_wrapper.errors import ClassifyError
from safety_wrapper.hookspecs import hookimpl
from safety_wrapper.model import (
    SW_MALFORMED,
    SW_UNLISTED,
    Classification,
    Objection,
    Outcome,
    SafetyClass,
    ToolCall,
    ToolKind,
)
from safety_wrapper.policy import Bundle, Policy, ToolEntry
from sw_classification.analyse import analyse
from sw_classification.rules import RuleSet
from sw_classification.verdict import judge

#: How many bundles' compiled rules are kept: the one in force, a candidate, and their predecessors.
KEPT_BUNDLES: Final = 4
_BLOCKING: Final = frozenset({SW_MALFORMED, SW_UNLISTED})


class Classifier:
    """Judges tool calls. Holds nothing but compiled rules, by the digest of the bundle that they came from."""

    def __init__(self) -> None:
        self._compiled: OrderedDict[str, RuleSet] = OrderedDict()

    @hookimpl
    def classify_tool_call(self, call: ToolCall, policy: Policy) -> Classification:
        """Class, effects and rules of one call. Raises BundleFormatError for rules that can't be compiled."""
        entry = _entry(call, policy.bundle)
        if entry is None:
            return Classification(
                SafetyClass.CRITICAL_RED, rules=(SW_UNLISTED,), reason="the tool is not listed", opaque=True
            )
        return judge(call, entry, analyse(call, entry, policy), self.rules_of(policy.bundle), policy)

    @hookimpl
    def before_tool_call(self, call: ToolCall, classification: Classification) -> Objection | None:
        """A call that can't be read, or whose tool is not listed, is blocked at every level."""
        for rule in classification.rules:
            if rule in _BLOCKING:
                return Objection(Outcome.BLOCK, rule, classification.reason)
        return None

    def rules_of(self, bundle: Bundle) -> RuleSet:
        """The compiled rules of a bundle, compiled at most once while they are in use."""
        found = self._compiled.get(bundle.sha256)
        if found is None:
            found = self._compiled[bundle.sha256] = RuleSet(bundle.rules)
            while len(self._compiled) > KEPT_BUNDLES:
                self._compiled.popitem(last=False)
        return found


def plugin(settings: dict[str, Any]) -> Classifier:
    """The factory behind the entry point. It knows no settings: policy is signed, not configured."""
    if settings:
        raise ClassifyError("the classification plugin takes no settings")
    return Classifier()


def _entry(call: ToolCall, bundle: Bundle) -> ToolEntry | None:
    """The registry entry of a call, compared exactly."""
    key = call.tool if call.kind is ToolKind.OWN_TOOL else f"{call.kind.value}:{call.tool}"
    entry = bundle.tools.get(key)
    return entry if entry is not None and entry.kind is call.kind else None
