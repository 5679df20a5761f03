"""Text of strangers on a terminal: what a call carries must not move the cursor, hide itself or pass for another.

``exact`` is for what an owner decides on (recipient, host, amount, path, parameters): one to one, so that two
different values never look the same. ``prose`` is for sentences: it stops what controls a terminal, hides or turns
the direction of text, and leaves other letters alone.
"""

from __future__ import annotations

import unicodedata
from typing import Final

_SHORT: Final = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\\": "\\\\"}
#: Strong right-to-left letters reorder what stands beside them, even without a control character.
_TURNS: Final = frozenset({"R", "AL", "AN"})


def exact(text: str) -> str:
    """``text`` so that it reads in one way only: printable ASCII stays, all else is ``\\u{…}``, a backslash doubled.

    Different texts give different results; a Cyrillic or full-width look-alike can't pass for a Latin letter. O(len).
    """
    if _harmless(text) and "\\" not in text:
        return text
    return "".join(char if _harmless(char) and char != "\\" else _escaped(char) for char in text)


def prose(text: str) -> str:
    """``text`` on one line and without power over the terminal: controls, invisible and direction-turning characters
    are escaped. O(len)."""
    if _harmless(text):
        return text
    return "".join(_escaped(char) if _unseen(char) else char for char in text)


def _harmless(text: str) -> bool:
    return text.isascii() and text.isprintable()


def _unseen(char: str) -> bool:
    if char == " ":
        return False
    category = unicodedata.category(char)
    return category[0] in "CZ" or category == "Me" or unicodedata.bidirectional(char) in _TURNS


def _escaped(char: str) -> str:
    return _SHORT.get(char) or f"\\u{{{ord(char):x}}}"
