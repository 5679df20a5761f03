"""Options and operands of a command line, as far as a table needs them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sw_classification.shell.walk import Walker

type Program = Callable[["Walker", list[str], bool], None]


@dataclass(frozen=True, slots=True)
class Arguments:
    """``options``: as written, bundled short ones taken apart (``-rf`` = ``-r -f``), ``--x=y`` as ``--x``;
    ``values``: (option, value); ``operands``: the rest."""

    options: frozenset[str]
    values: tuple[tuple[str, str], ...]
    operands: tuple[str, ...]

    def has(self, *names: str) -> bool:
        """Whether one of the options is there; long ones also when abbreviated."""
        for option in self.options:
            if option in names:
                return True
            if option.startswith("--") and len(option) > 3 and any(n.startswith(option) for n in names):
                return True
        return False

    def value(self, *names: str) -> str | None:
        """The last value of one of the options."""
        found = [value for option, value in self.values if option in names]
        return found[-1] if found else None


def read(argv: list[str], with_value: Iterable[str] = ()) -> Arguments:
    """Take arguments apart. ``with_value``: options that take the next word (``-n``, ``--lines``)."""
    takes = frozenset(with_value)
    options: set[str] = set()
    values: list[tuple[str, str]] = []
    operands: list[str] = []
    words = iter(argv[1:])
    for word in words:
        if word == "--":
            operands.extend(words)
        elif word.startswith("--"):
            name, equals, value = word.partition("=")
            options.add(name)
            if equals:
                values.append((name, value))
            elif name in takes:
                values.append((name, next(words, "")))
        elif word.startswith("-") and len(word) > 1:
            for position, letter in enumerate(word[1:], 2):
                option = f"-{letter}"
                options.add(option)
                if option in takes:
                    rest = word[position:]
                    values.append((option, rest or next(words, "")))
                    break
        else:
            operands.append(word)
    return Arguments(frozenset(options), tuple(values), tuple(operands))
