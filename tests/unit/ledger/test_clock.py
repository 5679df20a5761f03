"""The clock rule, row by row, and as properties."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.ledger.clock import (
    ClockMark,
    ClockReading,
    SystemClock,
    advance,
    kernel_synchronised,
    wait_synchronised,
)
from stateful.rig import START, FakeClock

FIRST = ClockReading(START, 100.0, "a", True)


def mark_of(reading: ClockReading) -> ClockMark:
    return advance(None, reading)[0]


def test_new_ledger_takes_the_wall_clock() -> None:
    mark, distrusted = advance(None, replace(FIRST, synchronised=False))
    assert mark.now == START
    assert not distrusted


def test_same_boot_follows_the_wall_clock_forward() -> None:
    mark, distrusted = advance(mark_of(FIRST), replace(FIRST, wall_s=START + 500, boottime_s=101.0))
    assert (mark.now, distrusted) == (START + 500, False)


def test_same_boot_follows_the_boot_clock_when_the_wall_clock_is_set_back() -> None:
    mark, distrusted = advance(mark_of(FIRST), replace(FIRST, wall_s=START - 9999, boottime_s=160.0))
    assert (mark.now, distrusted) == (START + 60, False)


def test_short_steps_add_up() -> None:
    """A mark in whole seconds would stand still under a stopped wall clock and many short steps."""
    mark = mark_of(FIRST)
    for step in range(1, 1001):
        mark, _ = advance(mark, replace(FIRST, boottime_s=100.0 + step * 0.3))
    assert mark.now == START + 300


@pytest.mark.parametrize(
    ("before", "now", "wall", "trusted"),
    [
        (True, True, START + 60, True),
        (True, True, START, True),
        (True, True, START - 1, False),
        (False, True, START + 60, False),
        (True, False, START + 60, False),
        (False, False, START + 60, False),
    ],
)
def test_new_boot(before: bool, now: bool, wall: int, trusted: bool) -> None:
    mark, distrusted = advance(mark_of(replace(FIRST, synchronised=before)), ClockReading(wall, 1.0, "b", now))
    assert distrusted is not trusted
    assert mark.now == max(wall, START)


def test_boot_clock_that_goes_back_is_another_boot() -> None:
    mark, distrusted = advance(mark_of(FIRST), replace(FIRST, boottime_s=50.0))
    assert (mark.now, distrusted) == (START, True)


READINGS = st.builds(
    ClockReading,
    st.integers(START - 10**6, START + 10**6),
    st.floats(0, 10**6),
    st.sampled_from(["a", "b"]),
    st.booleans(),
)


@given(st.lists(READINGS, min_size=1))
def test_time_never_goes_back(readings: list[ClockReading]) -> None:
    mark: ClockMark | None = None
    for reading in readings:
        new, _ = advance(mark, reading)
        assert new.now >= reading.wall_s
        assert mark is None or new.t_ns >= mark.t_ns
        mark = new


@given(READINGS, st.floats(0, 10**6), st.integers(-(10**6), 10**6))
def test_time_is_never_slower_than_the_boot_clock(first: ClockReading, passed: float, jump: int) -> None:
    mark = mark_of(first)
    later = replace(first, boottime_s=first.boottime_s + passed, wall_s=first.wall_s + jump)
    new, distrusted = advance(mark, later)
    assert not distrusted
    assert new.t_ns - mark.t_ns >= (passed - 0.001) * 10**9


def test_wait_ends_at_once_where_waiting_can_not_help() -> None:
    clock = FakeClock(synchronised=False)
    wait_synchronised(clock, None, 60.0)
    wait_synchronised(clock, mark_of(clock.reading()), 60.0)
    wait_synchronised(clock, replace(mark_of(clock.reading()), synchronised=True), 60.0)  # the same boot
    clock.reboot(5)
    wait_synchronised(clock, replace(mark_of(FIRST), synchronised=True), 60.0)  # synchronised already


def test_wait_lasts_until_synchronised() -> None:
    class Late(FakeClock):
        asked = 0

        def reading(self) -> ClockReading:
            self.asked += 1
            self.synchronised = self.asked > 1
            return super().reading()

    clock = Late(boot=2)
    wait_synchronised(clock, mark_of(FIRST), 60.0)
    assert clock.asked == 2


def test_wait_gives_up() -> None:
    wait_synchronised(FakeClock(boot=2, synchronised=False), mark_of(FIRST), 0.01)


def test_system_clock_reads_the_machine() -> None:
    clock = SystemClock()
    first, second = clock.reading(), clock.reading()
    assert first.boot_id == second.boot_id
    assert len(first.boot_id) == 36
    assert second.boottime_s >= first.boottime_s > 0
    assert second.wall_s >= START
    assert first.synchronised is kernel_synchronised()
