"""Strict JSON in, RFC 8785 out: the RFC's own examples, and everything that two parsers could read differently."""

import json
import struct
import threading
import time

import pytest

from safety_wrapper.canonical import MAX_DEPTH, canonical_json, digest, digest_bytes, library_json, parse_strict
from safety_wrapper.errors import CanonicalError

# ── vectors of RFC 8785 ──────────────────────────────────────────────────────────────────────────────────────────

#: §3.2.2: the sample object and its canonical form (§3.2.4 gives the bytes).
SAMPLE = rb"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
SAMPLE_CANONICAL = bytes.fromhex(
    "7b226c69746572616c73223a5b6e756c6c2c747275652c66616c73655d2c226e"
    "756d62657273223a5b3333333333333333332e333333333333332c31652b3330"
    "2c342e352c302e3030322c31652d32375d2c22737472696e67223a22e282ac24"
    "5c75303030665c6e412742 5c225c5c5c5c5c222f227d".replace(" ", "")
)
#: §3.2.3: keys sort by UTF-16 code units.
SORTING = b"""{
  "\\u20ac": "Euro Sign",
  "\\r": "Carriage Return",
  "\\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\\ud83d\\ude00": "Emoji: Grinning Face",
  "\\u0080": "Control",
  "\\u00f6": "Latin Small Letter O With Diaeresis"
}"""
SORTED_VALUES = [
    "Carriage Return", "One", "Control", "Latin Small Letter O With Diaeresis", "Euro Sign",
    "Emoji: Grinning Face", "Hebrew Letter Dalet With Dagesh",
]  # fmt: skip
#: Appendix B: IEEE 754 bits and their JSON form.
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]


def test_the_sample_of_the_rfc():
    assert canonical_json(parse_strict(SAMPLE)) == SAMPLE_CANONICAL


def test_keys_sort_as_the_rfc_says():
    assert list(json.loads(canonical_json(parse_strict(SORTING))).values()) == SORTED_VALUES


@pytest.mark.parametrize(("bits", "text"), NUMBERS)
def test_numbers_of_the_rfc(bits, text):
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert library_json(number) == text.encode()
    if "." in text or "e" in text or abs(number) < 2**53:
        assert canonical_json(number) == text.encode()
    else:  # written as an integer that we refuse to parse
        with pytest.raises(CanonicalError):
            canonical_json(number)


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_numbers_that_the_rfc_does_not_know(bits):
    with pytest.raises(CanonicalError):
        canonical_json(struct.unpack(">d", bytes.fromhex(bits))[0])


# ── both encoders ────────────────────────────────────────────────────────────────────────────────────────────────

EVERY_CONTROL = "".join(map(chr, range(0x20))) + "\x7f\u0080\u2028\u2029\\/\"'<>&"


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -1,
        2**53 - 1,
        1 - 2**53,
        "",
        EVERY_CONTROL,
        [],
        {},
        {"b": 1, "a": [{}]},
        {"": "", "\x7f": 1},
        {EVERY_CONTROL: EVERY_CONTROL},
    ],
)
def test_the_compiled_encoder_gives_the_librarys_bytes(value):
    assert canonical_json(value) == library_json(value)


def test_keys_that_are_not_ascii_take_the_library():
    value = {"\ufb33": 1, "\U0001f600": 2, "\u00f6": 3, "o": 4}
    assert canonical_json(value) == library_json(value)
    by_code_point = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    assert canonical_json(value) != by_code_point.encode()


# ── what has no canonical form ───────────────────────────────────────────────────────────────────────────────────


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        -float("inf"),
        2**53,
        -(2**53),
        10**30,
        "\ud800",
        {"\udfff": 1},
        {1: 2},
        {None: 1},
        {True: 1},
        (1, 2),
        {1, 2},
        b"bytes",
        object(),
        Text("subclass"),
        [[2**53]],
        {"a": {"b": [1.0, float("nan")]}},
    ],
)
def test_a_value_without_canonical_form_is_refused(value):
    with pytest.raises(CanonicalError):
        canonical_json(value)


def nested(depth):
    value = []
    for _ in range(depth - 1):
        value = [value]
    return value


