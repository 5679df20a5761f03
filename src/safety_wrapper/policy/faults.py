"""What is wrong with a bundle, and where. Shared by the checks; says nothing about any one part."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Final

from safety_wrapper.errors import BundleFormatError

#: Keys and indices from the top of the compiled bundle.
type Place = tuple[str | int, ...]

MAX_FAULTS: Final = 20


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong: where it stands in the compiled bundle, and what."""

    place: Place
    message: str

    def __str__(self) -> str:
        return f"{where(self.place)}: {self.message}"


class BundleShapeError(BundleFormatError):
    """The data is strict canonical JSON but no bundle. ``faults``: at least one, at most MAX_FAULTS."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__(str(faults[0]))
        self.faults = faults


def where(place: Place) -> str:
    """A place as people read it: ``rules[3].when.path``."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return visible(text)[:200] or "bundle"


def visible(text: str) -> str:
    """``text`` with everything that could hide or reorder it shown as an escape."""
    return "".join(c if c == " " or unicodedata.category(c)[0] not in "CZ" else f"\\u{{{ord(c):x}}}" for c in text)
