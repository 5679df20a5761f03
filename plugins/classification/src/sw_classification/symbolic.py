"""Text of which a part is not known: an ordinary string in which a few control characters stand for what is missing.

Commands that carry these characters themselves are refused before any analysis, so a marker in a string is always
ours. Keeping the markers inside plain strings keeps the ordinary case (no marker) at the speed of ordinary strings.
"""

from __future__ import annotations

import re
from typing import Final

#: Any text at all: empty, several words, a path with ``..``.
UNKNOWN: Final = "\x01"
#: What an unquoted ``*`` matches: any file name part, no slash.
STAR: Final = "\x02"
#: What an unquoted ``?`` or ``[…]`` matches: one character of a file name.
ONE: Final = "\x03"
#: Any relative path below, without ``..``.
BELOW: Final = "\x05"
#: One short word: no blank, no slash, no leading dash, nothing that a shell would read as syntax.
TOKEN: Final = "\x06"  # noqa: S105

MARKERS: Final = frozenset({UNKNOWN, STAR, ONE, BELOW, TOKEN})
_MARKER: Final = re.compile("[\x01\x02\x03\x05\x06]")
_GLOB: Final = re.compile("[\x02\x03]")
#: What no command of ours may hold: it would be read as a marker, or it hides text on a terminal.
_ODD: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f]")
_SHOWN: Final = {UNKNOWN: "…", STAR: "*", ONE: "?", BELOW: "**", TOKEN: "…"}


def is_literal(text: str) -> bool:
    """True when the whole text is known."""
    return _MARKER.search(text) is None


def has_glob(text: str) -> bool:
    """True when file names of the moment decide what the text becomes."""
    return _GLOB.search(text) is not None


def has_control(text: str) -> bool:
    """True for text with control characters other than tab and line feed."""
    return _ODD.search(text) is not None


def has_surrogate(text: str) -> bool:
    """True for text that has no UTF-8 form."""
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def literal_head(text: str) -> str:
    """The known part before the first marker."""
    found = _MARKER.search(text)
    return text if found is None else text[: found.start()]


def shown(text: str) -> str:
    """The text as a reader sees it: markers as ``…``, ``*`` and ``?``."""
    if _MARKER.search(text) is None:
        return text
    return _MARKER.sub(lambda match: _SHOWN[match[0]], text)


def name_pattern(component: str) -> re.Pattern[str]:
    """What file names one path component with markers may become. Linear: single-character classes only."""
    parts = []
    for char in component:
        if char in {STAR, UNKNOWN, TOKEN, BELOW}:
            parts.append("[^/]*")
        elif char == ONE:
            parts.append("[^/]")
        else:
            parts.append(re.escape(char))
    return re.compile("".join(parts), re.DOTALL)
