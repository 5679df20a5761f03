"""File operations of the agent's own tools, on the folders that its profile binds.

A path is a place in the sandbox. It is walked component by component on open folders, never through a symbolic link,
so nothing that is planted in a workspace leads out of it; only regular files are read or replaced. Writing makes a
new file and renames it over the old one: readers see the old or the new text, and a hard link elsewhere keeps the old.
Every refusal is one sentence for the model, and names no path of the host.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from safety_wrapper.runner.protocol import FileOutcome, FileRequest
from safety_wrapper.runner.sandbox import WORK

if TYPE_CHECKING:
    from safety_wrapper.config import Bind, RunnerProfile

MAX_PATH_BYTES: Final = 4095
MAX_COMPONENTS: Final = 128
#: Reading looks at no more of a file than this, editing and writing make none bigger.
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_DEPTH: Final = 8
MAX_ENTRIES: Final = 2000
_CHUNK: Final = 256 * 1024
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE, _NEW_FOLDER = 0o640, 0o750


@dataclass(frozen=True, slots=True)
class _Place:
    """A path in the sandbox: the bind that holds it and the components below the bind's root."""

    shown: str
    bind: Bind
    parts: tuple[str, ...]

    @property
    def writable(self) -> bool:
        return self.bind.mode == "rw"


class _Refusal(Exception):  # noqa: N818  # not a fault: it becomes the answer's sentence
    """A sentence for the model."""


def perform(request: FileRequest, profile: RunnerProfile, *, text_bytes: int, file_bytes: int) -> FileOutcome:
    """Do one operation. Never raises for anything that a path or a file can be.

    ``text_bytes`` bounds the text that comes back, ``file_bytes`` the size of a file that is written.
    """
    file_bytes = min(file_bytes, MAX_FILE_BYTES)
    try:
        place = _find(request.path, profile)
        if request.op == "read":
            return _read(request, place, text_bytes)
        if request.op == "list":
            return _list(request, place, text_bytes)
        if not place.writable:
            raise _Refusal(f"{place.shown} is read-only: write below {_writable_place(profile)} instead.")
        if request.op == "write":
            return _write(request, place, file_bytes)
        return _edit(request, place, file_bytes)
    except _Refusal as refusal:
        return _refused(str(refusal))
    except OSError as exc:
        return _refused(_sentence(exc, request.path))


def _refused(sentence: str) -> FileOutcome:
    return FileOutcome(ok=False, text="", error=sentence, truncated_bytes=0)


_DENIED: Final = "{} can't be opened: permission denied."
_FULL: Final = "There is no space left: delete something first."
_SENTENCES: Final = {
    errno.ENOENT: "There is no {}: look with sw_list.",
    errno.ELOOP: "{} leads through a symbolic link: use the path that the link points to.",
    errno.ENOTDIR: "A part of {} is not a folder, or a symbolic link: look with sw_list.",
    errno.EACCES: _DENIED,
    errno.EPERM: _DENIED,
    errno.EROFS: _DENIED,
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.ENAMETOOLONG: "{} is too long: use a shorter path.",
}


def _sentence(exc: OSError, path: str) -> str:
    return _SENTENCES.get(exc.errno or 0, "{} can't be used: check it with sw_list.").format(shown_path(path))


def shown_path(path: str) -> str:
    """A path as it stands in a sentence: escaped, at most 200 characters."""
    text = path.encode("unicode_escape").decode("ascii") if not path.isprintable() else path
    return text if len(text) <= 200 else text[:197] + "..."


# ── finding a place ──────────────────────────────────────────────────────────────────────────────────────────────


def _find(path: str, profile: RunnerProfile) -> _Place:
    if "\0" in path:
        raise _Refusal("The path holds a NUL character: leave it out.")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise _Refusal("The path is too long: use a shorter one.")
    whole = path if path.startswith("/") else f"{WORK}/{path}"
    parts = tuple(part for part in whole.split("/") if part not in {"", "."})
    if ".." in parts:
        raise _Refusal("The path holds `..`: write it without.")
    if len(parts) > MAX_COMPONENTS:
        raise _Refusal("The path is too deep: use a shorter one.")
    best: _Place | None = None
    for bind in profile.binds:
        root = bind.to.parts[1:]
        if parts[: len(root)] == root and (best is None or len(root) > len(best.bind.to.parts[1:])):
            best = _Place("/" + shown_path("/".join(parts)), bind, parts[len(root) :])
    if best is None:
        places = ", ".join(sorted(str(bind.to) for bind in profile.binds)) or "none"
        raise _Refusal(f"{shown_path(path)} is outside the agent's folders ({places}): use a path below one of them.")
    return best


