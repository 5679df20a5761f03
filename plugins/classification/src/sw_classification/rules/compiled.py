"""All rules of a bundle, compiled and indexed.

The index only leaves out rules that can't fit; whether one does is always its own conditions' answer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import re2

from safety_wrapper.errors import BundleFormatError
from safety_wrapper.model import EFFECT_KINDS, SafetyClass, ToolCall
from sw_classification.facts import Fact
from sw_classification.paths import PathPattern, components
from sw_classification.rules.conditions import RE2_MEMORY, Predicate, compile_when
from sw_classification.symbolic import is_literal

_CLASSES: Final = {c.name: c for c in SafetyClass}
#: Conditions that pick by equality, most telling first: a rule stands in the index under the first that it has.
_KEYS: Final = ("program", "tool", "sql", "method", "channel", "host", "path")


@dataclass(frozen=True, slots=True)
class CompiledRule:
    """One rule. It says that an effect is known (``covers``) unless it may only raise."""

    id: str
    safety_class: SafetyClass
    external: bool
    covers: bool
    when: tuple[Predicate, ...]
    escalate: tuple[tuple[SafetyClass, bool, tuple[Predicate, ...]], ...]

    def fits(self, fact: Fact, call: ToolCall) -> bool:
        """Whether every condition holds for this fact."""
        for predicate in self.when:  # noqa: SIM110 - the hot loop: a generator costs twice as much
            if not predicate(fact, call):
                return False
        return True

    def answer(self, fact: Fact, call: ToolCall) -> Match:
        """What a rule that fits says, with its escalations."""
        safety_class, external = self.safety_class, self.external
        for higher, leaves, when in self.escalate:
            if all(predicate(fact, call) for predicate in when):
                safety_class = max(safety_class, higher)
                external = external or leaves
        return Match(self.id, safety_class, external, self.covers)


@dataclass(frozen=True, slots=True)
class Match:
    """One rule's answer for one fact."""

    rule: str
    safety_class: SafetyClass
    external: bool
    covers: bool


class RuleSet:
    """The rules of one bundle. Built once for each bundle digest; O(candidates) for a fact."""

    def __init__(self, rules: Sequence[Mapping[str, Any]]) -> None:
        self._by_key: dict[tuple[str, str, str], list[CompiledRule]] = defaultdict(list)
        self._by_path: dict[str, list[CompiledRule]] = defaultdict(list)
        self._generic: dict[str, list[CompiledRule]] = defaultdict(list)
        self._used: set[tuple[str, str]] = set()
        self._texts: list[CompiledRule] = []
        self._text_set: Any = None
        patterns: list[tuple[int, str]] = []
        for raw in rules:
            rule = _compile(raw)
            if "text" in raw["when"]:
                patterns.extend((len(self._texts), p) for p in _list(raw["when"]["text"]))
                self._texts.append(rule)
            else:
                self._index(rule, raw["when"])
        self._by_path_prefix = _unique_lists(self._by_path)
        self._build_text_set(patterns)

    def matches(self, fact: Fact, call: ToolCall) -> list[Match]:
        """Every rule that fits one fact. Order is that of the index: callers take the strictest."""
        return [rule.answer(fact, call) for rule in self._candidates(fact, call) if rule.fits(fact, call)]

    def text_matches(self, text: str, facts: Sequence[Fact], call: ToolCall) -> list[Match]:
        """Rules with a pattern on raw text. They only raise; their other conditions are asked of each fact."""
        if self._text_set is None:
            return []
        found: list[Match] = []
        for number in sorted({self._text_owner[i] for i in self._text_set.Match(text) or ()}):
            rule = self._texts[number]
            found.extend(rule.answer(fact, call) for fact in facts if rule.fits(fact, call))
        return found

    def _candidates(self, fact: Fact, call: ToolCall) -> Iterator[CompiledRule]:
        kind = fact.kind
        yield from self._generic.get(kind, ())
        by_key = self._by_key
        used = self._used
        if (kind, "program") in used:
            yield from by_key.get((kind, "program", fact.program), ())
        if (kind, "tool") in used:
            yield from by_key.get((kind, "tool", call.tool), ())
        if fact.sql and (kind, "sql") in used:
            yield from _once(by_key.get((kind, "sql", word), ()) for word in sorted(fact.sql))
        if fact.method and (kind, "method") in used:
            yield from by_key.get((kind, "method", fact.method), ())
        if (kind, "channel") in used:
            names = {fact.channel or "", call.context.channel or ""}
            yield from _once(by_key.get((kind, "channel", name), ()) for name in sorted(names))
        if fact.host is not None and (kind, "host") in used:
            yield from _once(by_key.get((kind, "host", name), ()) for name in _suffixes(fact.host))
        if fact.path is not None:
            yield from self._path_candidates(kind, fact)

    def _path_candidates(self, kind: str, fact: Fact) -> Iterable[CompiledRule]:
        path = fact.path or ""
        if (kind, "path") not in self._used:
            return ()
        if fact.recursive or not is_literal(path):
            return self._by_path_prefix.get(kind, ())
        return _once(self._by_key.get((kind, "path", key), ()) for key in _path_keys(path))

    def _index(self, rule: CompiledRule, when: Mapping[str, Any]) -> None:
        kinds = _picked(when.get("effect")) or sorted(EFFECT_KINDS)
        for name in _KEYS:
            keys = _index_keys(name, when.get(name))
            if keys is not None:
                for kind in kinds:
                    self._used.add((kind, name))
                    for key in keys:
                        self._by_key[kind, name, key].append(rule)
                    if name == "path":
                        self._by_path[kind].append(rule)
                return
        for kind in kinds:
            self._generic[kind].append(rule)

    def _build_text_set(self, patterns: list[tuple[int, str]]) -> None:
        self._text_owner: dict[int, int] = {}
        if not patterns:
            return
        options = re2.Options()
        options.max_mem = max(8 << 20, RE2_MEMORY * 4)
        options.log_errors = False
        self._text_set = re2.Set.SearchSet(options)
        for owner, pattern in patterns:
            try:
                self._text_owner[self._text_set.Add(pattern)] = owner
            except re2.error as exc:
                raise BundleFormatError("a rule's text is no RE2 pattern") from exc
        self._text_set.Compile()


