"""YAML has one reading here: what two parsers could read differently is refused, with its line."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.cli.policy_yaml import MAX_DEPTH, MAX_FILE_BYTES, YamlRefusedError, parse_yaml


def value_of(text: str) -> Any:
    return parse_yaml(text.encode()).value


READ: list[tuple[str, Any]] = [
    ("a: 1", {"a": 1}),
    ("a: -1\nb: 0\nc: 1.5\nd: -0.25e-3", {"a": -1, "b": 0, "c": 1.5, "d": -0.00025}),
    ("a: true\nb: false\nc: null\nd: ~\ne:", {"a": True, "b": False, "c": None, "d": None, "e": None}),
    ("- 'yes'\n- \"no\"\n- 'true'\n- '0755'\n- '1'", ["yes", "no", "true", "0755", "1"]),
    ("'yes': 1\n'1': 2", {"yes": 1, "1": 2}),
    ("[a, -y, --no, /srv, ./x, .., 10.0.0.1, 1.2.3, 2027-01-01, a:b, GET]",
     ["a", "-y", "--no", "/srv", "./x", "..", "10.0.0.1", "1.2.3", "2027-01-01", "a:b", "GET"]),
    ("a: |\n  one\n  two\n", {"a": "one\ntwo\n"}),
    ("a: >-\n  one\n  two\n", {"a": "one two"}),
    ('a: "\\u202e\\x1b\\0"', {"a": "\u202e\x1b\0"}),
    ("a: grüße", {"a": "grüße"}),
    ("---\na: 1\n...\n", {"a": 1}),
    ("a: 1 # yes\n", {"a": 1}),
    ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ("just text", "just text"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "value"), READ, ids=range(len(READ)))
def test_what_has_one_reading_is_read(text: str, value: Any) -> None:
    assert value_of(text) == value


AMBIGUOUS = [
    "y", "Y", "n", "N", "yes", "Yes", "YES", "no", "No", "NO",
    "on", "On", "off", "OFF", "True", "TRUE", "False", "Null", "NULL", "<<",
    "=", "0755", "0o17", "0x1F", "0b11", "1_000", "+1", "1:30", "12:30:45", "1e3",
    "1E+3", ".5", "5.", "+.5", ".inf", "-.INF", ".nan", "010",
]  # fmt: skip


@pytest.mark.parametrize("word", AMBIGUOUS)
def test_what_parsers_read_differently_must_be_quoted(word: str) -> None:
    for text in (f"a: {word}", f"- {word}", f"[{word}]", f"{word}: 1"):
        with pytest.raises(YamlRefusedError, match="quote it"):
            value_of(text)
    assert value_of(f"a: '{word}'") == {"a": word}
    assert value_of(f"'{word}': 1") == {word: 1}


REFUSED: list[tuple[str, int]] = [
    ("", 1),
    ("# nothing\n", 1),
    ("a: 1\nb: &x 2", 2),
    ("&x a: 1", 1),
    ("a: &x [1]\nb: *x", 1),
    ("a: *x", 1),
    ("*x : 1", 1),
    ("a: !!str 1", 1),
    ("a: !x 1", 1),
    ("a: ! 1", 1),
    ("a: !!python/object/apply:os.system ['id']", 1),
    ("!!set {a}", 1),
    ("a: 1\n<<: {b: 2}", 2),
    ("a: 1\nb: 2\na: 3", 3),
    ("a: {b: 1,\n b: 2}", 2),
    ("? [a]\n: 1", 1),
    ("? {a: 1}\n: 1", 1),
    ("1: a", 1),
    ("true: a", 1),
    ("~: a", 1),
    ("%YAML 1.1\n---\na: 1", 2),
    ("%TAG ! tag:x,2000:\n---\na: 1", 2),
    ("a: 1\n---\nb: 1", 2),
    ("a: 1\n--- 5", 2),
    ("a:\n\t- b", 2),
    ("a: [", 1),
    ("a: }", 1),
    ("a: 'x", 1),
    ("a: 1\nb: x\u202ey", 2),
    ("a: x\u200by", 1),
    ("\ufeffa: 1", 1),
    ("a: x\x1by", 1),
    ("a: x\x00y", 1),
    ("a: x\u2028b", 1),
    ("a: 9007199254740992", 1),
    ("a: 1" + "0" * 400, 1),
    ("a: 1.0e999", 1),
]


@pytest.mark.parametrize(("text", "line"), REFUSED, ids=range(len(REFUSED)))
def test_what_expands_guesses_or_hides_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(YamlRefusedError) as caught:
        value_of(text)
    assert abs(caught.value.line - line) <= 1
    assert caught.value.message.isprintable()


def test_depth_is_bounded() -> None:
    assert value_of("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    for depth in (MAX_DEPTH + 1, 500, 100_000):
        with pytest.raises(YamlRefusedError):
            value_of("[" * depth + "]" * depth)


def test_size_is_bounded() -> None:
    assert len(value_of("'" + "x" * (MAX_FILE_BYTES - 2) + "'")) == MAX_FILE_BYTES - 2
    with pytest.raises(YamlRefusedError, match="1 MiB"):
        value_of("'" + "x" * (MAX_FILE_BYTES - 1) + "'")


def test_not_utf8_is_refused() -> None:
    with pytest.raises(YamlRefusedError) as caught:
        parse_yaml(b"a: 1\nb: \xff")
    assert caught.value.line == 2
    with pytest.raises(YamlRefusedError):
        parse_yaml("a: 1".encode("utf-16"))


def test_every_part_knows_its_line() -> None:
    document = parse_yaml(b"a: 1\nb:\n  - x\n  - {c: 1,\n     d: 2}\n")
    assert {path: line for path, line in document.lines.items() if path} == {
        ("a",): 1,
        ("b",): 2,
        ("b", 0): 3,
        ("b", 1): 4,
        ("b", 1, "c"): 4,
        ("b", 1, "d"): 5,
    }


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.text(st.characters(codec="ascii"), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcdefg01.", max_size=5), inner, max_size=4),
    max_leaves=10,
)


@settings(max_examples=150)
@given(_json)
def test_json_is_yaml_with_the_same_meaning(value: Any) -> None:
    assert value_of(json.dumps(value)) == value


@settings(max_examples=300)
@given(st.text(st.sampled_from("a1:-[]{},&*!|>'\"%@`?#~<=. \n\tyes\ufeff\u202eé"), max_size=40))
def test_nothing_else_is_ever_raised(text: str) -> None:
    try:
        parse_yaml(text.encode())
    except YamlRefusedError as exc:
        line = exc.line
    else:
        line = 1
    assert 1 <= line <= text.count("\n") + 2
