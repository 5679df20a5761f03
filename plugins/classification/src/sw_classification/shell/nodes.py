"""A shell command as a tree of plain values, made from the parser's objects once both parsers agree on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Unit:
    """One text that was parsed as a whole. ``spans``: start of each expansion → (end, letter), from tree-sitter.

    Letters: ``c`` command substitution, ``p`` process substitution, ``e`` ``${…}``, ``a`` arithmetic, ``s`` ``$name``.
    """

    text: str
    spans: dict[int, tuple[int, str]]


@dataclass(slots=True)
class Word:
    """One word as written, from ``start`` in its unit. ``parts`` is filled in when it is first expanded."""

    raw: str
    start: int
    unit: Unit
    parts: Any = None


@dataclass(slots=True)
class Assign:
    """``name=value``, ``name+=value``, ``name[index]=value``, ``name=(…)``."""

    name: str
    index: str | None
    append: bool
    value: Word | None
    elements: tuple[Word, ...] | None = None


@dataclass(slots=True)
class Redirect:
    """``op``: ``<`` ``>`` ``>>`` ``<>`` ``>|`` ``<&`` ``>&`` ``&>`` ``&>>`` ``<<`` ``<<<``.

    ``target`` is a word, or for ``<<`` the body (``expands`` says whether it is expanded).
    """

    op: str
    fd: int | None
    target: Word | None
    expands: bool = True
    tabs: bool = False
    process: Word | None = None


@dataclass(slots=True)
class Simple:
    """A simple command. ``words`` holds name and arguments; a process substitution is a word of its own."""

    assigns: tuple[Assign, ...]
    words: tuple[Word, ...]
    redirects: tuple[Redirect, ...]


@dataclass(slots=True)
class Pipeline:
    """Commands joined by ``|``; each but a lone one runs in a shell of its own."""

    stages: tuple[Node, ...]


@dataclass(slots=True)
class AndOr:
    """``first (&& | ||) next …``; ``rest`` pairs the operator with what it leads to."""

    first: Pipeline
    rest: tuple[tuple[str, Pipeline], ...]
    background: bool = False


@dataclass(slots=True)
class Group:
    """``{ …; }`` or ``( … )`` (``subshell``) or a list as such, with what is redirected for all of it."""

    items: tuple[AndOr, ...]
    subshell: bool = False
    redirects: tuple[Redirect, ...] = ()


@dataclass(slots=True)
class Loop:
    """``for``, ``while``, ``until``, ``select`` and arithmetic ``for``. ``values`` None with a name: ``"$@"``."""

    name: str | None
    values: tuple[Word, ...] | None
    condition: Group | None
    body: Group
    arithmetic: tuple[Word, ...] = ()
    redirects: tuple[Redirect, ...] = ()


@dataclass(slots=True)
class Branch:
    """``if`` and ``case``: of the ``arms`` at most one runs. ``subjects``: words and conditions looked at first."""

    subjects: tuple[Word, ...]
    conditions: tuple[Group, ...]
    arms: tuple[Group, ...]
    exhaustive: bool
    redirects: tuple[Redirect, ...] = ()


@dataclass(slots=True)
class Test:
    """``[[ … ]]`` and ``(( … ))``: words are expanded, nothing else happens. ``assigned``: names they may change."""

    words: tuple[Word, ...]
    arithmetic: bool
    redirects: tuple[Redirect, ...] = ()
    raw: str = ""


@dataclass(slots=True)
class Function:
    """A definition; the body runs where the name is called."""

    name: str
    body: Node


type Node = Simple | Pipeline | AndOr | Group | Loop | Branch | Test | Function


@dataclass(slots=True)
class Tokens:
    """What one parser says about the surface of a unit: where names, words, and here-documents are."""

    names: set[tuple[int, int]] = field(default_factory=set)
    words: set[tuple[int, int]] = field(default_factory=set)
    heredocs: int = 0
