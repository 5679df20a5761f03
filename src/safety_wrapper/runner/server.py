"""The runner process: answers ``run``, ``file``, ``kill``, ``jobs`` and ``health`` on runner.sock.

It holds no secret and decides nothing: whoever may speak to its socket (the core's uid, as the kernel names it) has
decided. Whatever cannot be bounded as configured is refused; a lost connection ends the runs that it had asked for.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import pwd
import resource
import signal
import stat
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from safety_wrapper import __version__
from safety_wrapper.errors import ConfigError, WireError
from safety_wrapper.frames import MESSAGES, Handler, Limits, Peer, Request, Server
from safety_wrapper.model import Health
from safety_wrapper.runner import cgroup, files, limits, protocol, sandbox
from safety_wrapper.runner.jobs import Job, adopt_orphans
from safety_wrapper.runner.protocol import FileOutcome, RunOutcome, RunRequest

if TYPE_CHECKING:
    from safety_wrapper.config import Config, RunnerProfile, User

_FRAME: Final = Limits(max_frame_bytes=1024 * 1024, max_in_flight=96, max_bytes_in_flight=32 * 1024 * 1024)
#: A failed probe is repeated at most this often, a good one holds this long.
_PROBE_AGAIN_S, _PROBE_HOLDS_S = 2.0, 60.0
_PROBE_LIMITS: Final = protocol.Limits(wall_s=10, output_bytes=4096)
_STOP_S: Final = 5.0


def preload() -> None:
    """Import everything that the runner will ever need.

    Importing this module has done it, but for what the interpreter loads at first use. Call it before the uid is
    dropped: afterwards the interpreter's own folder may be unreadable.
    """
    for encoding in ("utf-8", "ascii", "latin-1", "unicode_escape"):
        codecs.lookup(encoding)  # encoding an empty text would not load it
    with contextlib.suppress(KeyError):
        pwd.getpwuid(0)
    asyncio.new_event_loop().close()


def serve(config: Config) -> None:
    """Run the runner until SIGTERM or SIGINT. Raises ConfigError: as uid 0, or when the configuration is refused."""
    asyncio.run(serve_forever(config))


async def serve_forever(config: Config, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until the task is cancelled or SIGTERM comes; ``ready`` is called when the socket listens."""
    runner = Runner(config)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    os.umask(0o077)
    adopt_orphans()
    # Sandboxes get their own bound; the runner needs some ten descriptors for each.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    await runner.probe()
    server = runner.listen()
    ready()
    try:
        await stopping.wait()
    finally:
        server.close()
        await runner.stop()


