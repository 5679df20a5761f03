"""Starts, watches and stops the processes: each child imports what it needs, then gives up root for good.

Forking instead of executing: an interpreter below a closed home folder can't be started by the other users.
"""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from safety_wrapper import identity, installation, runner, serve
from safety_wrapper.bridge import waker
from safety_wrapper.config import Config
from safety_wrapper.errors import ConfigError, SafetyError, WireError, where
from safety_wrapper.frames import Client
from safety_wrapper.identity import Identity
from safety_wrapper.runner import cgroup

READY_S: Final = 20.0
BACKOFF_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


@dataclass(slots=True)
class Child:
    """One process: how to run it, where it answers, when it was last started."""

    name: str
    main: Callable[[], None]
    who: Identity | None
    socket: Path | None = None
    pid: int = 0
    starts: int = 0
    due_s: float = 0.0


@dataclass(slots=True)
class Supervisor:
    """All processes of one installation. ``say`` gets one line for each start and end."""

    config: Config
    say: Callable[[str], None] = lambda line: None
    children: list[Child] = field(default_factory=list)
    _stopping: bool = False

    def start(self) -> None:
        """Start every process and wait until it answers. Raises ConfigError when one does not come up."""
        who = identity.resolve(self.config.users)
        if os.getuid() == 0 and not who.apart:
            raise ConfigError("as root, each process needs a user of its own", do="set users in the configuration")
        installation.lay_out(self.config, who)
        runner.preload()
        plan = serve.load_plugins(self.config)
        self.children = [
            Child("runner", lambda: _run_runner(self.config, who.runner), None, self.config.paths.runner_socket),
            Child("core", lambda: serve.run(self.config, plan), who.core, self.config.paths.admin_socket),
        ]
        if self.config.gateway.url is not None:
            self.children.append(Child("waker", lambda: waker.main(self.config), None))  # reads the token first
        gc.freeze()  # shared pages stay shared: the collector does not write into them after the fork
        for child in self.children:
            self._start(child)
            self._wait_ready(child)

    def watch(self) -> None:
        """Restart what ends, until SIGTERM or SIGINT; then stop everything."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        try:
            while not self._stopping:
                self.tend()
                time.sleep(0.1)
        finally:
            self.stop()

    def tend(self) -> None:
        """Reap what ended and start again what is due."""
        now_s = time.monotonic()
        for child in self.children:
            if child.pid and _ended(child.pid):
                child.pid = 0
                child.due_s = now_s + BACKOFF_S[min(child.starts, len(BACKOFF_S)) - 1]
                self.say(f"{child.name} ended; it is started again")
            if not child.pid and now_s >= child.due_s and not self._stopping:
                self._start(child)

    def stop(self) -> None:
        """Stop every process, the last started first; kill what does not end within 5 s."""
        self._stopping = True
        for child in reversed(self.children):
            if not child.pid:
                continue
            with contextlib.suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGTERM)
            end_s = time.monotonic() + 5.0
            while not _ended(child.pid):
                if time.monotonic() > end_s:
                    os.kill(child.pid, signal.SIGKILL)
                time.sleep(0.02)
            child.pid = 0

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping = True

    def _start(self, child: Child) -> None:
        child.starts += 1
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            _run_child(child)
        child.pid = pid
        self.say(f"{child.name} started (pid {pid})")

    def _wait_ready(self, child: Child) -> None:
        """A process is ready when it answers hello on its socket, not when the socket is there."""
        if child.socket is None:
            return
        end_s = time.monotonic() + READY_S
        while time.monotonic() < end_s:
            if _ended(child.pid):
                child.pid = 0
                self.stop()
                raise ConfigError(f"{child.name} ended at its start", do="its own message stands above")
            try:
                Client(child.socket, timeout_s=5.0).close()
            except WireError:
                return  # it answers; that it does not admit us is as it should be
            except OSError:
                time.sleep(0.02)
            else:
                return
        self.stop()
        raise ConfigError(f"{child.name} did not become ready within {READY_S:.0f} s")


def up(config: Config, say: Callable[[str], None] = lambda line: None) -> None:
    """Start all processes and watch them until a signal."""
    supervisor = Supervisor(config, say)
    supervisor.start()
    supervisor.watch()


def _run_runner(config: Config, who: Identity) -> None:
    """The runner's cgroup is made by root, in the runner's own process, just before it gives up root."""
    if os.getuid() == 0:
        cgroup.delegate(who.uid)
    identity.become(who)
    runner.serve(config)


def _run_child(child: Child) -> None:
    """Never returns."""
    code = 1
    try:
        os.closerange(3, 2**16)  # nothing that the supervisor has open is a child's affair
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if child.who is not None:
            identity.become(child.who)
        child.main()
        code = 0
    except SafetyError as exc:
        sys.stderr.write(f"safety-wrapper {child.name}: {exc.message}\n")
    except KeyboardInterrupt:
        code = 130
    except BaseException as exc:  # noqa: BLE001 - a forked child must end here, whatever happened
        sys.stderr.write(f"safety-wrapper {child.name}: {where(exc)}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
