"""A real runner in a process of its own, as it stands on a machine: started by root, then dropped to a spare uid.

Where the suite is not root itself, runner, core and tests are one user; what then can't hold is asked of the kernel in
other tests. No mock: real bubblewrap, a real socket, real cgroups where the machine lets us.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safety_wrapper.config import Config, parse
from safety_wrapper.runner import cgroup, preload, serve
from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.runner.protocol import FileOutcome, FileRequest, Limits, RunOutcome, RunRequest

ROOT = os.geteuid() == 0
OTHER_UID = 64_104
#: Spare uids, one for each installation: what runs under it is that runner's, and can be counted.
_uids = iter(range(100_000 + os.getpid() % 10_000 * 1_000, 2**31))
QUICK = Limits(wall_s=20)
_numbers = iter(range(1, 1_000_000))


def job_name() -> str:
    """A job id that no other test of this process uses."""
    return f"job_{os.getpid()}_{next(_numbers)}"


@dataclass
class Place:
    """An installation in a folder of its own: state, run, bundle, a workspace and a read-only folder."""

    root: Path
    settings: dict[str, Any] = field(default_factory=dict)
    core: int | None = None
    uid: int = field(default_factory=lambda: next(_uids) if ROOT else os.getuid())

    def __post_init__(self) -> None:
        for name in ("state/core", "bundle", "run/runner", "run/agent", "run/admin", "work", "library", "outside"):
            (self.root / name).mkdir(parents=True)
        (self.root / "library/book.txt").write_text("chapter one\n")
        if ROOT:
            self.root.chmod(0o755)
            for name in ("work", "run/runner"):
                os.chown(self.root / name, self.uid, self.uid)

    @property
    def work(self) -> Path:
        return self.root / "work"

    def config(self) -> Config:
        binds = [
            {"from": str(self.work), "to": "/work", "mode": "rw"},
            {"from": str(self.root / "library"), "to": "/library", "mode": "ro"},
        ]
        runner = {"profiles": [{"name": "work", "binds": binds, "tmp_bytes": 4 * 1024**2}], **self.settings}
        return parse(
            {
                "paths": {name: str(self.root / name) for name in ("state", "run", "bundle")},
                "users": {"core": os.getuid() if self.core is None else self.core, "runner": self.uid},
                "runner": runner,
            },
            {},
        )


@dataclass
class RunnerProcess:
    """A started runner: its installation, its pid and short ways to ask it."""

    place: Place
    config: Config
    pid: int

    def ask[T](self, talk: Callable[[RunnerClient], Awaitable[T]]) -> T:
        """Run ``talk`` with a client of its own connection."""

        async def session() -> T:
            client = RunnerClient(self.config.paths.runner_socket)
            try:
                return await talk(client)
            finally:
                client.close()
                await asyncio.sleep(0)

        return asyncio.run(session())

    def run(self, *argv: str, limits: Limits = QUICK, **more: Any) -> RunOutcome:
        request = RunRequest(job_name(), argv, limits=limits, **more)
        return self.ask(lambda client: client.run(request))

    def shell(self, text: str, limits: Limits = QUICK, **more: Any) -> RunOutcome:
        return self.run("/bin/bash", "-c", text, limits=limits, **more)

    def python(self, code: str, limits: Limits = QUICK, **more: Any) -> RunOutcome:
        return self.run("/usr/bin/python3", "-c", code, limits=limits, **more)

    def file(self, op: str, path: str, **more: Any) -> FileOutcome:
        request = FileRequest(job_name(), op, path, **more)  # type: ignore[arg-type]
        return self.ask(lambda client: client.file(request))


@contextmanager
def place(*, core: int | None = None, **settings: Any) -> Iterator[Place]:
    """A folder that every uid can reach (pytest's own is closed to the runner's); ``settings``: of section runner."""
    root = Path(tempfile.mkdtemp(prefix="sw-runner-"))
    installation = Place(root, settings, core)
    try:
        yield installation
    finally:
        shutil.rmtree(root)
        if ROOT:
            wait_for(lambda: cgroup.release(installation.uid))


@contextmanager
def started(
    installation: Place, *, delegated: bool = True, first: Callable[[], None] = lambda: None
) -> Iterator[RunnerProcess]:
    """A running runner on ``installation``; stopped, and checked to leave no process behind, at the end."""
    config = installation.config()
    pid = start(installation, delegated=delegated, first=first)
    try:
        wait_for(config.paths.runner_socket.exists, pid)
        yield RunnerProcess(installation, config, pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        assert no_processes_left(installation), "the runner left processes behind"


def start(installation: Place, *, delegated: bool = True, first: Callable[[], None] = lambda: None) -> int:
    """Fork the runner as the supervisor does: import, delegate, drop, (``first``,) serve. Returns its pid."""
    preload()
    config, uid = installation.config(), installation.uid
    pid = fork()
    if pid:
        return pid
    status = 1
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if ROOT:
            if delegated:
                cgroup.delegate(uid)
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        first()
        serve(config)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def fork() -> int:
    """os.fork; other tests of the suite may have left threads, which the child does without."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def wait_for(condition: Callable[[], object], pid: int | None = None, seconds: float = 20.0) -> None:
    """Wait until ``condition``; fail when it does not come, or process ``pid`` has ended."""
    end = time.monotonic() + seconds
    while not condition():
        if pid is not None and os.waitpid(pid, os.WNOHANG) != (0, 0):
            raise AssertionError("the runner ended")
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


async def jobs_are(client: RunnerClient, count: int) -> list[str]:
    """The names of the runs, as soon as there are ``count``."""
    async with asyncio.timeout(20):
        while len(jobs := await client.jobs()) != count:  # noqa: ASYNC110 - the runner is another process
            await asyncio.sleep(0.01)
    return [job["job"] for job in jobs]


def processes(installation: Place) -> list[tuple[int, str]]:
    """pid and command line of the runner and all its sandboxes: whatever has its uid, its zombies too (not those that
    the machine's init has yet to reap). Where the suite shares that uid: whatever sees the workspace from within."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            status = (entry / "status").read_text()
            if ROOT:
                mine = int(status.split("Uid:")[1].split()[0]) == installation.uid
            else:
                mine = f"{installation.work} /work " in (entry / "mountinfo").read_text()
            if mine and not ("State:\tZ" in status and "PPid:\t1\n" in status):
                found.append((int(entry.name), words or status.splitlines()[0]))
    return found


def no_processes_left(installation: Place) -> bool:
    """True once nothing of the runner is alive; waits a little, since the kernel ends a tree in its own time."""
    end = time.monotonic() + 5
    while processes(installation):
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def sandboxes(runner: RunnerProcess) -> list[tuple[int, str]]:
    """What runs now besides the runner itself."""
    return [found for found in processes(runner.place) if found[0] != runner.pid]
