"""The compiled encoder and parser against slower ones that are right by construction."""

import contextlib
import json
import math

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import examples, fast_values, json_values
from safety_wrapper.canonical import canonical_json, library_json, parse_strict
from safety_wrapper.errors import CanonicalError


@settings(max_examples=examples(400))
@given(fast_values)
def test_fast_form_equals_the_library(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@settings(max_examples=examples(400))
@given(json_values)
def test_every_value_equals_the_library(value):
    assert canonical_json(value) == rfc8785.dumps(value)


@settings(max_examples=examples(300))
@given(json_values)
def test_canonical_form_is_a_fixed_point(value):
    once = canonical_json(value)
    assert canonical_json(parse_strict(once)) == once


@settings(max_examples=examples(200))
@given(st.text(max_size=40), st.integers(0, 0x10FFFF))
def test_every_character_is_written_as_the_library_writes_it(text, point):
    value = [text, chr(point) if not 0xD800 <= point <= 0xDFFF else ""]
    assert canonical_json(value) == library_json(value)


def writable(number):
    """True for a double that is finite and not written as an integer of 2^53 or more."""
    return math.isfinite(number) and not 2**53 <= abs(number) < 1e21


@settings(max_examples=examples(200))
@given(st.floats())
def test_every_double_is_written_as_the_library_writes_it_or_refused(number):
    if writable(number):
        assert canonical_json([number]) == rfc8785.dumps([number])
    else:
        with pytest.raises(CanonicalError):
            canonical_json([number])


class DoubledError(Exception):
    pass


def slow_parse(text: str):
    """The standard library's parser with every refusal written out."""

    def pairs(found):
        if len({key for key, _ in found}) != len(found):
            raise DoubledError
        return dict(found)

    def refuse(_text):
        raise ValueError

    value = json.loads(text, object_pairs_hook=pairs, parse_constant=refuse)
    check(value, 64)
    return value


def check(value, depth):
    if isinstance(value, dict | list):
        if depth == 0:
            raise ValueError
        for item in value.values() if isinstance(value, dict) else value:
            check(item, depth - 1)
        for key in value if isinstance(value, dict) else ():
            key.encode()
    elif isinstance(value, str):
        value.encode()
    elif (type(value) is int and abs(value) >= 2**53) or (type(value) is float and not writable(value)):
        raise ValueError


def pieces():
    """Texts near JSON: its tokens in any order, with doubled keys, escapes and numbers at the edges."""
    tokens = [
        '{', '}', '[', ']', ',', ':', '"a"', '"a"', '"\\u0061"', '"b"', '"\\n"', '""', '"\u00e9"', '"\\ud800"',
        '1', '-0', '1.5', '1e400', '9007199254740992', '9007199254740991', 'null', 'true', 'NaN', ' ', '\\', '"',
    ]  # fmt: skip
    return st.lists(st.sampled_from(tokens), max_size=14).map("".join)


def objects():
    """Objects written by hand, so that keys may stand there twice."""
    key = st.sampled_from(['"a"', '"\\u0061"', '"b"', '"c\\n"', '"\u00e9"'])
    inner = st.recursive(
        st.sampled_from(["1", '"x"', '"\\""', "1.5", "[]"]),
        lambda v: st.lists(st.tuples(key, v), max_size=3).map(lambda p: "{" + ",".join(f"{k}:{x}" for k, x in p) + "}"),
        max_leaves=8,
    )
    return st.lists(st.tuples(key, inner), max_size=4).map(lambda p: "{" + ",".join(f"{k}:{v}" for k, v in p) + "}")


@settings(max_examples=examples(800))
@given(pieces() | objects() | json_values.map(lambda v: json.dumps(v, ensure_ascii=False)))
def test_the_fast_parser_takes_and_gives_what_the_slow_one_does(text):
    try:
        expected = slow_parse(text)
    except (ValueError, DoubledError):
        with pytest.raises(CanonicalError):
            parse_strict(text.encode("utf-8", "surrogatepass"))
        return
    found = parse_strict(text.encode())
    assert found == expected
    assert json.dumps(found) == json.dumps(expected)


@settings(max_examples=examples(500))
@given(st.binary(max_size=60))
def test_no_bytes_end_in_anything_but_a_value_or_a_refusal(data):
    with contextlib.suppress(CanonicalError):
        canonical_json(parse_strict(data))
