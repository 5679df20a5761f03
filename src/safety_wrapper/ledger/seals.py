"""Sealed columns and MACs over rows: an edited row is noticed, a copied file shows no calls and no results."""

from __future__ import annotations

import hmac
import os
from typing import Any, Final

from cryptography.exceptions import InvalidTag

from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import LedgerCorruptError
from safety_wrapper.ledger.keys import LedgerKeys

_NONCE_BYTES: Final = 12


def row_mac(key: bytes, domain: str, *fields: Any) -> bytes:
    """HMAC-SHA256 over the domain and the fields in canonical form, so that no two rows share a text."""
    return hmac.digest(key, domain.encode("ascii") + b"\x00" + canonical_json(list(fields)), "sha256")


def check_mac(found: bytes | None, wanted: bytes, what: str) -> None:
    """Raises LedgerCorruptError, naming ``what``, unless both are equal."""
    if found is None or not hmac.compare_digest(found, wanted):
        raise LedgerCorruptError(f"{what}: the row was edited outside the engine", do="run `safety-wrapper doctor`")


def seal(keys: LedgerKeys, text: bytes, bound_to: str) -> bytes:
    """AES-256-GCM; ``bound_to`` (the row's id and column) keeps a sealed value from being moved to another row."""
    nonce = os.urandom(_NONCE_BYTES)
    return nonce + keys.column.encrypt(nonce, text, bound_to.encode("utf-8"))


def unseal(keys: LedgerKeys, sealed: bytes, bound_to: str) -> bytes:
    """The sealed text. Raises LedgerCorruptError if it was altered, moved, or sealed under another key."""
    try:
        return keys.column.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound_to.encode("utf-8"))
    except (InvalidTag, ValueError) as exc:
        raise LedgerCorruptError("a sealed column was edited outside the engine") from exc
