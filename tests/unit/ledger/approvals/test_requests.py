"""Requests: opened, decided, cancelled; each refusal beside the same thing without its cause."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from safety_wrapper.errors import CanonicalError, RefusedError
from safety_wrapper.ledger import Ledger, approvals, outbox
from stateful.approval_steps import (
    BUILTIN,
    CALL,
    DAY,
    HERE,
    approved,
    begin,
    bodies,
    decide,
    finish,
    held,
    opened,
    row,
    spend,
)
from stateful.rig import START, FakeClock, new_request


def test_new_request(ledger: Ledger) -> None:
    found = opened(ledger)
    assert (found.expires_in_s, found.repeated, found.state) == (DAY, False, "pending")
    assert found.id is not None
    assert found.id.startswith("apr_")
    kept = row(ledger, found.id)
    assert (kept.state, kept.agent, kept.session, kept.count) == ("pending", "main", "agent:main:main", 1)
    assert (kept.lines, kept.rules, kept.repeats) == ((("path", "/srv/app"),), ("files.delete.recursive",), None)
    with ledger.read() as look:
        assert approvals.params_of(look, found.id) == CALL.stored_call
        assert [(each.kind, each.ref) for each in outbox.due(look)] == [("approval.create", found.id)]
        assert approvals.count_pending(look) == 1


def test_same_call_again_is_counted(ledger: Ledger, clock: FakeClock) -> None:
    first = opened(ledger)
    clock.pass_time(100)
    again = opened(ledger)
    assert again == approvals.Opened(first.id, DAY - 100, repeated=True, state="pending")
    assert row(ledger, first.id or "").count == 2
    with ledger.read() as look:
        assert len(outbox.due(look)) == 1


@pytest.mark.parametrize("changes", [{"session": "agent:main:other"}, {"agent": "other"}, {"session": None}])
def test_same_call_of_another_is_another_request(ledger: Ledger, changes: dict[str, Any]) -> None:
    assert held(ledger) != held(ledger, replace(CALL, **changes))


def test_unknown_agent_and_session_have_one_request_too(ledger: Ledger) -> None:
    new = replace(CALL, agent=None, session=None)
    assert held(ledger, new) == held(ledger, new)
    with ledger.read() as look:
        request = approvals.list_requests(look)[0].id
        assert approvals.result_for(look, request, agent=None, session=None) == ("pending", None)
        assert approvals.result_for(look, request, **HERE) is None


def test_flood_is_bounded_by_agent(ledger: Ledger) -> None:
    for number in range(3):
        held(ledger, new_request(f"call {number}", max_pending=3))
    assert opened(ledger, new_request("call 4", max_pending=3)) == approvals.Opened(None, 0, False, "flood")
    assert opened(ledger, new_request("call 0", max_pending=3)).repeated
    assert opened(ledger, new_request("call 4", max_pending=3, agent="other")).state == "pending"
    assert opened(ledger, new_request("call 4", max_pending=4)).state == "pending"


def test_denied_call_cools_down(ledger: Ledger, clock: FakeClock) -> None:
    request = held(ledger)
    decide(ledger, request, "deny")
    clock.pass_time(599)
    assert opened(ledger) == approvals.Opened(request, 1, repeated=True, state="cooldown")
    assert opened(ledger, replace(CALL, session="agent:main:other")).state == "cooldown"
    clock.pass_time(1)
    assert opened(ledger).state == "pending"


def test_one_byte_more_is_no_new_push(ledger: Ledger, clock: FakeClock) -> None:
    held(ledger)
    held(ledger, new_request("rm -r /srv/app "))
    held(ledger, new_request("other", rules=("mail.send.outside",)))
    with ledger.read() as look:
        assert [each.body["quiet"] for each in outbox.due(look)] == [False, True, False]
    with ledger.read() as look:
        for each in approvals.list_requests(look):
            decide(ledger, each.id, "deny", shown_digest=each.call_digest)
    held(ledger, new_request("rm -r /srv/app  "))
    clock.pass_time(601)
    ledger.write_blocking(lambda txn: [approvals.cancel(txn, each.id, "x") for each in approvals.list_requests(txn)])
    held(ledger, new_request("rm -r /srv/app   "))
    with ledger.read() as look:
        quiet = [each.body["quiet"] for each in outbox.due(look) if each.kind == "approval.create"]
    assert quiet[3:] == [True, False]


def test_call_without_canonical_form_is_refused(ledger: Ledger) -> None:
    with pytest.raises(CanonicalError):
        opened(ledger, replace(CALL, title="\ud800"))
    assert opened(ledger).state == "pending"


def test_first_decision_counts(ledger: Ledger) -> None:
    request = held(ledger)
    assert decide(ledger, request) == approvals.Decided("approved", changed=True, own_tool=True)
    assert decide(ledger, request) == approvals.Decided("approved", changed=False, own_tool=True)
    other = held(ledger, new_request("other"))
    digest = new_request("other").call_digest
    assert decide(ledger, other, "deny", shown_digest=digest) == approvals.Decided("denied", True, True)
    assert decide(ledger, other, shown_digest=digest) == approvals.Decided("denied", False, True)
    events = [body["event"] for body in bodies(ledger, "approval")]
    assert events == ["pending", "approved", "decision_rejected", "pending", "denied", "decision_rejected"]


def test_late_decision(ledger: Ledger, clock: FakeClock) -> None:
    request = held(ledger)
    clock.pass_time(DAY)
    assert row(ledger, request).state == "expired"
    assert decide(ledger, request).state == "expired"
    assert [body["event"] for body in bodies(ledger, "approval")] == ["pending", "expired", "late_decision"]


def test_decision_in_the_last_second(ledger: Ledger, clock: FakeClock) -> None:
    request = held(ledger)
    clock.pass_time(DAY - 1)
    assert decide(ledger, request).state == "approved"
    assert row(ledger, request).run_before == START + DAY


@pytest.mark.parametrize(
    "changes",
    [
        {"shown_digest": new_request("harmless").call_digest},
        {"by": "hub"},
        {"by": "agent"},
        {"by": ""},
        {"decision": "allow"},
        {"comment": "x" * 501},
    ],
)
def test_decision_that_is_none(ledger: Ledger, changes: dict[str, Any]) -> None:
    request = held(ledger)
    with pytest.raises(RefusedError):
        decide(ledger, request, **changes)
    assert row(ledger, request).state == "pending"
    assert decide(ledger, request, comment="fine").state == "approved"
    assert row(ledger, request).comment == "fine"


def test_unknown_request(ledger: Ledger) -> None:
    with pytest.raises(RefusedError):
        decide(ledger, "apr_unknown")
    with ledger.read() as look:
        assert approvals.get(look, "apr_unknown") is None
        assert approvals.params_of(look, "apr_unknown") is None
        assert approvals.result_for(look, "apr_unknown", **HERE) is None


def test_hub_may_deny(ledger: Ledger) -> None:
    assert decide(ledger, held(ledger), "deny", by="hub").state == "denied"


def test_no_after_yes_revokes_until_it_runs(ledger: Ledger) -> None:
    request = approved(ledger)
    assert decide(ledger, request, "deny") == approvals.Decided("revoked", changed=True, own_tool=True)
    with pytest.raises(RefusedError):
        begin(ledger, request)
    assert opened(ledger).state == "cooldown"


def test_no_after_it_runs_is_too_late(ledger: Ledger) -> None:
    request = approved(ledger)
    begin(ledger, request)
    assert decide(ledger, request, "deny") == approvals.Decided("executing", changed=False, own_tool=True)
    finish(ledger, request)


def test_no_after_yes_revokes_a_builtin_s_grant(ledger: Ledger) -> None:
    request = approved(ledger, BUILTIN)
    assert decide(ledger, request, "deny", shown_digest=BUILTIN.call_digest).state == "revoked"
    assert row(ledger, request).grant_state == "revoked"
    assert spend(ledger) is None


def test_no_after_a_builtin_s_grant_is_spent_is_too_late(ledger: Ledger) -> None:
    request = approved(ledger, BUILTIN)
    assert spend(ledger) is not None
    assert not decide(ledger, request, "deny", shown_digest=BUILTIN.call_digest).changed


def cancel(ledger: Ledger, request: str) -> bool:
    return ledger.write_blocking(lambda txn: approvals.cancel(txn, request, "kill switch"))


def test_cancel(ledger: Ledger) -> None:
    pending, ready = held(ledger), approved(ledger, new_request("ready"))
    builtin = approved(ledger, BUILTIN)
    running = approved(ledger, new_request("running"))
    begin(ledger, running)
    assert [cancel(ledger, each) for each in (pending, ready, builtin, running)] == [True, True, True, False]
    assert [row(ledger, each).state for each in (pending, ready, builtin)] == ["cancelled"] * 3
    assert row(ledger, pending).closed_why == "kill switch"
    assert spend(ledger) is None
    assert not cancel(ledger, pending)
    with pytest.raises(RefusedError):
        cancel(ledger, "apr_unknown")
    finish(ledger, running)


def woken(ledger: Ledger) -> list[tuple[str, str]]:
    with ledger.read() as look:
        return [(each.id, each.state) for each in approvals.to_wake(look)]


def test_sessions_are_woken_until_they_are_told(ledger: Ledger, clock: FakeClock) -> None:
    own, builtin = approved(ledger), approved(ledger, BUILTIN)
    denied = held(ledger, new_request("denied"))
    decide(ledger, denied, "deny", shown_digest=new_request("denied").call_digest)
    approved(ledger, new_request("nobody", own_tool=False, session=None))
    assert woken(ledger) == [(builtin, "approved"), (denied, "denied")]
    begin(ledger, own)
    assert len(woken(ledger)) == 2
    finish(ledger, own)
    assert woken(ledger) == [(own, "done"), (builtin, "approved"), (denied, "denied")]
    ledger.write_blocking(lambda txn: approvals.mark_woken(txn, own))
    ledger.write_blocking(lambda txn: approvals.mark_woken(txn, denied))
    assert woken(ledger) == [(builtin, "approved")]
    clock.pass_time(4 * 3600)
    assert woken(ledger) == []


def test_list_is_newest_first_and_can_be_paged(ledger: Ledger, clock: FakeClock) -> None:
    made = [held(ledger, new_request(f"call {number}", max_pending=9)) for number in range(5)]
    decide(ledger, made[0], shown_digest=new_request("call 0").call_digest)

    def listed(**where: Any) -> list[str]:
        with ledger.read() as look:
            return [each.id for each in approvals.list_requests(look, **where)]

    assert listed() == made[::-1]
    assert listed(limit=2) == [made[4], made[3]]
    assert listed(limit=2, after=made[3]) == [made[2], made[1]]
    assert listed(state="pending") == made[:0:-1]
    assert listed(state="approved") == [made[0]]
    clock.pass_time(DAY)
    assert listed(state="pending") == []
    assert listed(state="expired") == made[::-1]
    ledger.write_blocking(approvals.sweep)
    assert listed(state="expired") == made[::-1]
