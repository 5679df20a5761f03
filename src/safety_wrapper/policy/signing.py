"""Who signed the exact bytes of a bundle: Ed25519 over ``"sw/bundle/v1" || 0x00 || bytes``, a threshold of keys.

``bundle.sig`` is a JSON list of ``{"kid", "sig"}``, ``sig`` base64url without padding. A signature by a key that is
not trusted, or one that does not verify, counts for nothing; a key counts once, under whatever ids it is trusted.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from safety_wrapper.canonical import canonical_json, parse_strict
from safety_wrapper.errors import BundleSignatureError, CanonicalError, ConfigError

DOMAIN: Final = b"sw/bundle/v1\x00"
MAX_SIGNATURES: Final = 32
MAX_SIGNATURE_BYTES: Final = 16 * 1024
_MAX_KEY_BYTES: Final = 16 * 1024
_KID: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SIG: Final = re.compile(r"[A-Za-z0-9_-]{86}")


class TrustedKey(Protocol):
    """One key whose signatures count: its id, and the raw public key as base64url without padding."""

    @property
    def kid(self) -> str: ...
    @property
    def ed25519(self) -> str: ...


class Trust(Protocol):
    """Whose signatures count and how many keys must have signed. The configuration's ``trust`` section is one."""

    @property
    def bundle_keys(self) -> Sequence[TrustedKey]: ...
    @property
    def threshold(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Key:
    """A TrustedKey that does not come from the configuration."""

    kid: str
    ed25519: str


@dataclass(frozen=True, slots=True)
class Keys:
    """A Trust that does not come from the configuration."""

    bundle_keys: tuple[Key, ...]
    threshold: int = 1


def sign(data: bytes, kid: str, key: Ed25519PrivateKey) -> dict[str, str]:
    """One entry of ``bundle.sig``. Raises ConfigError for an id that is none."""
    if not _KID.fullmatch(kid):
        raise ConfigError("a key id is [a-z0-9][a-z0-9._-]*, at most 63 characters")
    return {"kid": kid, "sig": _encode(key.sign(DOMAIN + data))}


def signatures_json(entries: Iterable[Mapping[str, str]]) -> bytes:
    """The contents of ``bundle.sig``, sorted by key id; of two entries by one id the later one stays."""
    by_kid = {entry["kid"]: dict(entry) for entry in entries}
    return canonical_json([by_kid[kid] for kid in sorted(by_kid)])


def read_signatures(signatures: bytes) -> list[dict[str, str]]:
    """The entries of ``bundle.sig``, checked for shape only. Raises BundleSignatureError."""
    if len(signatures) > MAX_SIGNATURE_BYTES:
        raise BundleSignatureError("bundle.sig is too big")
    try:
        entries = parse_strict(signatures, max_depth=4)
    except CanonicalError as exc:
        raise BundleSignatureError("bundle.sig is not strict JSON") from exc
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_SIGNATURES:
        raise BundleSignatureError("bundle.sig must be a list of signatures")
    for entry in entries:
        if (
            not isinstance(entry, dict)
            or entry.keys() != {"kid", "sig"}
            or not all(isinstance(text, str) for text in entry.values())
            or not _KID.fullmatch(entry["kid"])
            or not _SIG.fullmatch(entry["sig"])
        ):
            raise BundleSignatureError("bundle.sig holds something that is no signature")
    return entries


def verify(data: bytes, signatures: bytes, trust: Trust) -> tuple[str, ...]:
    """The ids of the trusted keys that signed ``data``. Raises BundleSignatureError when they are too few.

    Also raised for a list that is none, a trusted key that is none, a threshold below one. 0.1 ms for each
    signature by a trusted key.
    """
    entries = read_signatures(signatures)
    if trust.threshold < 1:
        raise BundleSignatureError("the trust admits unsigned bundles")
    signed: dict[bytes, str] = {}
    for key in trust.bundle_keys:
        raw = _decode(key.ed25519)
        if raw is None or len(raw) != 32:
            raise BundleSignatureError("trust.bundle_keys holds something that is no Ed25519 key")
        for entry in entries:
            if entry["kid"] == key.kid and raw not in signed and _holds(raw, entry["sig"], data):
                signed[raw] = key.kid
    if len(signed) < trust.threshold:
        raise BundleSignatureError(
            f"signed by {len(signed)} of the {trust.threshold} trusted keys that are needed",
            do="get the bundle again from who releases it; compare trust.bundle_keys",
        )
    return tuple(sorted(signed.values()))


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half as base64url without padding, as ``trust.bundle_keys`` has it."""
    return _encode(_raw_public(key))


def key_id(key: Ed25519PrivateKey) -> str:
    """The id of a key that nobody named: after its public half, so that the same key has the same id everywhere."""
    return f"k{hashlib.sha256(_raw_public(key)).hexdigest()[:12]}"


def generate_key(path: Path) -> Ed25519PrivateKey:
    """Make a private key in a new file (PKCS #8 PEM, 0600). Raises ConfigError; never overwrites."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", do="name a new file in a folder that you can write") from exc
    return key


def load_private(path: Path) -> Ed25519PrivateKey:
    """Read a private key file. Raises ConfigError when it is no Ed25519 key or others could read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077:
                raise ConfigError(f"{path}: a key file is a plain file of mode 0600", do=f"chmod 600 {path}")
            pem = file.read(_MAX_KEY_BYTES)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", do="name the private key's file") from exc
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{path}: not an unencrypted PEM private key", do="name the private key's file") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key", do="make one with `safety-wrapper policy keys new`")
    return key


def _holds(public: bytes, signature: str, data: bytes) -> bool:
    raw = _decode(signature)
    if raw is None:
        return False
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(raw, DOMAIN + data)
    except (InvalidSignature, ValueError):
        return False
    return True


def _raw_public(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes | None:
    """Bytes of base64url without padding; None when the text is not exactly their encoding."""
    try:
        raw = base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return raw if _encode(raw) == text else None