def _writable_place(profile: RunnerProfile) -> str:
    return next((str(bind.to) for bind in profile.binds if bind.mode == "rw"), "a folder of your own (there is none)")


@contextmanager
def _folder(place: _Place, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
    """The open folder at ``parts`` below the bind's root; ``make``: missing ones are made."""
    current = os.open(place.bind.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parts:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, _NEW_FOLDER, dir_fd=current)
            inner = os.open(part, _FOLDER, dir_fd=current)
            os.close(current)
            current = inner
        yield current
    finally:
        os.close(current)


@contextmanager
def _regular(place: _Place) -> Iterator[int]:
    """The file at ``place``, open for reading. Looked at before it is opened: opening a device or a pipe can act."""
    if not place.parts:
        if place.bind.source.is_dir():
            raise _Refusal(f"{place.shown} is a folder: list it with sw_list.")
        look = os.open(place.bind.source, os.O_PATH | os.O_CLOEXEC)
    else:
        with _folder(place, place.parts[:-1]) as folder:
            look = os.open(place.parts[-1], _LOOK, dir_fd=folder)
    try:
        _demand_regular(os.fstat(look).st_mode, place)
        fd = os.open(f"/proc/self/fd/{look}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(look)
    try:
        yield fd
    finally:
        os.close(fd)


def _demand_regular(mode: int, place: _Place) -> None:
    if stat.S_ISREG(mode):
        return
    if stat.S_ISDIR(mode):
        raise _Refusal(f"{place.shown} is a folder: list it with sw_list.")
    if stat.S_ISLNK(mode):
        raise _Refusal(f"{place.shown} is a symbolic link: use the path that it points to.")
    raise _Refusal(f"{place.shown} is no regular file: use another one.")


# ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _read(request: FileRequest, place: _Place, text_bytes: int) -> FileOutcome:
    first = max(1, request.offset or 1)
    with _regular(place) as fd:
        size = os.fstat(fd).st_size
        data, end, complete = _lines(fd, first, request.limit, text_bytes)
    if not data and first > 1 and complete:
        raise _Refusal(f"{place.shown} has fewer than {first} lines: use a smaller offset.")
    if not complete:
        data = _whole_characters(data)
    text = data.decode("utf-8", "replace")
    lossy = "�" in text and _is_lossy(data)
    return FileOutcome(ok=True, text=text, error="", truncated_bytes=0 if complete else max(0, size - end), lossy=lossy)


def _lines(fd: int, first: int, count: int | None, room: int) -> tuple[bytes, int, bool]:
    """Lines ``first`` … of a file: bytes, the position after them, and whether that is all that was asked for."""
    out = bytearray()
    line, position = 1, 0
    last = None if count is None else first + count
    while position < MAX_FILE_BYTES:
        chunk = os.read(fd, _CHUNK)
        if not chunk:
            return bytes(out), position, True
        start = 0
        while start < len(chunk):
            if last is not None and line >= last:
                return bytes(out), position + start, True
            newline = chunk.find(b"\n", start)
            end = len(chunk) if newline < 0 else newline + 1
            if line >= first:
                if last is None:
                    end = len(chunk)  # the rest, whatever its lines are
                taken = chunk[start : min(end, start + room - len(out))]
                out += taken
                if len(taken) < end - start:
                    return bytes(out), position + start + len(taken), False
            line += newline >= 0
            start = end
        position += len(chunk)
    if len(out) == 0:
        raise _Refusal(f"The file is too big to search for line {first}: use sw_exec with sed or tail.")
    return bytes(out), position, False


def _whole_characters(data: bytes) -> bytes:
    """Without the beginning of a character at the end."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 == 0x80:
            continue
        length = 4 if byte >= 0xF0 else 3 if byte >= 0xE0 else 2 if byte >= 0xC0 else 1
        return data[:-back] if length > back else data
    return data


def _is_lossy(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return True
    return False


# ── listing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _list(request: FileRequest, place: _Place, text_bytes: int) -> FileOutcome:
    depth = min(max(1, request.depth or 1), MAX_DEPTH)
    lines: list[str] = []
    with _folder(place, place.parts) as folder:
        complete = _walk(folder, "", depth, lines)
    shown, size = [], 0
    for line in lines:
        size += len(line.encode()) + 1
        if size > text_bytes:
            complete = False
            break
        shown.append(line)
    if not complete:
        shown.append("(more entries follow: list a folder below)")
    text = "\n".join(shown) or "(empty)"
    return FileOutcome(ok=True, text=text, error="", truncated_bytes=0, lossy="�" in text)


def _walk(folder: int, prefix: str, depth: int, lines: list[str]) -> bool:
    """Append one line an entry, folders with what is below them; False when there are too many."""
    with os.scandir(folder) as found:
        entries = []
        for entry in found:
            entries.append(entry)
            if len(entries) > MAX_ENTRIES:
                break
    for entry in sorted(entries, key=lambda entry: os.fsencode(entry.name)):
        if len(lines) >= MAX_ENTRIES:
            return False
        name = prefix + _shown_name(entry.name)
        with contextlib.suppress(OSError):  # gone since, or not for us: leave it out
            mode = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(mode.st_mode):
                lines.append(name + "/")
                if depth > 1:
                    inner = os.open(entry.name, _FOLDER, dir_fd=folder)
                    try:
                        if not _walk(inner, name + "/", depth - 1, lines):
                            return False
                    finally:
                        os.close(inner)
            else:
                lines.append(f"{name}  {_kind(mode)}")
    return len(entries) <= MAX_ENTRIES


def _shown_name(name: str) -> str:
    """A file's name on one line: bytes that are not UTF-8 as U+FFFD, controls escaped."""
    text = os.fsencode(name).decode("utf-8", "replace")
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _kind(found: os.stat_result) -> str:
    if stat.S_ISREG(found.st_mode):
        return f"{found.st_size} bytes"
    return "symbolic link" if stat.S_ISLNK(found.st_mode) else "special file"


# ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _write(request: FileRequest, place: _Place, file_bytes: int) -> FileOutcome:
    data = (request.content or "").encode()
    if len(data) > file_bytes:
        raise _Refusal(f"The text is bigger than {file_bytes} bytes: write it in parts.")
    _demand_name(place)
    with _folder(place, place.parts[:-1], make=True) as folder:
        _replace(folder, place, data)
    return FileOutcome(ok=True, text=f"Wrote {len(data)} bytes to {place.shown}.", error="", truncated_bytes=0)


def _edit(request: FileRequest, place: _Place, file_bytes: int) -> FileOutcome:
    old, new = (request.old or "").encode(), (request.new or "").encode()
    if not old:
        raise _Refusal("`old` is empty: give the text to replace.")
    if old == new:
        raise _Refusal("`old` and `new` are the same: nothing to change.")
    _demand_name(place)
    with _regular(place) as fd:
        data = _whole(fd, place, file_bytes)
    first = data.find(old)
    if first < 0:
        raise _Refusal(f"`old` does not occur in {place.shown}: read the file and copy the text exactly.")
    if not request.all and data.find(old, first + 1) >= 0:
        raise _Refusal("`old` occurs more than once: give more of the text around it, or set `all`.")
    count = data.count(old) if request.all else 1
    if len(data) + count * (len(new) - len(old)) > file_bytes:
        raise _Refusal(f"The file would be bigger than {file_bytes} bytes: change less.")
    with _folder(place, place.parts[:-1]) as folder:
        _replace(folder, place, data.replace(old, new, count))
    times = "once" if count == 1 else f"{count} times"
    return FileOutcome(ok=True, text=f"Replaced {times} in {place.shown}.", error="", truncated_bytes=0)


def _demand_name(place: _Place) -> None:
    """A file that is itself a bind can't be replaced: the sandbox would keep the old one."""
    if not place.parts:
        raise _Refusal(f"{place.shown} can't be replaced as a whole: name a file below it, or use sw_exec.")


def _whole(fd: int, place: _Place, file_bytes: int) -> bytes:
    if os.fstat(fd).st_size > file_bytes:
        raise _Refusal(f"{place.shown} is bigger than {file_bytes} bytes: edit it with sw_exec.")
    data = bytearray()
    while chunk := os.read(fd, _CHUNK):
        data += chunk
        if len(data) > file_bytes:
            raise _Refusal(f"{place.shown} is bigger than {file_bytes} bytes: edit it with sw_exec.")
    return bytes(data)


def _replace(folder: int, place: _Place, data: bytes) -> None:
    """Put ``data`` where the last component is, by a new file and a rename; the old file's mode is kept."""
    name, mode = place.parts[-1], _NEW_FILE
    with contextlib.suppress(FileNotFoundError):
        look = os.open(name, _LOOK, dir_fd=folder)
        try:
            found = os.fstat(look).st_mode
            _demand_regular(found, place)
            if not os.access(f"/proc/self/fd/{look}", os.W_OK):
                raise _Refusal(f"{place.shown} is read-only: write to another file.")
            mode = stat.S_IMODE(found) & 0o777
        finally:
            os.close(look)
    temporary = f".sw-{secrets.token_hex(8)}.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), mode)
        os.rename(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
