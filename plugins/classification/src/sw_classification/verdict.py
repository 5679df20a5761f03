"""From facts and rules to one Classification: the strictest answer, every rule that fits, a sentence from templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from safety_wrapper.decide import effective_class
from safety_wrapper.model import SW_MALFORMED, Classification, Effect, SafetyClass, ToolCall
from safety_wrapper.policy import Policy, ToolEntry
from sw_classification.facts import Fact, Findings
from sw_classification.rules import Match, RuleSet
from sw_classification.symbolic import shown

_SLOT: Final = re.compile(r"\{([a-z]+)\}")
MAX_SLOT: Final = 80
MAX_EFFECTS: Final = 200
#: Resources whose value fills the slot of their own name in a template.
_OWN_SLOT: Final = frozenset({"tool", "program", "method", "count", "amount"})


def malformed(reason: str) -> Classification:
    """The answer for a call that can't be read at all. The plugin's objection makes it a block."""
    return Classification(SafetyClass.CRITICAL_RED, rules=(SW_MALFORMED,), reason=reason, opaque=True)


def judge(call: ToolCall, entry: ToolEntry, findings: Findings, rules: RuleSet, policy: Policy) -> Classification:
    """Combine all facts. O(facts × candidate rules)."""
    if findings.malformed:
        return malformed(findings.malformed)
    safety_class, external = entry.base_class, entry.base_external
    fired: dict[str, None] = {}
    worst: tuple[SafetyClass, str, Fact] | None = None
    uncovered: Fact | None = None
    for fact in findings.facts:
        matches = rules.matches(fact, call)
        if matches:
            best = matches[0]
            for match in matches:
                fired[match.rule] = None
                external = external or match.external
                if (-match.safety_class, match.rule) < (-best.safety_class, best.rule):
                    best = match
            if worst is None or (-best.safety_class, best.rule) < (-worst[0], worst[1]):
                worst = (best.safety_class, best.rule, fact)
        if fact.unresolved or not (fact.covered or any(match.covers for match in matches)):
            uncovered = uncovered or fact
        if fact.external or (fact.unless_listed and not _listed(matches)):
            external = True
    for match in rules.text_matches(findings.text, findings.facts or [_NOTHING], call):
        fired[match.rule] = None
        external = external or match.external
        if worst is None or match.safety_class > worst[0]:
            worst = (match.safety_class, match.rule, findings.facts[0] if findings.facts else _NOTHING)
    reason = instead = ""
    if worst is not None and worst[0] >= safety_class:
        safety_class = worst[0]
        reason, instead = _sentence(policy.bundle.templates, worst[1], worst[2], call)
    if uncovered is not None and safety_class < SafetyClass.RED:
        safety_class, instead = SafetyClass.RED, ""
        reason = f"no rule says that this is harmless: {_described(uncovered)}"
    if findings.opaque:
        floor = SafetyClass.CRITICAL_RED if call.binding.sandbox in {None, "host"} else SafetyClass.RED
        if floor > safety_class:
            safety_class, reason, instead = floor, findings.opaque, ""
    final = effective_class(safety_class, external=external)
    return Classification(
        final, external, _effects(findings.facts), tuple(sorted(fired)), reason, instead, bool(findings.opaque)
    )


_NOTHING: Final = Fact("execute", "process", "")


def _listed(matches: Iterable[Match]) -> bool:
    return any(match.covers and match.safety_class is SafetyClass.GREEN for match in matches)


def _effects(facts: list[Fact]) -> tuple[Effect, ...]:
    """Each effect once, in a fixed order; the strictly bounded list is for people, the class is not made from it."""
    unique = {(f.kind, f.resource, shown(f.value)): None for f in facts}
    ordered = sorted(unique) if len(unique) > 1 else unique
    return tuple(Effect(*key) for key in list(ordered)[:MAX_EFFECTS])


def _sentence(templates: Mapping[str, Any], rule: str, fact: Fact, call: ToolCall) -> tuple[str, str]:
    template = templates.get(rule) or {}
    return _fill(str(template.get("reason", "")), fact, call), _fill(str(template.get("instead", "")), fact, call)


def _fill(text: str, fact: Fact, call: ToolCall) -> str:
    if "{" not in text:
        return text
    return _SLOT.sub(lambda slot: _slot(slot[1], fact, call), text)


def _slot(name: str, fact: Fact, call: ToolCall) -> str:
    if name == "tool":
        value = call.tool
    elif name == "program":
        value = fact.program
    elif name in _OWN_SLOT:
        value = str(getattr(fact, name) or "")
    elif name == "host":
        value = fact.host or fact.value
    else:
        value = fact.value
    return escaped(value)


def escaped(value: str) -> str:
    """A value of the call as a reason may show it: one line, visible, at most 80 characters."""
    text = shown(value)[: MAX_SLOT + 1]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else f"\\u{{{ord(c):x}}}" for c in text)
    return text if len(text) <= MAX_SLOT else text[: MAX_SLOT - 1] + "…"


def _described(fact: Fact) -> str:
    return f"{fact.kind} {fact.resource} {escaped(fact.value)}"
