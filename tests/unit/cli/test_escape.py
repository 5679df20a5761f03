"""No text of a stranger controls the terminal or passes for another."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.cli.escape import exact, prose

ESCAPE = re.compile(r"\\u\{([0-9a-f]+)\}|\\(.)")
NAMED = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}


def decoded(shown: str) -> str:
    return ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else NAMED[m[2]], shown)


@given(st.text())
def test_exact_can_be_undone_so_no_two_values_look_the_same(text: str) -> None:
    assert decoded(exact(text)) == text


@given(st.text())
def test_exact_is_printable_ascii(text: str) -> None:
    shown = exact(text)
    assert shown.isascii()
    assert shown.isprintable()


@given(st.text())
def test_prose_is_one_line_without_controls_or_direction(text: str) -> None:
    for char in prose(text):
        assert char == " " or unicodedata.category(char)[0] not in "CZ"
        assert unicodedata.bidirectional(char) not in {"R", "AL", "RLO", "LRO", "RLE", "LRE", "RLI", "LRI", "FSI"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jo@example.com", "jo@example.com"),
        ("p\u0430ypal.com", r"p\u{430}ypal.com"),
        ("\x1b[2Jhidden", r"\u{1b}[2Jhidden"),
        ("a\u202eb", r"a\u{202e}b"),
        ("C:\\x", r"C:\\x"),
        ("two\nlines", r"two\nlines"),
    ],
)
def test_exact(text: str, shown: str) -> None:
    assert exact(text) == shown


def test_prose_leaves_letters_alone() -> None:
    assert prose("Größe, 東京, Москва") == "Größe, 東京, Москва"
    assert prose("a\u202eb\x1b") == r"a\u{202e}b\u{1b}"
