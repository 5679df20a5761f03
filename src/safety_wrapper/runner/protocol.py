"""What the core asks of the runner and what it gets back: values, and their form on runner.sock.

Texts above 64 KiB and everything binary travel as sealed memory files (``{"fd": i, "bytes": n}``). The reading side
checks every key: a request that is not exactly one raises WireError("bad_request").
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any, Final, Literal, cast

from safety_wrapper.errors import WireError
from safety_wrapper.frames import MEMFD_ABOVE, from_memfd, to_memfd

MAX_TEXT_BYTES: Final = 16 * 1024 * 1024
MAX_ARGUMENTS: Final = 4096
MAX_ENV: Final = 64
_JOB: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}", re.ASCII)
_PROFILE: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}", re.ASCII)
_ENV_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
#: Variables that make a program load or run something else before its own first line.
_ENV_REFUSED: Final = re.compile(r"LD_.*|BASH_ENV|ENV|BASH_FUNC.*|SHELLOPTS|BASHOPTS|GLIBC_TUNABLES|GCONV_PATH|LOCPATH")

type Ended = Literal["exit", "timeout", "killed", "output_limit", "start_failed"]
type FileOp = Literal["read", "write", "edit", "list"]
_ENDED: Final = frozenset({"exit", "timeout", "killed", "output_limit", "start_failed"})
_TEXTS: Final = ("content", "old", "new")
_OPS: Final = frozenset({"read", "write", "edit", "list"})


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one run. The runner never exceeds its own configuration, whatever stands here (runner.limits)."""

    wall_s: int = 60
    cpu_s: int = 60
    memory_bytes: int = 512 * 1024**2
    total_memory_bytes: int = 1024 * 1024**2
    processes: int = 64
    output_bytes: int = 1024**2
    file_bytes: int = 256 * 1024**2
    open_files: int = 256


@dataclass(frozen=True, slots=True)
class RunRequest:
    """One program to run. ``argv`` is a list; a shell command is ``("/bin/bash", "-c", text)``.

    ``cwd`` is a path inside the sandbox; None = /work where the profile binds it, else /tmp. ``profile`` is the name
    of one in the configuration. ``env`` comes on top of the fixed environment.
    """

    job: str
    argv: tuple[str, ...]
    cwd: str | None = None
    profile: str = "work"
    env: tuple[tuple[str, str], ...] = ()
    stdin: bytes | None = None
    limits: Limits = Limits()


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """How a run ended.

    ``exit`` is the status as a shell sees it (128 + n when the program died of signal n); None when the runner ended
    it, and then ``signal`` is 9. ``stdout_bytes`` and ``stderr_bytes`` count what was read, the texts hold at most
    ``output_bytes`` of it together. ``lossy``: some bytes were not UTF-8 and stand as U+FFFD. ``max_rss_bytes`` is
    the cgroup's peak where there is one, else the largest process.
    """

    exit: int | None
    signal: int | None
    ended: Ended
    stdout: str
    stderr: str
    stdout_bytes: int
    stderr_bytes: int
    wall_ms: int
    max_rss_bytes: int
    lossy: bool


@dataclass(frozen=True, slots=True)
class FileRequest:
    """One file operation. ``path`` is absolute in the sandbox, or relative to /work.

    read: ``offset`` is the first line (from 1), ``limit`` the number of lines. write: ``content``. edit: ``old`` is
    replaced by ``new``; it must occur once, unless ``all``. list: ``depth`` levels of folders (1 to 8).
    """

    job: str
    op: FileOp
    path: str
    profile: str = "work"
    content: str | None = None
    old: str | None = None
    new: str | None = None
    all: bool = False
    offset: int | None = None
    limit: int | None = None
    depth: int | None = None


@dataclass(frozen=True, slots=True)
class FileOutcome:
    """``text`` when ``ok``, else ``error``: one sentence that says what to do, with sandbox paths only.

    ``truncated_bytes``: how much of the file follows after what was read. ``lossy`` as in RunOutcome.
    """

    ok: bool
    text: str
    error: str
    truncated_bytes: int
    lossy: bool = False