def _compile(raw: Mapping[str, Any]) -> CompiledRule:
    try:
        safety_class = _CLASSES[raw["class"]]
        raise_only = bool(raw.get("raise_only")) or "text" in raw["when"]
        # the raw text was matched by the whole set already
        when = {key: value for key, value in raw["when"].items() if key != "text"}
        possibly = raise_only or safety_class >= SafetyClass.RED
        escalate = tuple(
            (_CLASSES[step["class"]], bool(step.get("external")) or step["class"] == "YELLOW_EXTERNAL",
             compile_when(step["when"], possibly=True))
            for step in raw.get("escalate", ())
        )  # fmt: skip
        return CompiledRule(
            id=str(raw["id"]),
            safety_class=safety_class,
            external=bool(raw.get("external")) or safety_class is SafetyClass.YELLOW_EXTERNAL,
            covers=not raise_only,
            when=compile_when(when, possibly=possibly),
            escalate=escalate,
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise BundleFormatError("a rule of the bundle has not the shape of format 1") from exc


def _list(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [str(v) for operand in value.values() for v in _list(operand)]
    return [str(v) for v in value] if isinstance(value, (list, tuple)) else [str(value)]


def _picked(value: Any) -> list[str] | None:
    """The words that a condition picks by equality; None when it has another operator (or is absent)."""
    if value is None:
        return None
    if not isinstance(value, Mapping):
        return _list(value)
    chosen = [_list(value[operator]) for operator in ("is", "any") if operator in value]
    return chosen[0] if chosen else None


def _index_keys(name: str, value: Any) -> list[str] | None:
    if name == "host" and isinstance(value, Mapping) and "domain" in value:
        return _list(value["domain"])
    if name != "path":
        return _picked(value)
    patterns = _picked(value)
    if patterns is None and isinstance(value, Mapping) and "under" in value:
        patterns = _list(value["under"])
    if patterns is None:
        return None
    keys = []
    for text in patterns:
        pattern = PathPattern(text)
        if pattern.literal:
            keys.append(text)
            continue
        # a literal step of a pattern with wildcards must stand somewhere in the path
        literal = [step for step in pattern.steps if "*" not in step and "?" not in step]
        if not literal:
            return None
        keys.append(f"**{literal[-1]}")
    return sorted(set(keys))


def _path_keys(path: str) -> Iterator[str]:
    yield "/"
    at = 0
    for step in components(path):
        at += len(step) + 1
        yield path[:at]
        yield f"**{step}"


def _suffixes(host: str) -> Iterator[str]:
    while host:
        yield host
        host = host.partition(".")[2]


def _once(groups: Iterable[Iterable[CompiledRule]]) -> list[CompiledRule]:
    return list({id(rule): rule for group in groups for rule in group}.values())


def _unique_lists(by: Mapping[str, list[CompiledRule]]) -> dict[str, list[CompiledRule]]:
    return {key: _once([rules]) for key, rules in by.items()}
