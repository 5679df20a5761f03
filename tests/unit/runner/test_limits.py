"""No request widens a bound of the configuration."""

from __future__ import annotations

from dataclasses import fields

from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.config import RunnerLimits
from safety_wrapper.runner import limits
from safety_wrapper.runner.protocol import Limits

BOUNDS = st.builds(Limits, **{f.name: st.integers(1, 2**52) for f in fields(Limits)})


@given(BOUNDS)
@settings(max_examples=100, database=None)
def test_a_request_never_widens_a_bound(wanted: Limits) -> None:
    configured = RunnerLimits()
    got = limits.bounded(wanted, configured)
    for f in fields(Limits):
        longest = {"wall_s": limits.LONGEST_WALL_S, "cpu_s": max(configured.cpu_s, got.wall_s)}
        most = longest.get(f.name, getattr(configured, f.name))
        assert getattr(got, f.name) == min(getattr(wanted, f.name), most)


def test_a_smaller_bound_is_kept() -> None:
    wanted = Limits(1, 2, 3, 4, 5, 6, 7, 8)
    assert limits.bounded(wanted, RunnerLimits()) == wanted


def test_a_long_configured_wall_time_is_the_bound() -> None:
    assert limits.bounded(Limits(wall_s=90_000), RunnerLimits(wall_s=7200)).wall_s == 7200
