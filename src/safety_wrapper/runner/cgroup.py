"""A delegated cgroup, so that the memory and processes of a whole sandbox have a bound, not only each process.

Root calls :func:`delegate` in the process that is about to become the runner, before it drops its uid; the runner
calls :func:`find`. Version 1 (memory and pids hierarchies) and version 2 (memory and pids controllers) both serve.
Nothing found is no fault: the runner then says ``memory: per process only``.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safety_wrapper.runner.protocol import Limits

NAME: Final = "safety-wrapper-{uid}"
#: bubblewrap's two processes, prlimit and the one that forks while another ends.
SPARE_PROCESSES: Final = 4
_SHARE_OF_MACHINE: Final = 0.75
_SELF: Final = Path("/proc/self")
_CONTROLLERS: Final = "+memory +pids"
_LEAF: Final = "runner"
_CLEAR_TRIES: Final = 100


@dataclass(frozen=True, slots=True)
class Hierarchies:
    """The cgroups that a process lives in, as folders: v1 memory, v1 pids, v2. None = there is none."""

    memory: Path | None
    pids: Path | None
    unified: Path | None


@dataclass(frozen=True, slots=True)
class Delegated:
    """Folders that belong to the runner; ``version`` 1 has one for each controller, 2 has one for both."""

    version: int
    memory: Path
    pids: Path | None

    def folders(self) -> list[Path]:
        """Every folder of the delegation, once."""
        return [self.memory] if self.pids is None or self.pids == self.memory else [self.memory, self.pids]


class Slot:
    """The cgroup of one job: made, entered by the sandbox's first process, emptied, removed."""

    def __init__(self, delegated: Delegated, job: str, limits: Limits) -> None:
        """Make and bound it. Raises OSError; nothing is left behind then."""
        self._version = delegated.version
        self.folders = [folder / f"job-{job}" for folder in delegated.folders()]
        self.entries: list[int] = []
        try:
            for folder in self.folders:
                folder.mkdir()
            self._bound(delegated, limits)
            self.entries = [os.open(f / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for f in self.folders]
        except OSError:
            self.remove()
            raise

    def _bound(self, delegated: Delegated, limits: Limits) -> None:
        memory, total = self.folders[0], str(limits.total_memory_bytes)
        processes = str(limits.processes + SPARE_PROCESSES)
        if self._version == 2:
            _write(memory / "memory.max", total)
            _write(memory / "pids.max", processes)
            for name, value in (("memory.swap.max", "0"), ("memory.oom.group", "1")):
                with contextlib.suppress(OSError):
                    _write(memory / name, value)
            return
        _write(memory / "memory.limit_in_bytes", total)
        with contextlib.suppress(OSError):  # only where the kernel counts swap
            _write(memory / "memory.memsw.limit_in_bytes", total)
        if delegated.pids is not None:
            _write(self.folders[-1] / "pids.max", processes)

    def enter(self) -> None:
        """Put the calling process in. Runs in the forked child, before anything else of it."""
        for fd in self.entries:
            os.write(fd, b"0")

    def peak_bytes(self) -> int:
        """The most memory that the job held at once; 0 when the kernel does not say."""
        name = "memory.peak" if self._version == 2 else "memory.max_usage_in_bytes"
        try:
            return int(_read(self.folders[0] / name))
        except (OSError, ValueError):
            return 0

    def kill(self) -> None:
        """Send SIGKILL to whatever is inside."""
        _kill_all(self.folders)

    def remove(self) -> bool:
        """Close and remove the folders; False while something is still inside (then call again)."""
        for fd in self.entries:
            os.close(fd)
        self.entries.clear()
        gone = True
        for folder in self.folders:
            try:
                folder.rmdir()
            except FileNotFoundError:
                continue
            except OSError:
                gone = False
        return gone


def delegate(uid: int) -> Delegated | None:
    """As root: make cgroups that ``uid`` may divide further; the calling process moves into one (version 2 demands
    it). None where the machine offers none, or does not let us. Call it in the child that becomes the runner."""
    own = hierarchies()
    try:
        if own.memory is not None:
            return _delegate_v1(own.memory, own.pids, uid)
        if own.unified is not None:
            return _delegate_v2(own.unified, uid)
    except OSError:
        return None
    return None


def find(uid: int, configured: Path | None = None) -> Delegated | None:
    """The cgroups that :func:`delegate`, systemd (``Delegate=yes``) or the administrator (``configured``) gave to
    ``uid``; leftovers of an earlier runner in them are killed. None when there are none that work."""
    own = hierarchies()
    found = _find_v1(own, uid, configured) or _find_v2(own, uid, configured)
    if found is not None:
        sweep(found)
    return found


def sweep(delegated: Delegated) -> None:
    """Kill and remove what an earlier runner left behind."""
    _clear([job for folder in delegated.folders() for job in folder.glob("job-*")])


def release(uid: int) -> bool:
    """As root: remove what :func:`delegate` made, when the runner is gone. False when something is still inside, such
    as a zombie that init has yet to reap."""
    own, gone = hierarchies(), True
    for base in (own.memory, own.pids, own.unified):
        if base is not None:
            folder = base / NAME.format(uid=uid)
            _clear([*folder.glob("jobs/job-*"), *folder.glob("job-*")])
            _clear([folder / "jobs", folder / _LEAF])
            gone &= _clear([folder])
    return gone


def _clear(folders: list[Path]) -> bool:
    """Kill what is inside and remove the folders; the kernel takes a moment. False when one stays."""
    for _ in range(_CLEAR_TRIES):
        _kill_all(folders)
        folders = [folder for folder in folders if not _removed(folder)]
        if not folders:
            return True
        time.sleep(0.02)
    return False


def hierarchies(mounts: str | None = None, membership: str | None = None) -> Hierarchies:
    """Where the calling process lives. The arguments stand for /proc/self/mountinfo and /proc/self/cgroup."""
    mounts = (_SELF / "mountinfo").read_text() if mounts is None else mounts
    membership = (_SELF / "cgroup").read_text() if membership is None else membership
    places: dict[str, str] = {}
    for line in membership.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            places[name] = path
    found: dict[str, Path] = {}
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        root, point = left.split(" ")[3:5]
        if kind == "cgroup2" and "" in places:
            found["unified"] = _place(point, root, places[""])
        elif kind == "cgroup":
            for name in ("memory", "pids"):
                if name in options.split(" ")[-1].split(",") and name in places:
                    found[name] = _place(point, root, places[name])
    return Hierarchies(found.get("memory"), found.get("pids"), found.get("unified"))


def _place(point: str, root: str, path: str) -> Path:
    """The folder of cgroup ``path`` where the hierarchy's folder ``root`` is mounted at ``point``."""
    inner = path if root == "/" else path.removeprefix(root)
    folder = Path(point + inner.rstrip("/"))
    return folder if folder.is_dir() else Path(point)


def _delegate_v1(memory: Path, pids: Path | None, uid: int) -> Delegated:
    folders = []
    for base in (memory, pids):
        if base is None:
            continue
        folder = base / NAME.format(uid=uid)
        folder.mkdir(exist_ok=True)
        _give(folder, uid, ("cgroup.procs", "tasks"))
        folders.append(folder)
    _write(folders[0] / "memory.limit_in_bytes", str(_machine_share()))
    return Delegated(1, folders[0], folders[1] if len(folders) > 1 else None)


def _delegate_v2(base: Path, uid: int) -> Delegated | None:
    controllers = _read(base / "cgroup.controllers").split()
    if "memory" not in controllers or "pids" not in controllers:
        return None
    if (base / "cgroup.type").exists() and _delegated_by_systemd(base):
        _move_into(base, "main")  # a cgroup that is not the root can't both hold processes and share controllers
    _write(base / "cgroup.subtree_control", _CONTROLLERS)
    folder = base / NAME.format(uid=uid)
    folder.mkdir(exist_ok=True)
    jobs = _divide(folder)
    (folder / _LEAF).mkdir(exist_ok=True)
    _write(folder / _LEAF / "cgroup.procs", str(os.getpid()))
    for part in (folder, jobs, folder / _LEAF):
        _give(part, uid, ("cgroup.procs", "cgroup.subtree_control"))
    return Delegated(2, jobs, jobs)


def _divide(folder: Path) -> Path:
    """Below a version 2 folder: the one for jobs, bounded as a whole, beside the leaf where the runner lives."""
    _write(folder / "cgroup.subtree_control", _CONTROLLERS)
    jobs = folder / "jobs"
    jobs.mkdir(exist_ok=True)
    with contextlib.suppress(PermissionError):  # set by root already
        _write(jobs / "memory.max", str(_machine_share()))
    _write(jobs / "cgroup.subtree_control", _CONTROLLERS)
    return jobs


def _find_v1(own: Hierarchies, uid: int, configured: Path | None) -> Delegated | None:
    if own.memory is None:
        return None
    name = NAME.format(uid=uid)
    memory = configured or own.memory / name
    pids = None if own.pids is None else own.pids / (memory.name if configured else name)
    if not (memory / "memory.limit_in_bytes").exists() or not _writable(memory):
        return None
    return Delegated(1, memory, pids if pids is not None and _writable(pids) else None)


def _find_v2(own: Hierarchies, uid: int, configured: Path | None) -> Delegated | None:
    if own.unified is None:
        return None
    # After delegate() this process lives in <folder>/runner; under systemd in the folder that the unit was given.
    folder = configured or (own.unified.parent if own.unified.name == _LEAF else own.unified)
    try:
        if not _writable(folder) or not {"memory", "pids"} <= set(_read(folder / "cgroup.controllers").split()):
            return None
        if folder == own.unified:
            if _read(folder / "cgroup.procs").split() != [str(os.getpid())]:
                return None  # a terminal's or a session's cgroup: other processes are not ours to move
            _move_into(folder, _LEAF)
        jobs = _divide(folder)
    except OSError:
        return None
    return Delegated(2, jobs, jobs)


def _move_into(folder: Path, name: str) -> None:
    (folder / name).mkdir(exist_ok=True)
    for pid in _read(folder / "cgroup.procs").split():
        _write(folder / name / "cgroup.procs", pid)


def _delegated_by_systemd(folder: Path) -> bool:
    for attribute in ("trusted.delegate", "user.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(folder, attribute) == b"1":
                return True
    return False


def _give(folder: Path, uid: int, names: Iterable[str]) -> None:
    os.chown(folder, uid, -1)
    for name in names:
        if (folder / name).exists():
            os.chown(folder / name, uid, -1)


def _writable(folder: Path) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _machine_share() -> int:
    """Most of the machine: whatever the sandboxes do together, the rest keeps a quarter."""
    return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * _SHARE_OF_MACHINE)


def _kill_all(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            for pid in _read(folder / "cgroup.procs").split():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(int(pid), signal.SIGKILL)


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _read(path: Path) -> str:
    return path.read_text(encoding="ascii")


def _write(path: Path, value: str) -> None:
    path.write_text(value, encoding="ascii")
