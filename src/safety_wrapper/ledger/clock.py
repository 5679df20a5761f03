"""The clock rule of expiry (docs/reference/approvals.md §1): time that an attacker or a dead battery can't turn back.

``t_eff`` never goes back and never runs slower than the boot clock. What can't be trusted after a reboot is not
guessed: the caller is told, and expires everything that was open. Readings are passed in; only SystemClock looks.
"""

from __future__ import annotations

import ctypes
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

_NS: Final = 1_000_000_000
_TIME_ERROR: Final = 5  # adjtimex: the clock is not synchronised
_STA_UNSYNC: Final = 0x40
_STATUS_OFFSET: Final = 40  # of timex.status in the 64-bit ABI
_TIMEX_BYTES: Final = 208
_ASK_AGAIN_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """One look at the clocks: wall clock in seconds since the epoch, seconds since boot, the boot's id, and whether
    the kernel says that the wall clock is synchronised."""

    wall_s: int
    boottime_s: float
    boot_id: str
    synchronised: bool


class Clock(Protocol):
    """Whatever can be asked for the time."""

    def reading(self) -> ClockReading:
        """Look at the clocks now."""
        ...


@dataclass(frozen=True, slots=True)
class ClockMark:
    """The high-water mark as it is stored with each commit. Nanoseconds, so that many short steps add up."""

    t_ns: int
    boottime_ns: int
    boot_id: str
    synchronised: bool

    @property
    def now(self) -> int:
        """``t_eff`` in whole seconds."""
        return self.t_ns // _NS


def advance(mark: ClockMark | None, reading: ClockReading) -> tuple[ClockMark, bool]:
    """The next mark, and whether everything open must expire because the time in between can't be known.

    ``mark`` is None in a new ledger. A boot clock that went back within one boot (a machine restored from a
    snapshot) counts as another boot of unknown length.
    """
    wall_ns = reading.wall_s * _NS
    boot_ns = int(reading.boottime_s * _NS)
    if mark is None:
        return ClockMark(wall_ns, boot_ns, reading.boot_id, reading.synchronised), False
    if mark.boot_id == reading.boot_id and boot_ns >= mark.boottime_ns:
        t_ns = max(wall_ns, mark.t_ns + boot_ns - mark.boottime_ns)
        return ClockMark(t_ns, boot_ns, reading.boot_id, reading.synchronised), False
    known = (
        mark.boot_id != reading.boot_id and reading.synchronised and mark.synchronised and wall_ns >= _whole(mark.t_ns)
    )
    return ClockMark(max(wall_ns, mark.t_ns), boot_ns, reading.boot_id, reading.synchronised), not known


def wait_synchronised(clock: Clock, mark: ClockMark | None, seconds: float) -> None:
    """After a reboot wait up to ``seconds`` for synchronisation; returns at once where waiting can't help."""
    if mark is None or not mark.synchronised:
        return
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        reading = clock.reading()
        if reading.synchronised or reading.boot_id == mark.boot_id:
            return
        time.sleep(min(0.5, max(0.0, end - time.monotonic())))


class Timekeeper:
    """One ledger's time, for its writer and all readers: what one of them has seen, none sees go back.

    ``mark`` runs ahead of the stored one between commits; each commit stores it.
    """

    __slots__ = ("_clock", "_lock", "mark")

    def __init__(self, clock: Clock, mark: ClockMark | None) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self.mark = mark

    def step(self) -> tuple[ClockMark, bool]:
        """The mark of this moment, and whether everything open must expire first (see ``advance``).

        A distrusted moment is adopted only by ``trust``, after that expiry is durable. Thread-safe. Hot path.
        """
        with self._lock:
            mark, distrusted = advance(self.mark, self._clock.reading())
            if not distrusted:
                self.mark = mark
            return mark, distrusted

    def trust(self, mark: ClockMark) -> None:
        """Go on from ``mark``: what was open before it has expired, durably."""
        with self._lock:
            self.mark = mark


class SystemClock:
    """The machine's own clocks. A kernel that can't be asked counts as not synchronised."""

    __slots__ = ("_asked_at", "_boot_id", "_synchronised")

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        self._asked_at = -_ASK_AGAIN_S
        self._synchronised = False

    def reading(self) -> ClockReading:
        """Look at the clocks now; the kernel is asked for its synchronisation at most once a second. Hot path."""
        boottime = time.clock_gettime(time.CLOCK_BOOTTIME)
        if boottime - self._asked_at >= _ASK_AGAIN_S:
            self._synchronised = kernel_synchronised()
            self._asked_at = boottime
        return ClockReading(int(time.time()), boottime, self._boot_id, self._synchronised)


def kernel_synchronised() -> bool:
    """Whether the kernel says that the wall clock follows a time source. False where it can't be asked."""
    # Zeroed modes: adjtimex only reads, which needs no privilege.
    timex = ctypes.create_string_buffer(_TIMEX_BYTES)
    state = int(ctypes.CDLL(None).adjtimex(timex))
    status = int.from_bytes(timex.raw[_STATUS_OFFSET : _STATUS_OFFSET + 4], "little")
    return 0 <= state < _TIME_ERROR and not status & _STA_UNSYNC


def _whole(t_ns: int) -> int:
    """The wall clock is read in whole seconds, so the mark is compared in whole seconds too."""
    return t_ns // _NS * _NS
