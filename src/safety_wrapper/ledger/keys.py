"""The ledger's keys: 32 random bytes in a file of the core's own (0400); everything else is derived from them."""

from __future__ import annotations

import hashlib
import os
import stat
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from safety_wrapper.errors import ConfigError

KEY_BYTES: Final = 32
_WANTED_MODE: Final = 0o400


class LedgerKeys:
    """Derived keys. ``audit`` and ``grant`` are HMAC-SHA256 keys, ``column`` seals columns, ``kid`` names the
    Ed25519 key that signs checkpoints. Printing it shows nothing."""

    __slots__ = ("audit", "checkpoint", "column", "grant", "kid", "public")

    def __init__(self, master: bytes) -> None:
        if len(master) != KEY_BYTES:
            raise ConfigError("the ledger key is not 32 bytes long", do="restore ledger.key from its backup")
        self.audit = _derive(master, b"sw/ledger/audit/v1")
        self.grant = _derive(master, b"sw/ledger/grant/v1")
        self.column = AESGCM(_derive(master, b"sw/ledger/column/v1"))
        self.checkpoint = Ed25519PrivateKey.from_private_bytes(_derive(master, b"sw/ledger/checkpoint/v1"))
        raw = self.checkpoint.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public = urlsafe_b64encode(raw).decode("ascii").rstrip("=")
        self.kid = "led-" + hashlib.sha256(raw).hexdigest()[:16]

    def __repr__(self) -> str:
        return f"LedgerKeys(kid={self.kid!r})"

    @classmethod
    def create(cls, path: Path) -> LedgerKeys:
        """Make a new key file, 0400, durable before this returns. Raises ConfigError if anything is there already."""
        master = os.urandom(KEY_BYTES)
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, _WANTED_MODE)
            try:
                os.fchmod(handle, _WANTED_MODE)
                os.write(handle, master)
                os.fsync(handle)
            finally:
                os.close(handle)
            _sync_folder(path.parent)
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
        return cls(master)

    @classmethod
    def load(cls, path: Path) -> LedgerKeys:
        """Read a key file. Raises ConfigError unless it is a regular file of this user, mode 0400, 32 bytes long."""
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}", do="restore ledger.key from its backup") from exc
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode):
                raise ConfigError(f"{path}: no regular file")
            if stat.S_IMODE(found.st_mode) != _WANTED_MODE:
                raise ConfigError(f"{path}: mode is not 0400", do=f"chmod 0400 {path}, and ask who changed it")
            if found.st_uid != os.geteuid():
                raise ConfigError(f"{path}: belongs to another user", do="let it belong to the core's user")
            master = os.read(handle, KEY_BYTES + 1)
        finally:
            os.close(handle)
        return cls(master)


def _derive(master: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=info).derive(master)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