class Blobs:
    """Collects what travels beside a frame; ``descriptors`` are the sender's to hand over or close."""

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def text(self, text: str) -> str | dict[str, int]:
        """The JSON form of a text: itself, or a reference when it is long."""
        if len(text) <= MEMFD_ABOVE // 4:
            return text
        data = text.encode()
        return text if len(data) <= MEMFD_ABOVE else self.data(data)

    def data(self, data: bytes) -> dict[str, int]:
        """The JSON form of bytes: always a reference."""
        self.descriptors.append(to_memfd(data))
        return {"fd": len(self.descriptors) - 1, "bytes": len(data)}

    def close(self) -> None:
        """Close what was not handed over."""
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors.clear()


def take_data(value: Any, descriptors: list[int]) -> bytes:
    """The bytes behind a reference. Raises WireError."""
    if type(value) is not dict or value.keys() != {"fd", "bytes"}:
        raise _bad()
    index, size = value["fd"], value["bytes"]
    if type(index) is not int or not 0 <= index < len(descriptors) or type(size) is not int:
        raise _bad()
    data = from_memfd(descriptors[index], max_bytes=MAX_TEXT_BYTES)
    if len(data) != size:
        raise _bad()
    return data


def take_text(value: Any, descriptors: list[int]) -> str:
    """A text, or the text behind a reference. Raises WireError, also for bytes that are not UTF-8."""
    if type(value) is str:
        return value
    try:
        return take_data(value, descriptors).decode("utf-8")
    except UnicodeDecodeError as exc:
        raise _bad() from exc


# ── requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def run_body(request: RunRequest, blobs: Blobs) -> dict[str, Any]:
    """The keys of a ``run`` frame. Raises WireError for an argument that no program can take (NUL, surrogate)."""
    if not all(map(_plain, request.argv)):
        raise _bad()
    joined = "\0".join(request.argv).encode()
    body: dict[str, Any] = {
        "job": request.job,
        "argv": list(request.argv) if len(joined) <= MEMFD_ABOVE else blobs.data(joined),
        "profile": request.profile,
        "env": dict(request.env),
        "limits": {f.name: getattr(request.limits, f.name) for f in fields(Limits)},
    }
    if request.cwd is not None:
        body["cwd"] = request.cwd
    if request.stdin is not None:
        body["stdin"] = blobs.data(request.stdin)
    return body


def parse_run(body: dict[str, Any], descriptors: list[int]) -> RunRequest:
    """A ``run`` frame's keys, checked. Raises WireError("bad_request")."""
    _keys(body, {"job", "argv", "profile"}, {"cwd", "env", "stdin", "limits"})
    argv = body["argv"]
    if type(argv) is dict:
        argv = take_text(argv, descriptors).split("\0")
    env = body.get("env", {})
    cwd = body.get("cwd")
    if type(argv) is not list or not 1 <= len(argv) <= MAX_ARGUMENTS or not all(map(_plain, argv)) or not argv[0]:
        raise _bad()
    if type(env) is not dict or len(env) > MAX_ENV or not all(_env(*item) for item in env.items()):
        raise _bad()
    if cwd is not None and not (_plain(cwd) and cwd.startswith("/") and len(cwd) < 4096):
        raise _bad()
    stdin = take_data(body["stdin"], descriptors) if "stdin" in body else None
    return RunRequest(
        _job(body["job"]), tuple(argv), cwd, _profile(body["profile"]), tuple(env.items()), stdin,
        _limits(body.get("limits", {})),
    )  # fmt: skip


def file_body(request: FileRequest, blobs: Blobs) -> dict[str, Any]:
    """The keys of a ``file`` frame; what is None is left out."""
    body: dict[str, Any] = {f.name: getattr(request, f.name) for f in fields(FileRequest)}
    for key in _TEXTS:
        if body[key] is not None:
            if not _text(body[key]):
                raise _bad()
            body[key] = blobs.text(body[key])
    return {key: value for key, value in body.items() if value is not None}


def parse_file(body: dict[str, Any], descriptors: list[int]) -> FileRequest:
    """A ``file`` frame's keys, checked. Raises WireError("bad_request")."""
    _keys(body, {"job", "op", "path", "profile"}, {"content", "old", "new", "all", "offset", "limit", "depth"})
    op, path, every = body["op"], body["path"], body.get("all", False)
    if type(op) is not str or op not in _OPS or not _text(path) or type(every) is not bool:
        raise _bad()
    wanted = {"write": {"content"}, "edit": {"old", "new"}}.get(op, set())
    if not wanted <= body.keys():
        raise _bad()
    content, old, new = (take_text(body[key], descriptors) if key in body else None for key in _TEXTS)
    offset, limit, depth = (body.get(key) for key in ("offset", "limit", "depth"))
    if not all(text is None or _text(text) for text in (content, old, new)):
        raise _bad()
    if not all(n is None or (type(n) is int and n >= 0) for n in (offset, limit, depth)):
        raise _bad()
    return FileRequest(
        _job(body["job"]), cast("FileOp", op), path, _profile(body["profile"]),
        content, old, new, every, offset, limit, depth,
    )  # fmt: skip


