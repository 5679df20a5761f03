"""From bytes to a frozen bundle: what is one, what is not, and that nothing else ever comes out of it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper import __version__
from safety_wrapper.canonical import canonical_json, digest
from safety_wrapper.errors import BundleFormatError
from safety_wrapper.model import SafetyClass, ToolKind
from safety_wrapper.normalise import Catalogue
from safety_wrapper.policy import parse
from safety_wrapper.policy.bundle import MAX_BUNDLE_BYTES, freeze, thaw
from unit.policy.samples import BUILTIN, TOOL, bundle_value, compiled

EXAMPLES = 2000 if os.environ.get("SW_LONG") else 150


def test_a_sound_bundle_is_parsed() -> None:
    data = compiled()
    bundle = parse(data)
    assert (bundle.name, bundle.version, bundle.min_wrapper) == ("sample", 7, "0.1.0")
    assert bundle.sha256 == hashlib.sha256(data).hexdigest()
    assert set(bundle.tools) == {"exec", "builtin:exec", "mail.send"}
    entry = bundle.tools["exec"]
    assert (entry.kind, entry.runs, entry.offer, entry.base_class) == (
        ToolKind.OWN_TOOL,
        "runner",
        True,
        SafetyClass.GREEN,
    )
    assert entry.effects[0].sources == ("command",)
    assert bundle.rules[0]["when"]["path"]["under"] == ("/home", "/srv")
    assert set(bundle.sections) == {"egress", "redaction", "prices", "adapters"}


def test_what_is_parsed_can_not_be_changed() -> None:
    bundle = parse(compiled())

    def frozen(value: Any) -> bool:
        if isinstance(value, MappingProxyType):
            return all(frozen(item) for item in value.values())
        if isinstance(value, tuple):
            return all(frozen(item) for item in value)
        return value is None or isinstance(value, (str, int, float, bool))

    for part in (bundle.rules, bundle.templates, bundle.suite, bundle.sections):
        assert frozen(part)
    for entry in bundle.tools.values():
        assert frozen(entry.params)
        assert frozen(entry.raw)
    with pytest.raises(TypeError):
        bundle.tools["evil"] = bundle.tools["exec"]  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.version = 8  # type: ignore[misc]


def test_freezing_and_thawing_give_the_same_json() -> None:
    assert thaw(freeze(bundle_value())) == bundle_value()


def test_the_definition_digest_covers_entry_and_adapter() -> None:
    def sha256(data: bytes, key: str) -> str:
        return parse(data).tools[key].definition_sha256

    assert sha256(compiled(), "builtin:exec") == digest("sw/tool/v1", {"adapter": None, "tool": BUILTIN})

    def louder(value: dict[str, Any]) -> None:
        value["tools"]["mail.send"]["summary"] = "Send a mail."

    def another_adapter(value: dict[str, Any]) -> None:
        value["adapters"]["mail"]["tools"]["mail.send"] = {"any": ["other"]}

    same = [sha256(compiled(change), "mail.send") for change in (None, louder, another_adapter)]
    assert len(set(same)) == 3
    assert sha256(compiled(another_adapter), "exec") == digest("sw/tool/v1", {"adapter": None, "tool": TOOL})


def test_the_parameter_schemas_compile_for_the_engine() -> None:
    catalogue = Catalogue.of(parse(compiled()))
    assert catalogue.validators["exec"].is_valid({"command": "ls", "env": {"A": "b"}})
    assert not catalogue.validators["exec"].is_valid({"command": "ls", "evil": 1})


@pytest.mark.parametrize("text", ["", "[]", "null", "7", '"x"', "{", "{}", "\ufeff{}", "[" * 5000, "NaN", "1e999"])
def test_what_is_no_bundle_is_refused(text: str) -> None:
    with pytest.raises(BundleFormatError):
        parse(text.encode())


def test_not_utf8_is_refused() -> None:
    with pytest.raises(BundleFormatError):
        parse(compiled()[:-1] + b"\xff}")


@pytest.mark.parametrize(
    "alter",
    [
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: json.dumps(json.loads(data), indent=1).encode(),
        lambda data: data.replace(b'"version":7', b'"version":7.0'),
        lambda data: data.replace(b'"version":7', b'"version":7e0'),
        lambda data: data.replace(b"sample", b"sampl\\u0065"),
        lambda data: data.replace(b'"version":7', b'"version":7,"version":7'),
        lambda data: data[:-1],
        lambda data: data[:-1] + b',"z":1}',
    ],
)
def test_only_the_canonical_form_of_itself_is_a_bundle(alter: Any) -> None:
    """Two files for one policy would make "same version, other bytes" meaningless. The twin is the sample itself."""
    assert parse(compiled())
    assert alter(compiled()) != compiled()
    with pytest.raises(BundleFormatError):
        parse(alter(compiled()))


def test_the_size_is_bounded() -> None:
    def pad(length: int) -> bytes:
        def change(value: dict[str, Any]) -> None:
            value["adapters"]["mail"]["tools"]["mail.send"] = {"x": "y" * length}

        return compiled(change)

    room = MAX_BUNDLE_BYTES - len(pad(0))
    assert parse(pad(room)).version == 7
    with pytest.raises(BundleFormatError, match="too big"):
        parse(pad(room + 1))


def test_a_bundle_for_a_newer_wrapper_is_refused() -> None:
    major, minor, patch = (int(part) for part in __version__.split("."))
    assert parse(compiled(min_wrapper=__version__)).min_wrapper == __version__
    for newer in (f"{major + 1}.0.0", f"{major}.{minor + 1}.0", f"{major}.{minor}.{patch + 1}"):
        with pytest.raises(BundleFormatError, match="needs safety-wrapper"):
            parse(compiled(min_wrapper=newer))
    assert parse(compiled(min_wrapper="0.0.999"))


@settings(database=None, max_examples=EXAMPLES, deadline=None)
@given(st.binary(max_size=300))
def test_parse_raises_nothing_else_for_any_bytes(data: bytes) -> None:
    with pytest.raises(BundleFormatError):
        parse(data)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**54), 2**54) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)


def _places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    steps: list[Any] = list(value) if isinstance(value, dict) else []
    if isinstance(value, list):
        steps = list(range(len(value)))
    return [at] * bool(at) + [place for step in steps for place in _places(value[step], (*at, step))]


def _says_so_in_one_line(data: bytes) -> None:
    """Parsing ends in a bundle or in a BundleFormatError that a terminal can show; anything else fails the test."""
    try:
        parse(data)
    except BundleFormatError as exc:
        message = exc.message
    else:
        message = "parsed"
    assert message.isprintable()


@settings(database=None, max_examples=EXAMPLES * 4, deadline=None)
@given(st.data())
def test_parse_raises_nothing_else_for_a_bundle_with_any_part_replaced(data: st.DataObject) -> None:
    value = bundle_value()
    place = data.draw(st.sampled_from(_places(value)))
    holder = value
    for step in place[:-1]:
        holder = holder[step]
    if isinstance(holder, dict) and data.draw(st.booleans()):
        del holder[place[-1]]
    else:
        holder[place[-1]] = data.draw(_json)
    _says_so_in_one_line(
        json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "ignore")
    )


@settings(database=None, max_examples=EXAMPLES * 2, deadline=None)
@given(st.integers(0, len(compiled()) - 1), st.integers(1, 255))
def test_parse_raises_nothing_else_for_a_flipped_byte(index: int, mask: int) -> None:
    data = bytearray(compiled())
    data[index] ^= mask
    _says_so_in_one_line(bytes(data))


def test_a_parsed_bundle_is_the_canonical_form_of_its_parts() -> None:
    bundle = parse(compiled())
    again = {
        **{key: getattr(bundle, key) for key in ("name", "version", "min_wrapper", "expires_at")},
        **{key: thaw(getattr(bundle, key)) for key in ("rules", "templates", "suite")},
        **thaw(bundle.sections),
        "tools": {key: thaw(entry.raw) for key, entry in bundle.tools.items()},
        "format": 1,
    }
    assert canonical_json(again) == compiled()
