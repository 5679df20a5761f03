"""Whether a bundle may be taken into force, which one is in force, and how one gets onto the disk.

The laws stand in :func:`judge` and :func:`freshness`; they read no clock and no file. The version
floor is a row of the ledger: the caller passes it in and raises it. Reading and writing is at the end of the file.

Order of an activation, so that a crash at any point leaves a bundle that loads: :func:`judge_folder` → its own suite
→ :func:`install` (durable) → the ledger raises the floor in the transaction that records the activation. A start
loads the floor's bundle, whatever ``current`` says; ``current`` counts only where nothing was ever in force.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from safety_wrapper.errors import BundleError, BundleExpiredError, BundleFormatError, BundleRollbackError
from safety_wrapper.policy.bundle import MAX_BUNDLE_BYTES, Bundle, parse
from safety_wrapper.policy.signing import MAX_SIGNATURE_BYTES, Trust, verify

GRACE_S: Final = 30 * 24 * 3600
CURRENT: Final = "current"
BUNDLE_FILE: Final = "bundle.json"
SIGNATURE_FILE: Final = "bundle.sig"
_READABLE: Final = "name a folder with bundle.json and bundle.sig that the core's own user can read"
_FOLDER: Final = re.compile(r"[1-9][0-9]{0,15}-[0-9a-f]{12}")


class Floor(Protocol):
    """The newest bundle that was ever in force here. The ledger keeps it; it never falls."""

    @property
    def version(self) -> int: ...
    @property
    def sha256(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Loaded:
    """A bundle that may be in force. ``degraded`` says why it is weaker than it should be, else None."""

    bundle: Bundle
    degraded: str | None = None


def judge(data: bytes, signatures: bytes, trust: Trust, floor: Floor | None, now: int) -> Bundle:
    """The bundle, if it may be taken into force at ``now`` (t_eff, seconds).

    Raises the first that applies, in this order: BundleSignatureError, BundleFormatError (also for a newer
    ``min_wrapper``), BundleRollbackError, BundleExpiredError. ``floor`` None = nothing was ever in force here.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise BundleFormatError("bundle.json is too big")
    verify(data, signatures, trust)
    bundle = parse(data)
    if floor is not None and bundle.version < floor.version:
        raise BundleRollbackError(
            f"version {bundle.version} is older than {floor.version}, which was in force here",
            do="to go back, release the old content under a new version",
        )
    if floor is not None and bundle.version == floor.version and bundle.sha256 != floor.sha256:
        raise BundleRollbackError(f"version {bundle.version} was in force here with other bytes")
    freshness(bundle, now)
    return bundle


def freshness(bundle: Bundle, now: int) -> str | None:
    """None while fresh; a sentence within the grace after expiry. Raises BundleExpiredError beyond it."""
    if now < bundle.expires_at:
        return None
    left_s = bundle.expires_at + GRACE_S - now
    if left_s <= 0:
        raise BundleExpiredError("the bundle is past its expiry and the grace after it", do="activate a newer bundle")
    return f"the bundle has expired; everything is blocked in {-(-left_s // 86400)} days unless a newer one comes"


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────


def folder_name(version: int, sha256: str) -> str:
    """The folder of an installed bundle: ``<version>-<first 12 digits of sha256>``."""
    return f"{version}-{sha256[:12]}"


def load_installed(bundle_dir: Path, trust: Trust, floor: Floor | None, now: int) -> Loaded:
    """The bundle to start with: the one of the ledger's floor; before there is a floor, the one ``current`` names.

    Raises a BundleError: then everything is blocked. The suite is not run again: it ran at activation, and the
    digest is the one that was activated.
    """
    with _opened(bundle_dir) as top:
        name = folder_name(floor.version, floor.sha256) if floor is not None else _current(top)
        data, signatures = _read_pair(top, name)
    bundle = judge(data, signatures, trust, floor, now)
    if name != folder_name(bundle.version, bundle.sha256):
        raise BundleFormatError("the folder of the installed bundle bears another version or digest")
    return Loaded(bundle, freshness(bundle, now))


def judge_folder(source_dir: Path, trust: Trust, floor: Floor | None, now: int) -> Bundle:
    """Read ``bundle.json`` and ``bundle.sig`` of a folder and :func:`judge` them. Changes nothing."""
    with _opened(source_dir) as source:
        return judge(*_read_files(source), trust, floor, now)