class Runner:
    """The verbs and their state. Raises ConfigError when it must not start."""

    def __init__(self, config: Config) -> None:
        if os.geteuid() == 0 or os.getuid() == 0:
            raise ConfigError("the runner does not run as root", do="set users.runner, or start as another user")
        sandbox.check_profiles(config.runner.profiles, config.paths)
        self._config = config
        self._profiles = {profile.name: profile for profile in config.runner.profiles}
        self._core_uid = uid_of(config.users.core)
        self._cgroup = cgroup.find(os.getuid(), config.runner.cgroup)
        self._jobs: dict[str, Job] = {}
        self._fault: str | None = "not probed yet"
        self._probed = -_PROBE_HOLDS_S
        self._count = 0

    def listen(self) -> Server:
        """Bind the socket; its folder is made by the caller.

        A folder with the set-group-id bit hands its group to the socket, which is then 0660. Without it the socket
        can't be given to the core's group by an ordinary user: the folder's mode and the peer's uid hold alone.
        """
        path = self._config.paths.runner_socket
        verbs: dict[str, Handler] = {
            "hello": self._hello, "run": self._run, "file": self._file, "kill": self._kill, "jobs": self._list,
            "health": self._health,
        }  # fmt: skip
        server = Server(verbs, admit=self._admit, limits=_FRAME, on_fault=_report_fault)
        try:
            shared = self._core_uid != os.getuid() and not path.parent.stat().st_mode & stat.S_ISGID
            server.listen(path, mode=0o666 if shared else 0o660)
        except OSError as exc:
            raise ConfigError(
                f"{path}: {exc.strerror}", do="make this folder, writable for the runner's user only"
            ) from exc
        return server

    async def stop(self) -> None:
        """End every run."""
        for job in self._jobs.values():
            job.kill()
        pending = [job.done for job in self._jobs.values() if not job.done.done()]
        if pending:
            await asyncio.wait(pending, timeout=_STOP_S)
        await asyncio.sleep(0.05)  # lets the last cgroup folders go

    async def probe(self) -> None:
        """Build a real sandbox and run ``true`` in it, unless one was built a moment ago."""
        age = time.monotonic() - self._probed
        if age < (_PROBE_HOLDS_S if self._fault is None else _PROBE_AGAIN_S):
            return
        self._probed = time.monotonic()
        self._fault = sandbox.missing() or await self._trial()

    async def _trial(self) -> str | None:
        from_data = self._profiles.get("work") or next(iter(self._profiles.values()), None)
        if from_data is None:
            return "no profile is configured: add one to runner.profiles"
        bare = from_data.model_copy(update={"binds": []})
        self._count += 1
        request = RunRequest(f"probe.{self._count}", ("/usr/bin/true",), profile=bare.name)
        try:
            outcome = await self._start(request, bare, _PROBE_LIMITS).done
        except OSError:
            return "no sandbox can be started: too few descriptors, or the cgroup can't be divided"
        if outcome.ended == "exit" and outcome.exit == 0:
            return None
        return "bubblewrap can't build a sandbox: user namespaces are probably refused (see docs/reference/runner.md)"

    # ── verbs ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _admit(self, peer: Peer) -> bool:
        return peer.uid == self._core_uid

    async def _hello(self, request: Request) -> dict[str, Any]:
        if request.body:
            raise _error("bad_request")
        return {"version": __version__, "ready": self._fault is None}

    async def _run(self, request: Request) -> dict[str, Any]:
        wanted = protocol.parse_run(request.body, request.descriptors)
        profile = self._profile(wanted.profile)
        await self.probe()
        if self._fault is not None or not sandbox.still_apart(profile, self._config.paths):
            raise _error("unavailable")
        if len(self._jobs) >= self._config.runner.limits.concurrent:
            raise _error("busy")
        if wanted.job in self._jobs:
            raise _error("bad_request")
        try:
            job = self._start(wanted, profile, limits.bounded(wanted.limits, self._config.runner.limits))
        except OSError as exc:
            raise _error("unavailable") from exc
        try:
            outcome: RunOutcome = await asyncio.shield(job.done)
        except asyncio.CancelledError:
            job.kill()  # the connection is gone; the job ends in the background
            raise
        return protocol.answer(outcome, "stdout", "stderr")

    async def _file(self, request: Request) -> dict[str, Any]:
        wanted = protocol.parse_file(request.body, request.descriptors)
        profile = self._profile(wanted.profile)
        if not sandbox.still_apart(profile, self._config.paths):
            raise _error("unavailable")
        bounds = self._config.runner.limits
        before = os.umask(0o027)
        try:
            outcome: FileOutcome = files.perform(
                wanted, profile, text_bytes=bounds.output_bytes, file_bytes=bounds.file_bytes
            )
        finally:
            os.umask(before)
        return protocol.answer(outcome, "text")

    async def _kill(self, request: Request) -> dict[str, Any]:
        job = self._jobs.get(protocol.parse_job(request.body))
        if job is None:
            return {"killed": False}
        job.kill()
        await asyncio.wait([job.done])
        return {"killed": True}

    async def _list(self, request: Request) -> dict[str, Any]:
        if request.body:
            raise _error("bad_request")
        return {"jobs": [{"job": name, "elapsed_ms": job.elapsed_ms} for name, job in self._jobs.items()]}

    async def _health(self, request: Request) -> dict[str, Any]:
        if request.body:
            raise _error("bad_request")
        await self.probe()
        return {
            "checks": [
                {"name": check.name, "ok": check.ok, "detail": check.detail, "weaker": check.weaker}
                for check in self.health()
            ]
        }

    # ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────

    def health(self) -> list[Health]:
        """What holds and what holds less than it could, as of the last probe."""
        one_user = self._core_uid == os.getuid()
        both = self._cgroup is not None and self._cgroup.pids is not None
        bounds = self._config.runner.limits
        return [
            Health("sandbox", self._fault is None, self._fault or "bubblewrap, from an empty root"),
            Health("memory", ok=True, detail=f"{bounds.total_memory_bytes} bytes in total for each run (cgroup)")
            if self._cgroup is not None
            else Health("memory", ok=True, detail="memory: per process only", weaker=True),
            Health("processes", ok=True, detail="cgroup and user namespace" if both else "user namespace only"),
            Health("system calls", ok=True, detail="filtered")
            if sandbox.filter_known()
            else Health("system calls", ok=True, detail="no filter for this machine", weaker=True),
            Health(
                "user", ok=True, weaker=one_user,
                detail="the core's own user: other processes of it are not shut out" if one_user else "its own user",
            ),
        ]  # fmt: skip

    def _profile(self, name: str) -> RunnerProfile:
        profile = self._profiles.get(name)
        if profile is None:
            raise _error("bad_request")
        return profile

    def _start(self, request: RunRequest, profile: RunnerProfile, bounds: protocol.Limits) -> Job:
        """Raises OSError when the sandbox's descriptors or cgroup can't be made."""
        launch = sandbox.prepare(request, profile, bounds)
        try:
            slot = cgroup.Slot(self._cgroup, request.job, bounds) if self._cgroup is not None else None
        except OSError:
            sandbox.abandon(launch)
            raise
        job = self._jobs[request.job] = Job(request.job, launch, bounds, slot)
        job.done.add_done_callback(lambda _: self._jobs.pop(request.job, None))
        return job


def uid_of(user: User | None) -> int:
    """The uid of a configured user; None = our own. Raises ConfigError for a name that the machine does not know."""
    if user is None:
        return os.getuid()
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError as exc:
        raise ConfigError(f"users: there is no user {user}", do="create it, or correct the configuration") from exc


def _report_fault(exc: BaseException) -> None:
    """Name the kind of a fault on stderr, never its text: that may hold parts of a call."""
    print(f"safety-wrapper runner: {type(exc).__name__}", file=sys.stderr, flush=True)


def _error(code: str) -> WireError:
    return WireError(code, MESSAGES[code])
