"""The files round the ledger: who may write (lock), whether they are still the same (inodes, sizes), the ballast."""

from __future__ import annotations

import fcntl
import os
import stat
import time
from pathlib import Path
from typing import Final

from safety_wrapper.errors import LedgerCorruptError, LedgerError, LedgerFullError, LedgerGoneError

#: Free space beyond the ballast before writing starts again, so that it does not flap.
_MARGIN_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 100
_MADE: Final = b"made\n"
#: Longer than any step in which a file system's clock goes, with room for a clock that is corrected.
_CTIME_STEP_NS: Final = 1_000_000_000


class Files:
    """Guards ledger.db, its -wal and -shm, its lock file and its ballast file. ``close`` lets go of the lock."""

    def __init__(self, path: Path, ballast_bytes: int) -> None:
        self.path = path
        self._ballast = path.with_name(path.name + ".ballast")
        self._ballast_bytes = ballast_bytes
        self._lock_path = path.with_name(path.name + ".lock")
        self._watched: list[tuple[str, int, int]] = []
        self._db_bytes = 0
        self._folder = str(path.parent)
        self._quiet_folder: tuple[int, int, int] | None = None
        try:
            self._lock = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            raise _from_os(exc, path) from exc
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            os.close(self._lock)
            raise LedgerError("another process writes this ledger", do="stop it first: `safety-wrapper stop`") from exc

    @property
    def was_made(self) -> bool:
        """Whether a ledger was made here before, as the lock file remembers."""
        return os.pread(self._lock, len(_MADE), 0) == _MADE

    def prepare(self) -> None:
        """Make the file, 0600, if it never was there; SQLite gives its companions the same mode.

        Raises LedgerGoneError if it was there once, LedgerCorruptError if it was emptied, LedgerError for its mode.
        """
        made_before = self.was_made
        try:
            handle = os.open(self.path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if made_before:
                raise LedgerGoneError(
                    "the ledger was deleted", do="restore it; to begin a new one, remove its .lock file too"
                ) from None
            self._make()
            return
        except OSError as exc:
            raise _from_os(exc, self.path) from exc
        try:
            found = os.fstat(handle)
            head = os.pread(handle, _HEADER_BYTES, 0)
        finally:
            os.close(handle)
        if not stat.S_ISREG(found.st_mode):
            raise LedgerCorruptError("the ledger is no regular file")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise LedgerError("the ledger can be read by others", do=f"chmod 600 {self.path}")
        if made_before and found.st_size == 0:
            raise LedgerCorruptError("the ledger was emptied")
        if found.st_size and not _is_whole(head, found.st_size, has_log=Path(f"{self.path}-wal").exists()):
            raise LedgerCorruptError("the ledger's file is cut off, or no database", do="restore it from its backup")

    def mark_made(self) -> None:
        """From now on a missing or empty file means that somebody removed it."""
        if not self.was_made:
            os.pwrite(self._lock, _MADE, 0)
            os.fsync(self._lock)

    def watch(self) -> None:
        """Remember which files are the ledger; to be called when SQLite has them all open."""
        names = (str(self.path), f"{self.path}-wal", f"{self.path}-shm", str(self._lock_path))
        try:
            found = [(name, os.stat(name)) for name in names]  # noqa: PTH116 - hot path below uses the same call
        except OSError as exc:
            raise LedgerGoneError("the ledger was deleted under the engine") from exc
        self._watched = [(name, entry.st_dev, entry.st_ino) for name, entry in found]
        self._db_bytes = found[0][1].st_size

    def check(self) -> None:
        """Raises LedgerGoneError if one of the files is not the one that is open, LedgerCorruptError if the ledger
        became shorter. Done before and after each commit.

        A folder's ctime changes with each entry that comes or goes and can't be set: as long as it is the same, one
        look at the folder stands for a look at each file. A ctime as young as the file system's clock step is not
        relied upon, since a second change could hide in it.
        """
        try:
            folder = os.stat(self._folder)  # noqa: PTH116
            if (folder.st_dev, folder.st_ino, folder.st_ctime_ns) != self._quiet_folder:
                for name, device, inode in self._watched:
                    _same(os.stat(name), device, inode)  # noqa: PTH116
                is_old = time.time_ns() - folder.st_ctime_ns > _CTIME_STEP_NS
                self._quiet_folder = (folder.st_dev, folder.st_ino, folder.st_ctime_ns) if is_old else None
            size = os.stat(self._watched[0][0]).st_size  # noqa: PTH116
        except OSError as exc:
            raise LedgerGoneError("the ledger was deleted under the engine", do="restart the core") from exc
        if size < self._db_bytes:
            raise LedgerCorruptError("the ledger was truncated under the engine")
        self._db_bytes = size

    def check_ledger(self) -> None:
        """For readers: one look at one file."""
        name, device, inode = self._watched[0]
        try:
            entry = os.stat(name)  # noqa: PTH116
        except OSError as exc:
            raise LedgerGoneError("the ledger was deleted under the engine", do="restart the core") from exc
        _same(entry, device, inode)

    def fill_ballast(self) -> bool:
        """Reserve the ballast; True if it is there and room besides, so that work may go on."""
        try:
            if not self._ballast_bytes:
                return self._free_bytes() >= _MARGIN_BYTES
            present = self._ballast.exists() and self._ballast.stat().st_size == self._ballast_bytes
            if self._free_bytes() < _MARGIN_BYTES + (0 if present else self._ballast_bytes):
                return False
            if not present:
                handle = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(handle, 0, self._ballast_bytes)
                    os.ftruncate(handle, self._ballast_bytes)
                finally:
                    os.close(handle)
        except OSError:
            self.drop_ballast()
            return False
        return True

    def drop_ballast(self) -> bool:
        """Give the reserved space back, so that what has begun can be finished; False if there was none."""
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Let go of the lock."""
        os.close(self._lock)

    def _make(self) -> None:
        try:
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600))
            folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as exc:
            raise _from_os(exc, self.path) from exc

    def _free_bytes(self) -> int:
        found = os.statvfs(self.path.parent)
        return found.f_bavail * found.f_frsize


def _is_whole(head: bytes, size: int, *, has_log: bool) -> bool:
    """Whether a file begins as SQLite's do and is as long as it says. SQLite itself takes a stump for a new database.

    With a log beside it the length is SQLite's affair: a crash may have cut a checkpoint short.
    """
    if len(head) < _HEADER_BYTES or not head.startswith(b"SQLite format 3\x00"):
        return False
    page_bytes = int.from_bytes(head[16:18], "big")
    pages = int.from_bytes(head[28:32], "big")
    return has_log or size == pages * (65536 if page_bytes == 1 else page_bytes)


def _same(entry: os.stat_result, device: int, inode: int) -> None:
    if entry.st_ino != inode or entry.st_dev != device:
        raise LedgerGoneError("the ledger was replaced under the engine", do="restart the core")


def _from_os(exc: OSError, path: Path) -> LedgerError:
    kind = LedgerFullError if exc.errno in (28, 122) else LedgerError  # ENOSPC, EDQUOT
    return kind(f"{path}: {exc.strerror}")
