"""The audit chain (docs/reference/schemas.md §4): each record's digest covers the one before, a MAC covers the digest.

A record's canonical bytes are put together from its parts, so that a body is encoded once and checked as it is stored.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import LedgerCorruptError, LedgerError

KINDS: Final = frozenset(
    (
        *("start", "stop", "bundle", "plan", "decision", "execution", "result", "approval", "grant", "owner"),
        *("release", "spawn", "overflow", "drop", "alarm", "clock", "checkpoint", "export"),
    )
)
DOMAIN: Final = b"sw/audit/v1\x00"
CHECKPOINT_RECORDS: Final = 1000
CHECKPOINT_SECONDS: Final = 3600
COLUMNS: Final = "seq, at, kind, agent, session, ref, body, sha256, mac"

#: One row of the table audit, in the order of COLUMNS.
type Row = tuple[int, int, str, str | None, str | None, str | None, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Link:
    """Where the chain stands: number and digest of its last record."""

    seq: int
    sha256: bytes


def record_sha256(
    seq: int, at: int, kind: str, agent: str | None, session: str | None, ref: str | None, body: bytes, previous: bytes
) -> bytes:
    """Digest of one record; ``body`` in canonical form, ``previous`` = digest of the record before. Hot path.

    Raises LedgerError for a text without canonical form.
    """
    try:
        # Keys in RFC 8785 order, strings by the same encoder as canonical_json; a property holds both equal.
        text = b'{"agent":%b,"at":%d,"body":%b,"kind":"%b","prev_sha256":"%b","ref":%b,"seq":%d,"session":%b}' % (
            orjson.dumps(agent),
            at,
            body,
            kind.encode("ascii"),
            previous.hex().encode("ascii"),
            orjson.dumps(ref),
            seq,
            orjson.dumps(session),
        )
    except (TypeError, ValueError) as exc:
        raise LedgerError("a record with a text that has no canonical form") from exc
    return hashlib.sha256(DOMAIN + text).digest()


def record_mac(key: bytes, sha256: bytes) -> bytes:
    """HMAC-SHA256 under the audit key over the raw digest."""
    return hmac.digest(key, sha256, "sha256")


def verify_rows(rows: Iterable[Row], start: Link, audit_key: bytes | None) -> Link:
    """Check consecutive rows from ``start`` on; the last link. Without ``audit_key`` MACs are not looked at.

    Raises LedgerCorruptError that names the first record at fault. O(rows).
    """
    seq, previous = start.seq, start.sha256
    for row in rows:
        seq += 1
        if row[0] != seq:
            raise LedgerCorruptError(f"audit record {seq} is missing")
        try:
            wanted = record_sha256(seq, *row[1:7], previous)
        except (LedgerError, AttributeError) as exc:
            raise LedgerCorruptError(f"audit record {seq} was edited") from exc
        if not hmac.compare_digest(row[7], wanted):
            raise LedgerCorruptError(f"audit record {seq} was edited, or one before it was taken out")
        if audit_key is not None and not hmac.compare_digest(row[8], record_mac(audit_key, wanted)):
            raise LedgerCorruptError(f"audit record {seq} was not written by this engine")
        previous = wanted
    return Link(seq, previous)


def checkpoint_text(tenant: str, seq: int, sha256: str, at: int) -> bytes:
    """What a checkpoint signs."""
    return b"sw/checkpoint/v1\x00" + canonical_json({"tenant": tenant, "seq": seq, "sha256": sha256, "at": at})


def verify_checkpoint(tenant: str, at: int, body: Any, public_keys: dict[str, str], covered: Link) -> None:
    """Check a checkpoint record's body against the link that it must cover. Raises LedgerCorruptError."""
    try:
        seq, sha256, kid, sig = body["seq"], body["sha256"], body["kid"], body["sig"]
        key = Ed25519PublicKey.from_public_bytes(from_b64u(public_keys[kid]))
        key.verify(from_b64u(sig), checkpoint_text(tenant, seq, sha256, at))
    except (KeyError, TypeError, ValueError, AttributeError, InvalidSignature) as exc:
        raise LedgerCorruptError(f"the checkpoint after record {covered.seq} is not signed by a known key") from exc
    if (seq, sha256) != (covered.seq, covered.sha256.hex()):
        raise LedgerCorruptError(f"the checkpoint after record {covered.seq} covers another chain")


def to_b64u(data: bytes) -> str:
    """Base64url without padding."""
    return urlsafe_b64encode(data).decode("ascii").rstrip("=")


def from_b64u(text: str) -> bytes:
    """The bytes of base64url without padding. Raises ValueError."""
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
