"""Paths: made absolute and normalised by their letters alone, and compared with the patterns of rules.

A home folder whose place is not known is written ``/~``. A pattern is an absolute path in which a whole component
may be ``**`` (any folders) and a component may hold ``*`` and ``?``.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from sw_classification.symbolic import BELOW, MARKERS, ONE, STAR, TOKEN, UNKNOWN, is_literal, literal_head, name_pattern

HOME: Final = "/~"
MAX_PATH: Final = 4096
_WILD: Final = re.compile(r"[*?]")


def resolve(path: str, cwd: str | None) -> str:
    """``path`` absolute and normalised: ``..`` by its letters, no doubled or trailing slash. O(length).

    ``cwd`` None = not known: a relative path keeps an UNKNOWN head. Raises nothing; ``""`` names ``cwd`` itself.
    """
    if not path.startswith(("/", UNKNOWN)):
        path = f"{UNKNOWN if cwd is None else cwd}/{path}"
    return normalise(path)


def normalise(path: str) -> str:
    """Normalise a path that is absolute or has an UNKNOWN head. A ``..`` after a marker makes it UNKNOWN again."""
    if "//" not in path and "/." not in path and not path.endswith("/") and path:
        return path
    unknown_head = path.startswith(UNKNOWN)
    kept: list[str] = []
    for step in path.split("/"):
        if step in {"", "."}:
            continue
        if step != "..":
            kept.append(step)
        elif kept and not is_literal(kept[-1]) and kept[-1] not in {STAR, TOKEN}:
            return UNKNOWN  # what the marker stands for may itself be a path, or a link
        elif kept:
            kept.pop()
    text = "/".join(kept)
    return text if unknown_head else f"/{text}"


def is_known(path: str) -> bool:
    """True when the path can't be anywhere else than below its known head."""
    return path.startswith("/") and UNKNOWN not in path


def known_folder(path: str) -> str:
    """The deepest folder that is surely known: of ``/srv/app/*.log`` it is ``/srv/app``."""
    head = literal_head(path)
    return path if head == path else head[: head.rfind("/")] or "/"


@lru_cache(maxsize=8192)
def components(path: str) -> tuple[str, ...]:
    """The steps of a normalised path."""
    return tuple(step for step in path.split("/") if step)


