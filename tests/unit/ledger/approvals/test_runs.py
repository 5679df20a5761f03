"""What runs after a yes: the stored call of an own tool, or a built-in that spends its grant; once, and in time."""

from __future__ import annotations

from typing import Any

import pytest

from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger import Ledger, approvals
from safety_wrapper.ledger.approvals import requests
from stateful.approval_steps import (
    BUILTIN,
    CALL,
    HERE,
    approved,
    begin,
    bodies,
    decide,
    finish,
    held,
    row,
    spend,
)
from stateful.rig import FakeClock, new_request


def test_stored_call_runs_once(ledger: Ledger) -> None:
    request = approved(ledger)
    call = begin(ledger, request)
    assert call == approvals.StoredCall(
        request,
        "main",
        "agent:main:main",
        "exec",
        CALL.call_digest,
        CALL.stored_call,
        external=False,
        safety_class="RED",
    )
    with pytest.raises(RefusedError):
        begin(ledger, request)
    finish(ledger, request)
    with pytest.raises(RefusedError):
        begin(ledger, request)
    with pytest.raises(RefusedError):
        finish(ledger, request)
    with ledger.read() as look:
        assert approvals.result_for(look, request, **HERE) == ("done", "the result")
        assert approvals.result_for(look, request, agent="main", session="agent:main:other") is None
        assert approvals.result_for(look, request, agent="other", session="agent:main:main") is None
    (record,) = bodies(ledger, "result")
    assert (record["ok"], record["bytes"], record["facts"]) == (True, 10, {"exit": 0})
    assert len(bodies(ledger, "execution")) == 1


def test_failed_run_gives_nothing_back(ledger: Ledger) -> None:
    request = approved(ledger)
    begin(ledger, request)
    finish(ledger, request, ok=False, text="it broke")
    with pytest.raises(RefusedError):
        begin(ledger, request)
    with ledger.read() as look:
        assert approvals.result_for(look, request, **HERE) == ("error", "it broke")


def test_only_what_is_approved_runs(ledger: Ledger) -> None:
    request = held(ledger)
    with pytest.raises(RefusedError):
        begin(ledger, request)
    with pytest.raises(RefusedError):
        begin(ledger, "apr_unknown")
    builtin = approved(ledger, BUILTIN)
    with pytest.raises(RefusedError):
        begin(ledger, builtin)
    decide(ledger, request)
    begin(ledger, request)


def test_approval_ends_after_four_hours(ledger: Ledger, clock: FakeClock) -> None:
    request, other = approved(ledger), approved(ledger, new_request("other"))
    clock.pass_time(4 * 3600 - 1)
    begin(ledger, other)
    clock.pass_time(1)
    assert row(ledger, request).state == "expired"
    with pytest.raises(RefusedError):
        begin(ledger, request)
    ledger.write_blocking(approvals.sweep)
    assert row(ledger, request).closed_why == "time"


def test_policy_that_asks_for_more(ledger: Ledger) -> None:
    request = approved(ledger, by="passkey:phone")
    with pytest.raises(RefusedError):
        begin(ledger, request, need=approvals.LOCAL_ROOT)
    begin(ledger, request, need=approvals.PASSKEY)


def test_call_whose_end_is_unknown_is_said_in_the_next_request(ledger: Ledger) -> None:
    request = approved(ledger)
    begin(ledger, request)
    ledger.write_blocking(requests.interrupt_all)
    assert row(ledger, request).state == "unknown"
    assert row(ledger, held(ledger)).repeats == request
    builtin = approved(ledger, BUILTIN)
    spend(ledger)
    ledger.write_blocking(requests.interrupt_all)
    assert row(ledger, builtin).grant_state == "unknown"
    assert row(ledger, held(ledger, BUILTIN)).repeats == builtin


