"""The approval machine holds; and each seeded fault is noticed, which shows that each invariant can fail."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from safety_wrapper.ledger import approvals, clock, outbox, owner, recovery
from safety_wrapper.ledger.approvals import grants, looks, requests, rows
from safety_wrapper.ledger.clock import ClockMark
from stateful.approval_machine import ApprovalMachine

LONG = os.environ.get("SW_LONG") == "1"
SETTINGS = settings(
    max_examples=4000 if LONG else 100,
    stateful_step_count=40,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
#: A fault is to be found, not to be shrunk; along the same path each time, so that the suite's time does not swing.
HUNT = settings(
    SETTINGS,
    max_examples=1500,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    print_blob=False,
    derandomize=not LONG,
)


def test_machine_holds() -> None:
    run_state_machine_as_test(ApprovalMachine, settings=SETTINGS)


type Patch = pytest.MonkeyPatch


def digest_not_checked(patch: Patch) -> None:
    true = grants.spend_grant

    def spend(txn: Any, *, call_digest: str, agent: str, session: str, **rest: Any) -> str | None:
        row = txn.db.execute("SELECT call_digest FROM approval_grant WHERE state = 'live' AND session = ?", (session,))
        found = row.fetchone()
        return true(txn, call_digest=found[0] if found else call_digest, agent=agent, session=session, **rest)

    patch.setattr(approvals, "spend_grant", spend)


def session_not_checked(patch: Patch) -> None:
    true = grants.spend_grant

    def spend(txn: Any, *, call_digest: str, session: str, **rest: Any) -> str | None:
        found = txn.db.execute("SELECT session FROM approval_grant WHERE call_digest = ?", (call_digest,)).fetchone()
        return true(txn, call_digest=call_digest, session=found[0] if found else session, **rest)

    patch.setattr(approvals, "spend_grant", spend)


def grant_spent_twice(patch: Patch) -> None:
    true = grants.spend_grant

    def spend(txn: Any, **arguments: Any) -> str | None:
        grant = true(txn, **arguments)
        txn.db.execute("UPDATE approval_grant SET state = 'live' WHERE id = ?", (grant,))
        return grant

    patch.setattr(approvals, "spend_grant", spend)


def stored_call_runs_twice(patch: Patch) -> None:
    true, count = grants.record_execution, iter(range(10**9))
    begin = requests.begin_execution

    def begin_and_forget(txn: Any, request: str, **arguments: Any) -> Any:
        call = begin(txn, request, **arguments)
        txn.db.execute("UPDATE approval_request SET state = 'approved' WHERE id = ?", (request,))
        return call

    patch.setattr(approvals, "begin_execution", begin_and_forget)
    patch.setattr(grants, "record_execution", lambda txn, ref, *rest: true(txn, f"{ref}#{next(count)}", *rest))


def grant_outlives_four_hours(patch: Patch) -> None:
    patch.setattr(grants, "GRANT_S", 10**8)


def approval_outlives_four_hours(patch: Patch) -> None:
    patch.setattr(requests, "GRANT_S", 10**8)


def request_outlives_its_day(patch: Patch) -> None:
    patch.setattr(requests, "REQUEST_S", 10**8)


def late_decision_accepted(patch: Patch) -> None:
    true = rows.read_row

    def read(look: Any, row: Any) -> Any:
        found = true(look, row)
        return replace(found, row=replace(found.row, state=found.raw_state))

    patch.setattr(looks, "read_row", read)
    patch.setattr(requests, "sweep", lambda txn: None)


def policy_not_asked_again(patch: Patch) -> None:
    spend, begin = grants.spend_grant, requests.begin_execution
    patch.setattr(approvals, "spend_grant", lambda txn, **rest: spend(txn, **{**rest, "need": 0}))
    patch.setattr(approvals, "begin_execution", lambda txn, request, need=0: begin(txn, request))


def shown_digest_not_compared(patch: Patch) -> None:
    true = requests.decide

    def decide(txn: Any, request: str, *, shown_digest: str, **rest: Any) -> Any:
        row = txn.db.execute("SELECT call_digest FROM approval_request WHERE id = ?", (request,)).fetchone()
        return true(txn, request, shown_digest=row[0] if row else shown_digest, **rest)

    patch.setattr(approvals, "decide", decide)


def hub_may_approve(patch: Patch) -> None:
    patch.setattr(requests, "assurance_of", lambda by: rows.LOCAL_ROOT)


def no_after_yes_ignored(patch: Patch) -> None:
    patch.setattr(requests, "_revoke", lambda *arguments: False)


def no_after_yes_keeps_the_grant(patch: Patch) -> None:
    patch.setattr(grants, "revoke_for", lambda txn, request, why: True)


def naive_wall_clock(patch: Patch) -> None:
    def advance(mark: Any, reading: Any) -> tuple[ClockMark, bool]:
        return ClockMark(reading.wall_s * 10**9, 0, reading.boot_id, reading.synchronised), False

    patch_clock(patch, advance)


def high_water_mark_only(patch: Patch) -> None:
    true = clock.advance

    def advance(mark: Any, reading: Any) -> tuple[ClockMark, bool]:
        return true(mark and replace(mark, boottime_ns=int(reading.boottime_s * 10**9)), reading)

    patch_clock(patch, advance)


def clock_goes_back(patch: Patch) -> None:
    true = clock.advance

    def advance(mark: Any, reading: Any) -> tuple[ClockMark, bool]:
        new, distrusted = true(mark, reading)
        return replace(new, t_ns=(new.t_ns - 3600 * 10**9 * (new.t_ns > reading.wall_s * 10**9))), distrusted

    patch_clock(patch, advance)


def looking_does_not_keep_time(patch: Patch) -> None:
    true = clock.Timekeeper.step

    def step(self: Any) -> tuple[ClockMark, bool]:
        before = self.mark
        found = true(self)
        if threading.current_thread().name != "ledger-writer":
            self.mark = before
        return found

    patch.setattr(clock.Timekeeper, "step", step)


def reboot_trusted(patch: Patch) -> None:
    true = clock.advance
    patch_clock(patch, lambda mark, reading: (true(mark, reading)[0], False))


def execution_revived(patch: Patch) -> None:
    true = recovery.recover

    def recover(txn: Any) -> int:
        txn.db.execute("UPDATE approval_request SET state = 'approved' WHERE state = 'executing'")
        txn.db.execute("UPDATE approval_grant SET state = 'live' WHERE state = 'executing'")
        return true(txn)

    patch.setattr(recovery, "recover", recover)


def execution_left_running(patch: Patch) -> None:
    patch.setattr(recovery, "recover", lambda txn: 0)


def end_not_announced(patch: Patch) -> None:
    true = outbox.put

    def put(txn: Any, kind: str, *rest: Any, **more: Any) -> int:
        return 0 if kind == "approval.closed" else true(txn, kind, *rest, **more)

    patch.setattr(outbox, "put", put)


def step_not_recorded(patch: Patch) -> None:
    patch.setattr(grants, "_record", lambda *arguments: None)


def cooldown_forgotten(patch: Patch) -> None:
    patch.setattr(requests, "COOLDOWN_S", 0)


def edited_approval_runs(patch: Patch) -> None:
    patch.setattr(requests, "check_mac", lambda *arguments: None)
    patch.setattr(grants, "record_execution", lambda *arguments: None)


def ended_statement_counts(patch: Patch) -> None:
    true = owner.view

    class Stopped:
        def __init__(self, look: Any) -> None:
            self.now, self.db, self.keys, self.tenant, self.state = 0, look.db, look.keys, look.tenant, look.state

    patch.setattr(owner, "view", lambda look: true(Stopped(look)))  # type: ignore[arg-type]


def epoch_stands_still(patch: Patch) -> None:
    true = owner.view
    patch.setattr(owner, "view", lambda look: replace(true(look), epoch=7))


def result_for_anybody(patch: Patch) -> None:
    def result_for(look: Any, request: str, **_: Any) -> Any:
        row = looks.get(look, request)
        return row and looks.result_for(look, request, agent=row.agent, session=row.session)

    patch.setattr(approvals, "result_for", result_for)


def patch_clock(patch: Patch, advance: Callable[..., Any]) -> None:
    patch.setattr(clock, "advance", advance)


FAULTS = [
    digest_not_checked,
    session_not_checked,
    grant_spent_twice,
    stored_call_runs_twice,
    grant_outlives_four_hours,
    approval_outlives_four_hours,
    request_outlives_its_day,
    late_decision_accepted,
    policy_not_asked_again,
    shown_digest_not_compared,
    hub_may_approve,
    no_after_yes_ignored,
    no_after_yes_keeps_the_grant,
    naive_wall_clock,
    high_water_mark_only,
    clock_goes_back,
    looking_does_not_keep_time,
    reboot_trusted,
    execution_revived,
    execution_left_running,
    end_not_announced,
    step_not_recorded,
    cooldown_forgotten,
    edited_approval_runs,
    ended_statement_counts,
    epoch_stands_still,
    result_for_anybody,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_seeded_fault_is_noticed(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ApprovalMachine, settings=HUNT)
