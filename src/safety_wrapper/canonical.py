"""Strict JSON in, canonical JSON (RFC 8785) out, and digests with a domain. Imports nothing of ours but errors.

Two encoders give the same bytes where both apply, and a property test shows it: the RFC 8785 library is the
reference; a compiled encoder serves values without floats and with ASCII keys, which is what tool calls are made of.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, Final

import orjson
import rfc8785

from safety_wrapper.errors import CanonicalError

MAX_DEPTH: Final = 64
_MAX_INT: Final = 2**53 - 1
_FAST: Final = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER


def parse_strict(data: bytes, *, max_depth: int = MAX_DEPTH) -> Any:
    """Parse one JSON text. Refuses what two parsers could read differently.

    Raises CanonicalError for: not UTF-8, not JSON, duplicate keys, NaN or infinities, an integer of 2^53 or more,
    a lone surrogate, nesting deeper than ``max_depth``, bytes after the value. O(len(data)).
    """
    try:
        # The compiled parser comes first, also since it bounds nesting: nothing deep reaches the one that recurses.
        value = orjson.loads(data)
        # It keeps the last of two equal keys. Without a backslash in the text, each string stands between exactly
        # two quotes there and in the encoder's output, so equal counts mean that no key was dropped.
        if b"\\" not in data and _fast_form(value, max_depth) and orjson.dumps(value).count(b'"') == data.count(b'"'):
            return value
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise CanonicalError("not strict JSON") from exc
    _fast_form(value, max_depth)
    return value


def canonical_json(value: Any) -> bytes:
    """The RFC 8785 form of ``value``. Raises CanonicalError for a value that has none. O(size)."""
    if _fast_form(value, MAX_DEPTH):
        try:
            return orjson.dumps(value, option=_FAST)
        except orjson.JSONEncodeError as exc:
            raise CanonicalError("a value without canonical form") from exc
    return library_json(value)


def library_json(value: Any) -> bytes:
    """The reference encoder: the RFC 8785 library, whatever the value."""
    try:
        return rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, TypeError, ValueError) as exc:
        raise CanonicalError("a value without canonical form") from exc


def digest(domain: str, value: Any) -> str:
    """``sha256(domain || 0x00 || canonical(value))`` as 64 hex digits."""
    return digest_bytes(domain, canonical_json(value))


def digest_bytes(domain: str, data: bytes) -> str:
    """``sha256(domain || 0x00 || data)`` as 64 hex digits, for data that is canonical already."""
    return hashlib.sha256(domain.encode("ascii") + b"\x00" + data).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    out = dict(pairs)
    if len(out) != len(pairs):
        raise ValueError("duplicate key")
    return out


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


def _fast_form(value: Any, depth: int) -> bool:  # noqa: C901, PLR0912 - one walk over every JSON type, hot path
    """Check ``value`` throughout; True where the compiled encoder is known to give RFC 8785 bytes."""
    kind = type(value)
    if kind is str:
        if not value.isascii():
            _refuse_surrogates(value)
        return True
    if kind is int:
        if not -_MAX_INT <= value <= _MAX_INT:
            raise CanonicalError("an integer of 2^53 or more")
        return True
    if value is None or kind is bool:
        return True
    if depth <= 0:
        raise CanonicalError("JSON nested too deeply")
    fast = True
    if kind is dict:
        for key, item in value.items():
            if type(key) is not str:
                raise CanonicalError("a key that is no string")
            if not key.isascii():
                _refuse_surrogates(key)
                fast = False
            fast = _fast_form(item, depth - 1) and fast
        return fast
    if kind is list:
        for item in value:
            fast = _fast_form(item, depth - 1) and fast
        return fast
    if kind is float:
        # between 2^53 and 10^21 its canonical form is the text of an integer that we refuse to parse
        if not math.isfinite(value) or _MAX_INT < abs(value) < 1e21:
            raise CanonicalError("a number that is not finite, or would be written as an integer of 2^53 or more")
        return False
    raise CanonicalError("a value that JSON does not know")


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as exc:
        raise CanonicalError("a lone surrogate") from exc
