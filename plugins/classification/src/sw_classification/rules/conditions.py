"""One condition of a rule as a function of a fact and its call.

Two readings, chosen when a rule is compiled. ``surely``: for rules of YELLOW_EXTERNAL and below, which say that
something is *not* worse: what is unknown does not fit. ``possibly``: for rules that raise: what may fit, fits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import re2

from safety_wrapper.errors import BundleFormatError
from safety_wrapper.model import ToolCall
from sw_classification.facts import Fact
from sw_classification.paths import PathPattern, PathSet
from sw_classification.symbolic import is_literal, literal_head

type Predicate = Callable[[Fact, ToolCall], bool]

_CONDITIONS: Final = frozenset(
    [
        "effect",
        "tool",
        "kind",
        "program",
        "argv",
        "flags",
        "path",
        "host",
        "port",
        "method",
        "recipient",
        "sql",
        "count",
        "amount",
        "channel",
        "level_below",
        "text",
    ]
)
#: What the compiled patterns of one rule may take; RE2 refuses a pattern that needs more.
RE2_MEMORY: Final = 1 << 20


def compile_when(when: Mapping[str, Any], *, possibly: bool) -> tuple[Predicate, ...]:
    """The conditions of one rule, cheap ones first. Raises BundleFormatError for one that is not known."""
    predicates: list[Predicate] = []
    for name in sorted(when, key=_COST.__getitem__ if when.keys() <= _COST.keys() else _unknown):
        value = when[name]
        operators = dict(value) if isinstance(value, Mapping) else {"is": value}
        predicates.extend(
            _compile_one(name, operator, _as_list(operand), possibly) for operator, operand in operators.items()
        )
    if "path" in when and "host" not in when:
        predicates.insert(0, _no_host)  # a rule on paths alone means files, not the paths of URLs
    return tuple(predicates)


_COST: Final = {
    name: cost
    for cost, name in enumerate(
        [
            *("effect", "tool", "kind", "level_below", "program", "method", "host", "port", "sql", "flags", "channel"),
            *("count", "amount", "recipient", "argv", "path", "text"),
        ]
    )
}


def _unknown(name: str) -> int:
    if name not in _CONDITIONS:
        raise BundleFormatError("a rule has a condition that this version does not know")
    return _COST[name]


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _compile_one(name: str, operator: str, operands: list[Any], possibly: bool) -> Predicate:
    if name == "path":
        return _path(operator, operands, possibly)
    if name in {"host", "recipient"}:
        return _domain(name, operator, [str(o) for o in operands], possibly)
    if name in {"port", "count", "amount"}:
        return _number(name, operator, operands)
    if name == "argv":
        return _argv(operator, [str(o) for o in operands], possibly)
    if name in {"flags", "sql"}:
        return _word_set(name, operator, [str(o) for o in operands])
    if name == "level_below":
        # the level is not known here: a rule that raises holds, one that lowers does not
        return lambda fact, call: possibly
    if name == "text":
        return _text([str(o) for o in operands])
    if name in {"effect", "tool", "kind", "program", "method", "channel"}:
        return _word(name, operator, [str(o) for o in operands], possibly)
    raise BundleFormatError("a rule has a condition that this version does not know")


def _refuse(operator: str) -> BundleFormatError:
    return BundleFormatError(f"a rule has an operator that this version does not know here: {operator[:20]}")


def _word_getter(name: str, possibly: bool) -> Callable[[Fact, ToolCall], str]:
    if name == "effect":
        return lambda fact, call: fact.kind
    if name == "program":
        return lambda fact, call: fact.program
    if name == "method":
        return lambda fact, call: fact.method or ""
    if name == "tool":
        return lambda fact, call: call.tool
    if name == "kind":
        return lambda fact, call: call.kind.value
    if possibly:  # the channel of the context is a claim: it may only raise
        return lambda fact, call: fact.channel or call.context.channel or ""
    return lambda fact, call: fact.channel or ""


def _word(name: str, operator: str, operands: list[str], possibly: bool) -> Predicate:
    get = _word_getter(name, possibly)
    if operator in {"is", "any"}:
        wanted = frozenset(operands)
        if name == "effect":
            return lambda fact, call: fact.kind in wanted
        if name == "program":
            return lambda fact, call: fact.program in wanted
        return lambda fact, call: get(fact, call) in wanted
    if operator == "none":
        unwanted = frozenset(operands)
        return lambda fact, call: get(fact, call) not in unwanted
    if operator == "all":
        return lambda fact, call: all(get(fact, call) == o for o in operands)
    if operator == "prefix":
        heads = tuple(operands)
        return lambda fact, call: get(fact, call).startswith(heads)
    raise _refuse(operator)


def _word_set(name: str, operator: str, operands: list[str]) -> Predicate:
    wanted = frozenset(operands)
    flags = name == "flags"
    if operator in {"is", "any"}:
        return lambda fact, call: not wanted.isdisjoint(fact.flags if flags else fact.sql)
    if operator == "all":
        return lambda fact, call: wanted <= (fact.flags if flags else fact.sql)
    if operator == "none":
        return lambda fact, call: wanted.isdisjoint(fact.flags if flags else fact.sql)
    if operator == "prefix":
        heads = tuple(operands)
        return lambda fact, call: any(word.startswith(heads) for word in (fact.flags if flags else fact.sql))
    raise _refuse(operator)


def _argv(operator: str, operands: list[str], possibly: bool) -> Predicate:
    if operator in {"is", "any"}:
        return lambda fact, call: any(_in_argv(fact.argv, o, possibly) for o in operands)
    if operator == "all":
        return lambda fact, call: all(_in_argv(fact.argv, o, possibly) for o in operands)
    if operator == "none":
        # "surely none" is "not possibly any", and the other way round
        return lambda fact, call: not any(_in_argv(fact.argv, o, not possibly) for o in operands)
    if operator == "prefix":
        heads = tuple(operands)
        return lambda fact, call: any(argument.startswith(heads) for argument in fact.argv)
    raise _refuse(operator)


def _in_argv(argv: tuple[str, ...], wanted: str, possibly: bool) -> bool:
    if wanted in argv:
        return True
    if not possibly:
        return False
    for argument in argv:
        head = literal_head(argument)
        if head and len(head) < len(argument) and wanted.startswith(head):
            return True
    return False


def _path(operator: str, operands: Sequence[Any], possibly: bool) -> Predicate:
    if operator == "prefix":
        heads = tuple(str(o) for o in operands)
        return lambda fact, call: fact.path is not None and fact.path.startswith(heads)
    texts = [str(o) for o in operands]
    if operator in {"under", "not_under"}:
        places = PathSet(texts)
        if operator == "under":
            return lambda fact, call: (
                fact.path is not None and places.holds(fact.path, possibly=possibly, recursive=fact.recursive)
            )
        # "surely not below" is "not possibly below", and the other way round
        return lambda fact, call: (
            fact.path is not None and not places.holds(fact.path, possibly=not possibly, recursive=fact.recursive)
        )
    patterns = tuple(PathPattern(text) for text in texts)
    if operator in {"is", "any"}:
        return lambda fact, call: (
            fact.path is not None
            and any(p.is_it(fact.path, possibly=possibly, recursive=fact.recursive) for p in patterns)
        )
    if operator == "none":
        return lambda fact, call: (
            fact.path is not None
            and not any(p.is_it(fact.path, possibly=not possibly, recursive=fact.recursive) for p in patterns)
        )
    raise _refuse(operator)


def _domain(name: str, operator: str, operands: list[str], possibly: bool) -> Predicate:
    def get(fact: Fact) -> str:
        return (fact.host if name == "host" else fact.recipient) or ""

    if operator in {"is", "any"}:
        wanted = frozenset(operands)
        return lambda fact, call: get(fact) in wanted
    if operator == "none":
        return lambda fact, call: get(fact) not in operands and (possibly or is_literal(get(fact)))
    if operator == "prefix":
        heads = tuple(operands)
        return lambda fact, call: get(fact).startswith(heads)
    if operator == "domain":
        exact = frozenset(operands)
        below = tuple(f".{o}" for o in operands)
        # a subdomain of a recipient's domain may be somebody else's: only a rule that raises takes it in
        deep = name == "host" or possibly

        def holds(fact: Fact, call: ToolCall) -> bool:
            host = get(fact).rpartition("@")[2]
            return host in exact or (deep and host.endswith(below))

        return holds
    raise _refuse(operator)


def _number(name: str, operator: str, operands: list[Any]) -> Predicate:
    def get(fact: Fact) -> float | None:
        return fact.port if name == "port" else fact.count if name == "count" else fact.amount

    if operator in {"is", "any"}:
        return lambda fact, call: get(fact) in operands
    if operator == "none":
        return lambda fact, call: get(fact) is not None and get(fact) not in operands
    if operator == "over":
        limit = max(operands)

        def over(fact: Fact, call: ToolCall) -> bool:
            number = get(fact)
            return number is not None and number > limit

        return over
    raise _refuse(operator)


def _text(patterns: list[str]) -> Predicate:
    options = re2.Options()
    options.max_mem = RE2_MEMORY
    options.log_errors = False
    try:
        compiled = tuple(re2.compile(pattern, options=options) for pattern in patterns)
    except re2.error as exc:
        raise BundleFormatError("a rule's text is no RE2 pattern") from exc

    def found(fact: Fact, call: ToolCall) -> bool:
        return any(pattern.search(fact.value) for pattern in compiled)

    return found


def _no_host(fact: Fact, call: ToolCall) -> bool:
    return fact.host is None