class PathPattern:
    """One path of a rule. ``literal`` when it has no wildcard; then comparing is comparing strings."""

    __slots__ = ("below", "floating", "literal", "steps", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.steps = components(text)
        self.literal = not any(char in text for char in "*?[")
        self.below = "/" if text == "/" else text + "/"
        self.floating = "**" in self.steps

    def is_it(self, path: str, *, possibly: bool, recursive: bool = False) -> bool:
        """Whether ``path`` names this very place; ``possibly``: whether it may."""
        if self.literal and is_literal(path):
            return path == self.text or (possibly and recursive and _above(path, self.text))
        return _compare(path, self.steps, below=False, possibly=possibly, recursive=recursive)

    def holds(self, path: str, *, possibly: bool, recursive: bool = False) -> bool:
        """Whether ``path`` is this place or below it; ``possibly``: whether it may be, or holds it (recursive)."""
        if self.literal and is_literal(path):
            if path == self.text or path.startswith(self.below):
                return True
            return possibly and recursive and _above(path, self.text)
        return _compare(path, self.steps, below=True, possibly=possibly, recursive=recursive)


def _above(path: str, place: str) -> bool:
    return path == "/" or place.startswith(path + "/")


def _compare(path: str, pattern: tuple[str, ...], *, below: bool, possibly: bool, recursive: bool) -> bool:
    if not path.startswith("/") and not path.startswith(UNKNOWN):
        return False
    steps = components(path)
    if not possibly:
        return _surely(steps, pattern, below=below)
    if path.startswith(UNKNOWN) and all(_only_markers(step) for step in steps):
        return False  # wholly unknown: that is judged as such, not as everything at once
    return _maybe(steps, pattern, below, recursive)


def _only_markers(step: str) -> bool:
    return all(char in MARKERS for char in step)


def _surely(steps: tuple[str, ...], pattern: tuple[str, ...], *, below: bool) -> bool:
    if not pattern:
        return (below or not steps) and not any(UNKNOWN in step for step in steps)
    if pattern[0] == "**":
        return any(_surely(steps[i:], pattern[1:], below=below) for i in range(len(steps) + 1))
    if not steps or not is_literal(steps[0]):
        return False
    return _like(pattern[0]).fullmatch(steps[0]) is not None and _surely(steps[1:], pattern[1:], below=below)


@lru_cache(maxsize=8192)
def _maybe(
    steps: tuple[str, ...],
    pattern: tuple[str, ...],
    below: bool,
    recursive: bool,
    floats: bool = False,  # noqa: FBT002
    known: bool = False,  # noqa: FBT002
) -> bool:
    """``floats``: a ``**`` or an unknown part came just before; ``known``: a literal step has matched already."""
    if not pattern:
        return below or all(_only_markers(step) for step in steps)
    if pattern[0] == "**":
        return any(_maybe(steps[i:], pattern[1:], below, recursive, True, known) for i in range(len(steps) + 1))
    if not steps:
        return recursive and not floats and "**" not in pattern
    step, rest = steps[0], steps[1:]
    if UNKNOWN in step or BELOW in step:
        if floats and not rest:
            return False
        if not _heads_fit(literal_head(step), _WILD.split(pattern[0], maxsplit=1)[0]):
            return False
        # any number of folders; an unknown head alone is not everything at once
        most = len(pattern) if known else len(pattern) - 1
        return any(_maybe(rest, pattern[i:], below, recursive, True, known) for i in range(most + 1))
    if not _step_may(step, pattern[0], floats=floats):
        return False
    return _maybe(rest, pattern[1:], below, recursive, False, True)


def _step_may(step: str, head: str, *, floats: bool) -> bool:
    """Whether a component of a path may become one that fits a component of a pattern."""
    if is_literal(step):
        return _like(head).fullmatch(step) is not None
    if floats and not any(char not in MARKERS for char in step):
        return False  # a bare ``*`` anywhere would fit every name of every rule
    if "*" in head or "?" in head:
        return _heads_fit(literal_head(step), _WILD.split(head, maxsplit=1)[0])
    if step[0] in {STAR, ONE} and head.startswith("."):
        return False  # a glob does not match a leading dot
    return name_pattern(step).fullmatch(head) is not None


def _heads_fit(left: str, right: str) -> bool:
    return left.startswith(right) or right.startswith(left)


@lru_cache(maxsize=4096)
def _like(component: str) -> re.Pattern[str]:
    if "[" in component:
        component = component.replace("[", "[[]")
    return re.compile(fnmatch.translate(component))


class PathSet:
    """Several patterns asked at once. For a path that is known, the plain ones cost one look-up for each folder above
    it, however many they are; a property test holds this against asking each by itself."""

    __slots__ = ("_above", "_all", "_literal", "_names", "_others", "_wild")

    def __init__(self, texts: Iterable[str]) -> None:
        self._all = tuple(PathPattern(text) for text in texts)
        self._literal = frozenset(p.text for p in self._all if p.literal)
        self._above = frozenset(above for text in self._literal for above in _ancestors(text)[1:])
        named = [p for p in self._all if len(p.steps) == 2 and p.steps[0] == "**" and not _WILD.search(p.steps[1])]
        self._names = frozenset(p.steps[1] for p in named if "[" not in p.steps[1])
        plain = {p.text for p in named if "[" not in p.steps[1]} | self._literal
        self._others = tuple(p for p in self._all if p.text not in plain)
        self._wild = re.compile("|".join(_regex(p) for p in self._others)) if self._others else None

    def holds(self, path: str, *, possibly: bool, recursive: bool) -> bool:
        """Whether one of the patterns holds the path, as PathPattern.holds says."""
        if not is_literal(path) or not path.startswith("/"):
            return any(p.holds(path, possibly=possibly, recursive=recursive) for p in self._all)
        if possibly and recursive and path in self._above:
            return True
        literal, names = self._literal, self._names
        if literal and not literal.isdisjoint(_ancestors(path)):
            return True
        if names and not names.isdisjoint(path.split("/")):
            return True
        if path == "/" or (possibly and recursive):
            return any(p.holds(path, possibly=possibly, recursive=recursive) for p in self._others)
        return self._wild is not None and self._wild.fullmatch(path) is not None


def _regex(pattern: PathPattern) -> str:
    """What a known path must look like to be this place or below it. Steps can't run into each other: each ends at a
    slash, so that no path makes the search slow."""
    parts: list[str] = []
    for step in pattern.steps:
        if step == "**":
            parts.append("(?:/[^/]+)*?")
        else:
            parts.append("/" + "".join("[^/]*" if c == "*" else "[^/]" if c == "?" else re.escape(c) for c in step))
    return "".join(parts) + "(?:/.*)?"


@lru_cache(maxsize=4096)
def _ancestors(path: str) -> tuple[str, ...]:
    """The path itself and every folder above it, up to the root."""
    found = [path]
    while path != "/":
        path = path[: path.rfind("/")] or "/"
        found.append(path)
    return tuple(found)