def parse_job(body: dict[str, Any]) -> str:
    """The job of a ``kill`` frame."""
    _keys(body, {"job"}, set())
    return _job(body["job"])


# ── answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def answer(outcome: RunOutcome | FileOutcome, *texts: str) -> dict[str, Any]:
    """An answer frame: the outcome's fields, the named ``texts`` by reference when they are long."""
    blobs = Blobs()
    body = {f.name: getattr(outcome, f.name) for f in fields(outcome)}
    for name in texts:
        body[name] = blobs.text(body[name])
    if "ok" in body:
        body["done"] = body.pop("ok")  # `ok` of a frame says whether the request was one
    return {**body, "_descriptors": blobs.descriptors} if blobs.descriptors else body


def parse_run_answer(body: dict[str, Any]) -> RunOutcome:
    """The core's side of a ``run`` answer. Closes its descriptors. Raises WireError when it is not one."""
    with _Taken(body) as descriptors:
        body = body | {name: take_text(body[name], descriptors) for name in ("stdout", "stderr")}
        counts = (body["stdout_bytes"], body["stderr_bytes"], body["wall_ms"], body["max_rss_bytes"])
        status = (body["exit"], body["signal"])
        if body["ended"] not in _ENDED or type(body["lossy"]) is not bool or any(type(n) is not int for n in counts):
            raise _bad()
        if not all(n is None or type(n) is int for n in status):
            raise _bad()
        return RunOutcome(*status, body["ended"], body["stdout"], body["stderr"], *counts, body["lossy"])


def parse_file_answer(body: dict[str, Any]) -> FileOutcome:
    """The core's side of a ``file`` answer. Closes its descriptors. Raises WireError when it is not one."""
    with _Taken(body) as descriptors:
        text, error, done = take_text(body["text"], descriptors), body["error"], body["done"]
        truncated, lossy = body["truncated_bytes"], body["lossy"]
        if type(done) is not bool or type(error) is not str or type(truncated) is not int or type(lossy) is not bool:
            raise _bad()
        return FileOutcome(done, text, error, truncated, lossy)


class _Taken:
    """Takes the descriptors out of an answer, closes them at the end; a missing key is a bad answer."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._descriptors: list[int] = body.pop("_descriptors", [])

    def __enter__(self) -> list[int]:
        return self._descriptors

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, _: object) -> None:
        for fd in self._descriptors:
            os.close(fd)
        if isinstance(exc, KeyError):
            raise _bad() from exc


# ── single values ────────────────────────────────────────────────────────────────────────────────────────────────


def _bad() -> WireError:
    return WireError("bad_request", "the request does not fit the verb")


def _keys(body: dict[str, Any], needed: set[str], optional: set[str]) -> None:
    if not needed <= body.keys() <= needed | optional:
        raise _bad()


def _text(value: Any) -> bool:
    """A text that has a UTF-8 form."""
    return type(value) is str and not re.search("[\ud800-\udfff]", value)


def _plain(value: Any) -> bool:
    """A text that an argument of a program can hold."""
    return _text(value) and "\0" not in value


def _env(name: Any, value: Any) -> bool:
    return bool(_plain(value) and _ENV_NAME.fullmatch(name) and not _ENV_REFUSED.fullmatch(name))


def _job(value: Any) -> str:
    if type(value) is not str or not _JOB.fullmatch(value):
        raise _bad()
    return value


def _profile(value: Any) -> str:
    if type(value) is not str or not _PROFILE.fullmatch(value):
        raise _bad()
    return value


def _limits(value: Any) -> Limits:
    if type(value) is not dict or not value.keys() <= {f.name for f in fields(Limits)}:
        raise _bad()
    if not all(type(n) is int and n >= 1 for n in value.values()):
        raise _bad()
    return Limits(**value)