def install(source_dir: Path, bundle_dir: Path, bundle: Bundle, trust: Trust) -> None:
    """Write the judged ``bundle`` durably below ``bundle_dir`` and point ``current`` to it.

    The files are read again, and must be those that were judged. Raises a BundleError and leaves what is installed
    alone. Doing it again changes nothing.
    """
    with _opened(source_dir) as source:
        data, signatures = _read_files(source)
    if hashlib.sha256(data).hexdigest() != bundle.sha256:
        raise BundleFormatError("bundle.json changed while it was being installed")
    verify(data, signatures, trust)
    lay_down(data, signatures, bundle_dir)


def lay_down(data: bytes, signatures: bytes, bundle_dir: Path) -> Path:
    """Write compiled bytes and their signatures as the installed bundle; its folder.

    Judges nothing but the format: for a new installation, whose start will judge. Raises a BundleError.
    """
    bundle = parse(data)
    name = folder_name(bundle.version, bundle.sha256)
    try:
        with _opened(bundle_dir) as top:
            _write_folder(top, name, data, signatures)
            _point(top, name)
    except OSError as exc:
        raise BundleError(f"the bundle can't be written: {exc.strerror}", do="look at the bundle folder") from exc
    return bundle_dir / name


def _point(top: int, name: str) -> None:
    fresh = f".new-{secrets.token_hex(8)}"
    os.symlink(name, fresh, dir_fd=top)
    os.replace(fresh, CURRENT, src_dir_fd=top, dst_dir_fd=top)
    os.fsync(top)


def _current(top: int) -> str:
    """What ``current`` names: one plain folder beside it, never a path."""
    try:
        name = os.readlink(CURRENT, dir_fd=top)
    except OSError as exc:
        raise BundleFormatError("no bundle is installed") from exc
    if not _FOLDER.fullmatch(name):
        raise BundleFormatError("`current` points to something that is no installed bundle")
    return name


def _read_pair(top: int, name: str) -> tuple[bytes, bytes]:
    with _opened(name, dir_fd=top) as folder:
        return _read_files(folder)


def _read_files(folder: int) -> tuple[bytes, bytes]:
    return _read(folder, BUNDLE_FILE, MAX_BUNDLE_BYTES), _read(folder, SIGNATURE_FILE, MAX_SIGNATURE_BYTES)


def _read(folder: int, name: str, limit: int) -> bytes:
    """A plain file, bounded. A link, a pipe or a device is refused without being read."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise BundleFormatError(f"{name} is not a plain file")
            data = file.read(limit + 1)
    except OSError as exc:
        raise BundleFormatError(f"{name} can't be read: {exc.strerror}", do=_READABLE) from exc
    if len(data) > limit:
        raise BundleFormatError(f"{name} is too big")
    return data


@contextmanager
def _opened(path: Path | str, *, dir_fd: int | None = None) -> Iterator[int]:
    """A folder held open, so that what is checked is what is used. Below a folder of ours, links are not followed."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if dir_fd is not None else 0)
    try:
        fd = os.open(path, flags, dir_fd=dir_fd)
    except OSError as exc:
        raise BundleFormatError(f"the bundle's folder can't be opened: {exc.strerror}", do=_READABLE) from exc
    try:
        yield fd
    finally:
        os.close(fd)


def _write_folder(top: int, name: str, data: bytes, signatures: bytes) -> None:
    with suppress(BundleFormatError):
        if _read_pair(top, name) == (data, signatures):
            return
    fresh = f".new-{secrets.token_hex(8)}"
    os.mkdir(fresh, 0o755, dir_fd=top)
    try:
        with _opened(fresh, dir_fd=top) as folder:
            for file, content in ((BUNDLE_FILE, data), (SIGNATURE_FILE, signatures)):
                _write(folder, file, content)
            os.fsync(folder)
        # something else under this name (damaged, or put there) is kept aside for whoever looks into it
        with suppress(FileNotFoundError):
            os.rename(name, f".old-{secrets.token_hex(8)}", src_dir_fd=top, dst_dir_fd=top)
        os.rename(fresh, name, src_dir_fd=top, dst_dir_fd=top)
    except BaseException:
        _remove(top, fresh)
        raise
    os.fsync(top)


def _write(folder: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644, dir_fd=folder)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)


def _remove(top: int, name: str) -> None:
    with suppress(OSError, BundleFormatError):
        with _opened(name, dir_fd=top) as folder:
            for file in (BUNDLE_FILE, SIGNATURE_FILE):
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=folder)
        os.rmdir(name, dir_fd=top)
