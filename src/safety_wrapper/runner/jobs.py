"""One run: a sandbox started, watched, bounded and ended, with nothing left behind.

Two processes are watched by pidfd: bubblewrap itself (our child) and the sandbox's first process, whose end means
that the kernel has already ended every other process inside. A run is over when both are; whether someone still holds
the output's pipes plays no part. Bubblewrap may go before the sandbox's first process, which then becomes our child
(:func:`adopt_orphans`), so that no zombie depends on how well the machine's own init reaps.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from safety_wrapper.runner import limits as limits_of
from safety_wrapper.runner.cgroup import Slot
from safety_wrapper.runner.protocol import Ended, Limits, RunOutcome
from safety_wrapper.runner.sandbox import Launch, abandon

START_FAILED: Final = "The sandbox could not be started: check that the working folder exists.\n"
_CHUNK: Final = 65_536
_PR_SET_CHILD_SUBREAPER: Final = 36
_UMASK: Final = 0o027
#: After the sandbox's first process was killed, bubblewrap ends by itself; it is killed when that takes this long.
_PATIENCE_S: Final = 3.0
_REMOVE_AGAIN_S: Final = 0.05
_REMOVE_TRIES: Final = 200


def adopt_orphans() -> None:
    """Make this process the parent of what its children leave behind. Where the kernel refuses, init reaps them."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


