"""What an analyser finds out about a call: the effects it would have, each with everything that rules may ask for."""

from __future__ import annotations

from dataclasses import dataclass, field

from safety_wrapper.model import Effect
from sw_classification.symbolic import shown

NO_FLAGS: frozenset[str] = frozenset()


@dataclass(slots=True)
class Fact:
    """One effect of a call with its attributes. Not frozen: thousands are made on the hot path, none is kept.

    ``program`` is the canonical name with its subcommand (``git push``); ``flags`` are canonical long names;
    ``path`` and ``value`` may hold markers (symbolic.py). ``external``: something of ours leaves the tenant.
    ``unresolved``: what is touched is not known, so no rule may say that it is harmless. ``unless_listed``: a plain
    fetch from outside, external unless a GREEN rule names its host and literal path. ``recursive``: everything
    below the path too. ``covered``: the registry's own class stands for this effect.
    """

    kind: str
    resource: str
    value: str
    program: str = ""
    argv: tuple[str, ...] = ()
    flags: frozenset[str] = NO_FLAGS
    path: str | None = None
    host: str | None = None
    port: int | None = None
    method: str | None = None
    recipient: str | None = None
    sql: frozenset[str] = NO_FLAGS
    count: int | None = None
    amount: float | None = None
    channel: str | None = None
    external: bool = False
    unresolved: bool = False
    unless_listed: bool = False
    recursive: bool = False
    covered: bool = False

    def effect(self) -> Effect:
        """The effect as decisions and approvals show it."""
        return Effect(self.kind, self.resource, shown(self.value))


@dataclass(slots=True)
class Findings:
    """All that an analyser has to say. ``opaque`` and ``malformed`` hold the reason, a fixed text, or ``""``."""

    facts: list[Fact] = field(default_factory=list)
    opaque: str = ""
    malformed: str = ""
    text: str = ""

    def make_opaque(self, reason: str) -> None:
        """Say that a part of the call can't be bounded. The first reason is kept: it names the cause."""
        if not self.opaque:
            self.opaque = reason