def test_depth_is_bounded_both_ways():
    assert canonical_json(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"]" * MAX_DEPTH
    with pytest.raises(CanonicalError):
        canonical_json(nested(MAX_DEPTH + 1))
    assert parse_strict(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH) == nested(MAX_DEPTH)
    with pytest.raises(CanonicalError):
        parse_strict(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    with pytest.raises(CanonicalError):
        parse_strict(b"[[1]]", max_depth=1)


def test_a_value_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(CanonicalError):
        canonical_json(loop)


# ── parsing ──────────────────────────────────────────────────────────────────────────────────────────────────────

REFUSED = {
    "duplicate key": b'{"a":1,"a":1}',
    "duplicate key below": b'{"x":[{"a":1,"b":2,"a":3}]}',
    "duplicate key by escape": b'{"a":1,"\\u0061":2}',
    "duplicate key beside an escape": b'{"a":"\\n","a":2}',
    "duplicate empty key": b'{"":1,"":2}',
    "duplicate key that is not ASCII": '{"\u00e9":1,"\\u00e9":2}'.encode(),
    "duplicate key beside a float": b'{"a":1.5,"a":1.5}',
    "NaN": b"NaN",
    "infinity": b"[Infinity]",
    "minus infinity": b"-Infinity",
    "a number beyond doubles": b"1e400",
    "an integer of 2^53": b"9007199254740992",
    "an integer of -2^53": b'{"a":-9007199254740992}',
    "a float that is written as such an integer": b"9007199254740992.0",
    "another of these": b"-1e20",
    "an integer beyond 64 bits": b"18446744073709551616",
    "an integer of 5000 digits": b"9" * 5000,
    "a lone surrogate": b'"\\ud800"',
    "a lone surrogate as a key": b'{"\\udc00":1}',
    "surrogates the wrong way round": b'"\\udc00\\ud800"',
    "a surrogate in UTF-8": b'"\xed\xa0\x80"',
    "not UTF-8": b'"\xff"',
    "overlong UTF-8": b'"\xc0\xaf"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf{}",
    "nothing": b"",
    "blank": b"  ",
    "two values": b"1 2",
    "a trailing comma": b"[1,]",
    "a comment": b"/**/1",
    "single quotes": b"{'a':1}",
    "a bare word": b"undefined",
    "a leading zero": b"01",
    "a plus": b"+1",
    "hex": b"0x1",
    "a raw newline in a string": b'"a\nb"',
    "a NUL after the value": b"1\x00",
    "a cut object": b'{"a":',
    "a cut string": b'"a',
    "a form feed as blank": b"\x0c1",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_parsers_could_read_differently_is_refused(text):
    with pytest.raises(CanonicalError):
        parse_strict(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":1,"b":1}', {"a": 1, "b": 1}),
        (b'[{"a":1},{"a":1}]', [{"a": 1}, {"a": 1}]),
        (b'{"a":{"a":"a"}}', {"a": {"a": "a"}}),
        (b'{"a":"\\"a\\"","b":"a"}', {"a": '"a"', "b": "a"}),
        (b"9007199254740991", 2**53 - 1),
        (b"-0", 0),
        (b"1.0", 1.0),
        (b"1e2", 100.0),
        (b"1e30", 1e30),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        ('"\u00e9\U0001f600"'.encode(), "\u00e9\U0001f600"),
        (b'"\\u0000"', "\x00"),
        (b' {"a" : [ true , null ] } \n', {"a": [True, None]}),
        ('{"\u00e9":1,"e":2}'.encode(), {"\u00e9": 1, "e": 2}),
    ],
)
def test_strict_json_passes(text, value):
    parsed = parse_strict(text)
    assert parsed == value
    assert type(parsed) is type(value)


BOMBS = {
    "arrays": b"[" * 10_000_000,
    "objects": b'{"a":' * 2_000_000,
    "closed": b"[" * 5_000_000 + b"]" * 5_000_000,
    "with escapes": b'["\\n",' + b"[" * 10_000_000,
    "in an open string": b'["' + b"[" * 10_000_000,
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS.keys())
def test_a_depth_bomb_is_refused_by_a_parser_that_does_not_recurse(bomb):
    started = time.process_time()
    with pytest.raises(CanonicalError):
        parse_strict(bomb)
    assert time.process_time() - started < 60  # a hang would be minutes; this bound is no measurement


def test_a_depth_bomb_does_not_end_a_thread_with_a_small_stack():
    outcomes = []

    def parse():
        for bomb in BOMBS.values():
            try:
                parse_strict(bomb)
            except CanonicalError as exc:
                outcomes.append(exc.code)

    before = threading.stack_size(256 * 1024)
    try:
        thread = threading.Thread(target=parse)
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert outcomes == ["bad_request"] * len(BOMBS)


def test_many_flat_brackets_pass():
    assert len(parse_strict(b"[" + b"[]," * 100_000 + b"{}]")) == 100_001


# ── digests ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_digest_is_of_domain_and_canonical_form():
    assert digest("sw/call/v1", {"b": 1, "a": 2}) == digest_bytes("sw/call/v1", b'{"a":2,"b":1}')
    assert digest("sw/call/v1", {}) != digest("sw/call/v2", {})
    assert digest_bytes("a", b"b") != digest_bytes("", b"ab")
    assert len(digest("sw/call/v1", None)) == 64


def test_a_known_digest():
    assert digest("sw/call/v1", {"a": 1}) == "966c78b5f2f96f7f43acbaff2b4a64fde7e9e6036329b390c898f70000cc5a60"