class Job:
    """A run from its start to its outcome. Made inside the running loop; ``done`` holds the outcome.

    Takes over ``launch`` and ``slot``: both are closed and removed whatever happens.
    """

    def __init__(self, name: str, launch: Launch, limits: Limits, slot: Slot | None) -> None:
        self.name = name
        self.started = time.monotonic()
        self._limits = limits
        self._slot = slot
        self._launch = launch
        self._loop = asyncio.get_running_loop()
        self.done: asyncio.Future[RunOutcome] = self._loop.create_future()
        self._ended: Ended = "exit"
        self._open: set[int] = set()  # descriptors that the loop reads
        self._texts: dict[int, bytearray] = {}
        self._counts: dict[int, int] = {}
        self._report = bytearray()
        self._inner = -1  # pidfd of the sandbox's first process, until it ended
        self._inner_pid = 0
        self._outer = -1  # pidfd of bubblewrap
        self._ran = False  # bubblewrap reported the program's exit status
        self._max_rss_bytes = 0
        self._timers: list[asyncio.TimerHandle] = []
        process = self._spawn()
        if process is None:
            abandon(launch)
            self._remove_slot()
            self.done.set_result(RunOutcome(None, None, "start_failed", "", START_FAILED, 0, 0, 0, 0, lossy=False))
        else:
            self._process = process

    @property
    def elapsed_ms(self) -> int:
        """Milliseconds since the start."""
        return int((time.monotonic() - self.started) * 1000)

    def kill(self, ended: Ended = "killed") -> None:
        """End the whole sandbox. The outcome follows; a second call changes nothing."""
        if self.done.done() or self._ended != "exit":
            return
        self._ended = ended
        self._close_gate()
        # Not reported yet = not past the gate, which is closed now: it gets the signal when it reports, or goes itself.
        if self._inner >= 0:
            _send_kill(self._inner)
        self._timers.append(self._loop.call_later(_PATIENCE_S, self._kill_hard))

    # ── start ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _spawn(self) -> subprocess.Popen[bytes] | None:
        launch, slot, limits = self._launch, self._slot, self._limits

        def enter() -> None:  # runs in the child, between fork and exec
            if slot is not None:
                slot.enter()
            limits_of.apply(limits)
            os.umask(_UMASK)

        ends: list[int] = []
        process = None
        try:
            ends += os.pipe()
            ends += os.pipe()
            self._out, self._err = ends[0], ends[2]
            process = subprocess.Popen(
                launch.command, stdin=launch.stdin, stdout=ends[1], stderr=ends[3], cwd="/", env={},
                pass_fds=launch.inherited, preexec_fn=enter, start_new_session=True,  # noqa: PLW1509  # one thread
            )  # fmt: skip
            self._outer = os.pidfd_open(process.pid)
        except (OSError, subprocess.SubprocessError):
            if process is not None:
                process.kill()
                process.wait()
            for fd in ends:
                os.close(fd)
            return None
        for fd in (ends[1], ends[3]):
            os.close(fd)
        launch.close_inherited()
        self._loop.add_reader(self._outer, self._outer_ended)
        for fd in (self._out, self._err):
            self._texts[fd], self._counts[fd] = bytearray(), 0
            self._watch(fd, self._take_output)
        self._watch(launch.status, self._take_report)
        self._timers.append(self._loop.call_later(limits.wall_s, self.kill, "timeout"))
        return process

    def _first_process(self, pid: int) -> None:
        """Bubblewrap reported the sandbox's first process: take note of it, then let the program start."""
        try:
            inner = os.pidfd_open(pid)
            # The number can only have been reused when bubblewrap has reaped it: then it is no child of bubblewrap.
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            return
        if parent != self._process.pid:
            os.close(inner)
            return
        self._inner, self._inner_pid = inner, pid
        self._loop.add_reader(inner, self._inner_ended)
        if self._ended != "exit":
            _send_kill(inner)
        elif self._launch.gate >= 0:
            with contextlib.suppress(OSError):
                os.write(self._launch.gate, b"g")
            self._close_gate()

    # ── while it runs ────────────────────────────────────────────────────────────────────────────────────────────

    def _take_output(self, fd: int) -> None:
        data = self._read(fd)
        if not data:
            return
        room = self._limits.output_bytes - sum(map(len, self._texts.values()))
        self._counts[fd] += len(data)
        self._texts[fd] += data[:room]
        if len(data) > room:
            self.kill("output_limit")

    def _take_report(self, fd: int) -> None:
        """Bubblewrap's reports, one JSON object a line."""
        self._report += self._read(fd)
        while (end := self._report.find(b"\n")) >= 0:
            line = bytes(self._report[:end])
            del self._report[: end + 1]
            with contextlib.suppress(ValueError):
                report = json.loads(line)
                self._ran = self._ran or "exit-code" in report
                if "child-pid" in report:
                    self._first_process(report["child-pid"])

    def _read(self, fd: int) -> bytes:
        """What is there; at the end of the stream it is closed."""
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self._unwatch(fd)
        return data

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────

    def _inner_ended(self) -> None:
        self._loop.remove_reader(self._inner)
        os.close(self._inner)
        self._inner = -1
        self._finish()

    def _outer_ended(self) -> None:
        self._loop.remove_reader(self._outer)
        os.close(self._outer)
        self._outer = -1
        self._process.returncode = os.waitstatus_to_exitcode(self._reap(self._process.pid))
        if self._launch.status in self._open:
            self._take_report(self._launch.status)  # the last one
        if self._inner >= 0:
            _send_kill(self._inner)  # bubblewrap was killed from outside: the sandbox follows
        self._finish()

    def _finish(self) -> None:
        if self._inner >= 0 or self._outer >= 0 or self.done.done():
            return
        if self._inner_pid:
            with contextlib.suppress(ChildProcessError):  # bubblewrap reaped it
                self._reap(self._inner_pid)
        for fd in (self._out, self._err):
            # The writers are dead: what is left is in the pipe, at most its capacity. Nobody else's end is waited for.
            while fd in self._open and self._counts[fd] <= self._limits.output_bytes:
                before = self._counts[fd]
                self._take_output(fd)
                if self._counts[fd] == before:
                    break
        for timer in self._timers:
            timer.cancel()
        self._close_gate()
        for fd in list(self._open):
            self._unwatch(fd)
        peak = self._slot.peak_bytes() if self._slot is not None else 0
        outcome = self._outcome(peak or self._max_rss_bytes)
        self._remove_slot()
        self.done.set_result(outcome)

    def _reap(self, pid: int) -> int:
        """Take a dead child's status, and note what the largest process below it held."""
        _, status, usage = os.wait4(pid, 0)
        self._max_rss_bytes = max(self._max_rss_bytes, usage.ru_maxrss * 1024)
        return status

    def _outcome(self, max_rss_bytes: int) -> RunOutcome:
        ended, code = self._ended, self._process.returncode
        exit_status = signal_number = None
        if ended != "exit":
            signal_number = int(signal.SIGKILL)
        elif code < 0:
            signal_number = -code  # bubblewrap itself was killed: out of memory, or from outside
        elif not self._ran:
            # Bubblewrap's own words name paths of the host.
            return RunOutcome(
                None, None, "start_failed", "", START_FAILED, 0, 0, self.elapsed_ms, max_rss_bytes, lossy=False
            )
        else:
            exit_status = code
        (out, out_lossy), (err, err_lossy) = _text(self._texts[self._out]), _text(self._texts[self._err])
        counts = (self._counts[self._out], self._counts[self._err])
        lossy = out_lossy or err_lossy
        return RunOutcome(
            exit_status, signal_number, ended, out, err, *counts, self.elapsed_ms, max_rss_bytes, lossy=lossy
        )

    def _kill_hard(self) -> None:
        if self._slot is not None:
            self._slot.kill()
        for pidfd in (self._inner, self._outer):
            if pidfd >= 0:
                _send_kill(pidfd)

    def _remove_slot(self, tries: int = _REMOVE_TRIES) -> None:
        """The kernel frees a cgroup a moment after its last process; a later runner removes what is left."""
        if self._slot is not None and not self._slot.remove() and tries and not self._loop.is_closed():
            self._slot.kill()
            self._loop.call_later(_REMOVE_AGAIN_S, self._remove_slot, tries - 1)

    def _watch(self, fd: int, callback: Callable[[int], None]) -> None:
        os.set_blocking(fd, False)
        self._open.add(fd)
        self._loop.add_reader(fd, callback, fd)

    def _unwatch(self, fd: int) -> None:
        self._open.discard(fd)
        self._loop.remove_reader(fd)
        os.close(fd)

    def _close_gate(self) -> None:
        if self._launch.gate >= 0:
            os.close(self._launch.gate)
            self._launch.gate = -1


def _send_kill(pidfd: int) -> None:
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def _text(data: bytearray) -> tuple[str, bool]:
    """Text with U+FFFD for what is not UTF-8, and whether there was such."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace"), True