@pytest.mark.parametrize("text", ["", "ä\n" * 9, "\ud800 lone", "x" * 200_000])
def test_result_is_kept_as_it_is(ledger: Ledger, text: str) -> None:
    request = approved(ledger)
    begin(ledger, request)
    finish(ledger, request, text=text)
    with ledger.read() as look:
        assert approvals.result_for(look, request, **HERE) == ("done", text)


def test_grant_is_spent_once(ledger: Ledger) -> None:
    request = approved(ledger, BUILTIN)
    grant = spend(ledger)
    assert grant is not None
    assert grant.startswith("grt_")
    assert spend(ledger) is None
    assert row(ledger, request).grant_state == "executing"
    assert ledger.write_blocking(lambda txn: approvals.finish_grant(txn, "call_0", ok=True))
    assert not ledger.write_blocking(lambda txn: approvals.finish_grant(txn, "call_0", ok=True))
    assert spend(ledger) is None
    assert [body["event"] for body in bodies(ledger, "grant")] == ["minted", "done_ok"]
    assert len(bodies(ledger, "execution")) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"call_digest": new_request("builtin ").call_digest},
        {"agent": "other"},
        {"session": "agent:main:other"},
        {"agent": None},
        {"session": None},
    ],
)
def test_grant_is_bound_to_call_agent_and_session(ledger: Ledger, changes: dict[str, Any]) -> None:
    approved(ledger, BUILTIN)
    assert spend(ledger, **changes) is None
    assert spend(ledger) is not None


def test_grant_of_an_own_tool_does_not_exist(ledger: Ledger) -> None:
    approved(ledger)
    assert spend(ledger, CALL) is None


def test_grant_ends_after_four_hours_or_with_its_request(ledger: Ledger, clock: FakeClock) -> None:
    early = approved(ledger, BUILTIN)
    late = held(ledger, new_request("late", own_tool=False))
    clock.pass_time(4 * 3600)
    assert spend(ledger) is None
    ledger.write_blocking(approvals.sweep)
    assert row(ledger, early).grant_state == "expired"
    clock.pass_time(20 * 3600 - 10)
    decide(ledger, late, shown_digest=new_request("late").call_digest)
    clock.pass_time(9)
    assert spend(ledger, new_request("late"), tool_call_id="a") is not None
    clock.pass_time(1)
    again = approved(ledger, BUILTIN)
    clock.pass_time(4 * 3600 - 1)
    assert spend(ledger, tool_call_id="b") is not None
    assert row(ledger, again).grant_state == "executing"


def test_grant_below_what_the_policy_asks_is_revoked(ledger: Ledger) -> None:
    request = approved(ledger, BUILTIN, by="passkey:phone")
    assert spend(ledger, need=approvals.LOCAL_ROOT) is None
    assert row(ledger, request).grant_state == "revoked"
    assert spend(ledger) is None


def test_builtin_that_nobody_reports_is_unknown(ledger: Ledger, clock: FakeClock) -> None:
    request = approved(ledger, BUILTIN)
    spend(ledger)
    clock.pass_time(899)
    ledger.write_blocking(approvals.sweep)
    assert row(ledger, request).grant_state == "executing"
    clock.pass_time(1)
    ledger.write_blocking(approvals.sweep)
    assert row(ledger, request).grant_state == "unknown"
    assert not ledger.write_blocking(lambda txn: approvals.finish_grant(txn, "call_0", ok=True))


def test_call_ids_that_collide(ledger: Ledger) -> None:
    other = new_request("builtin", own_tool=False, session="agent:main:other")
    first, second = approved(ledger, BUILTIN), approved(ledger, other)
    assert spend(ledger) is not None
    assert spend(ledger, session="agent:main:other") is not None
    assert not ledger.write_blocking(lambda txn: approvals.finish_grant(txn, "call_0", ok=True))
    assert ledger.write_blocking(lambda txn: approvals.finish_grant(txn, "call_0", ok=False, **HERE))
    assert (row(ledger, first).grant_state, row(ledger, second).grant_state) == ("done_err", "executing")
