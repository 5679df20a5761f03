"""Token buckets: bounded, fair, and fooled by no invented session."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.rate import MAX_SESSIONS, Buckets


def test_burst_then_rate() -> None:
    buckets = Buckets(10, 5)
    assert [buckets.take(1, "s", 0.0) for _ in range(7)] == [True] * 5 + [False] * 2
    assert buckets.take(1, "s", 0.1)
    assert not buckets.take(1, "s", 0.1)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.floats(0, 1)), max_size=200))
def test_never_more_than_burst_plus_rate(steps: list[tuple[str, float]]) -> None:
    buckets, now = Buckets(3, 4), 0.0
    taken = {"a": 0, "b": 0}
    for session, wait in steps:
        now += wait
        taken[session] += buckets.take(1, session, now)
    assert all(count <= 4 + 3 * now + 1 for count in taken.values())


def test_invented_sessions_share_one_bucket_and_starve_nobody_known() -> None:
    buckets = Buckets(1, 10)
    assert buckets.take(1, "known", 0.0)
    served = sum(buckets.take(1, f"new{n}", 0.0) for n in range(500))
    assert served == 9
    assert buckets.take(1, "known", 0.0)


def test_overflow_is_counted_once_a_second() -> None:
    buckets = Buckets(1, 1)
    for _ in range(5):
        buckets.take(1, "s", 10.0)
    assert buckets.overflow(10.0) == {"s": 4}
    buckets.take(1, "s", 10.1)
    assert buckets.overflow(10.2) == {}
    assert buckets.overflow(11.1) == {"s": 1}


def test_memory_is_bounded() -> None:
    buckets = Buckets(10**9, 10**9)
    for n in range(MAX_SESSIONS * 2):
        buckets.take(1, f"s{n}", 0.0)
    assert len(buckets._sessions) <= MAX_SESSIONS
