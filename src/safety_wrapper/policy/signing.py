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
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

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


@dataclass(frozen=True, slots=True)
class Trust:
    """Whose signatures count: pairs of key id and raw public key (32 bytes), and how many keys must have signed."""

    keys: tuple[tuple[str, bytes], ...]
    threshold: int = 1

    @classmethod
    def of(cls, keys: Iterable[tuple[str, str]], threshold: int = 1) -> Trust:
        """From ``(kid, base64url public key)`` pairs, as ``trust.bundle_keys`` has them. Raises ConfigError."""
        pairs = []
        for kid, public in keys:
            raw = _decode(public)
            if raw is None or len(raw) != 32 or not _KID.fullmatch(kid):
                raise ConfigError("trust.bundle_keys: not an Ed25519 public key")
            pairs.append((kid, raw))
        if threshold < 1 or len({kid for kid, _ in pairs}) != len(pairs):
            raise ConfigError("trust: a threshold below 1, or two keys of one id")
        return cls(tuple(pairs), threshold)


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its id. Never printed: the representation shows the id only."""

    kid: str
    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey(kid={self.kid!r})"

    @property
    def public(self) -> str:
        """The public key as base64url without padding, as configuration has it."""
        return _encode(_raw_public(self.private))


def sign(data: bytes, keys: Iterable[SigningKey]) -> bytes:
    """The contents of ``bundle.sig``: one signature by each key, sorted by key id."""
    made = {key.kid: _encode(key.private.sign(DOMAIN + data)) for key in keys}
    return canonical_json([{"kid": kid, "sig": made[kid]} for kid in sorted(made)])


def verify(data: bytes, signatures: bytes, trust: Trust) -> tuple[str, ...]:
    """The ids of the trusted keys that signed ``data``. Raises BundleSignatureError when they are too few.

    Also raised for a list that is none, an empty trust, a threshold below one. 0.1 ms for each signature by a
    trusted key.
    """
    entries = _entries(signatures)
    if trust.threshold < 1:
        raise BundleSignatureError("the trust admits unsigned bundles")
    signed: dict[bytes, str] = {}
    for kid, raw in trust.keys:
        for entry in entries:
            if entry["kid"] == kid and raw not in signed and _holds(raw, entry["sig"], data):
                signed[raw] = kid
    if len(signed) < trust.threshold:
        raise BundleSignatureError(
            f"signed by {len(signed)} of the {trust.threshold} trusted keys that are needed",
            do="get the bundle again from who releases it; compare trust.bundle_keys",
        )
    return tuple(sorted(signed.values()))


def generate_key(path: Path, kid: str | None = None) -> SigningKey:
    """Make a private key in a new file (PKCS #8 PEM, 0600). Raises ConfigError; never overwrites."""
    key = Ed25519PrivateKey.generate()
    made = _named(key, kid)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}", do="name a new file in a folder that you can write") from exc
    with os.fdopen(fd, "wb") as file:
        file.write(pem)
        file.flush()
        os.fsync(file.fileno())
    return made


def load_private(path: Path, kid: str | None = None) -> SigningKey:
    """Read a private key file. Raises ConfigError when it is no Ed25519 key or others could read it."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_mode & 0o077:
                raise ConfigError(f"{path}: a key file is a plain file of mode 0600", do=f"chmod 600 {path}")
            pem = file.read(_MAX_KEY_BYTES)
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as exc:
        raise ConfigError(f"{path}: not an unencrypted PEM private key") from exc
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path}: not an Ed25519 key")
    return _named(key, kid)


def _named(key: Ed25519PrivateKey, kid: str | None) -> SigningKey:
    """Without a name, a key is called after its public half, so that the same key has the same id everywhere."""
    name = kid if kid is not None else f"k{hashlib.sha256(_raw_public(key)).hexdigest()[:12]}"
    if not _KID.fullmatch(name):
        raise ConfigError("a key id is [a-z0-9][a-z0-9._-]*, at most 63 characters")
    return SigningKey(name, key)


def _entries(signatures: bytes) -> list[dict[str, Any]]:
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
