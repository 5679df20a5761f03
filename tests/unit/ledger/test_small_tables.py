"""Sessions' budgets, provenance, jobs, outbox and the version floor."""

from __future__ import annotations

from typing import Any

import pytest

from safety_wrapper.errors import CanonicalError, RefusedError
from safety_wrapper.ledger import Ledger, floor, jobs, outbox, provenance, sessions
from stateful.rig import START, FakeClock

ROOT = "agent:main:main"
CHILD = "agent:main:subagent:1"
GRANDCHILD = "agent:main:subagent:2"


def spawn(ledger: Ledger, child: str, parent: str = ROOT, depth: int = 2, calls: int = 3) -> None:
    ledger.write_blocking(lambda txn: sessions.allow_spawn(txn, parent=parent, max_depth=depth, child_calls=calls))
    ledger.write_blocking(lambda txn: sessions.adopt(txn, child=child, parent=parent))


def spend(ledger: Ledger, session: str) -> int | None:
    return ledger.write_blocking(lambda txn: sessions.spend_call(txn, session))


def depth_of(ledger: Ledger, session: str) -> int | None:
    with ledger.read() as look:
        return sessions.depth(look, session)


# ── children ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_root_has_no_limit_here(ledger: Ledger) -> None:
    assert [spend(ledger, ROOT) for _ in range(5)] == [None] * 5
    assert depth_of(ledger, ROOT) == 0


@pytest.mark.parametrize("session", [CHILD, "agent:main:SUBAGENT:1"])
def test_unknown_child_has_nothing(ledger: Ledger, session: str) -> None:
    with pytest.raises(RefusedError):
        spend(ledger, session)
    with pytest.raises(RefusedError):
        ledger.write_blocking(lambda txn: sessions.allow_spawn(txn, parent=session, max_depth=9, child_calls=9))
    assert depth_of(ledger, session) is None


def test_budget_is_counted_down(ledger: Ledger) -> None:
    spawn(ledger, CHILD)
    assert [spend(ledger, CHILD) for _ in range(3)] == [2, 1, 0]
    with pytest.raises(RefusedError):
        spend(ledger, CHILD)
    assert depth_of(ledger, CHILD) == 1


def test_child_never_has_more_than_its_parent_has_left(ledger: Ledger) -> None:
    spawn(ledger, CHILD, calls=3)
    spend(ledger, CHILD)
    spawn(ledger, GRANDCHILD, parent=CHILD, calls=100)
    assert depth_of(ledger, GRANDCHILD) == 2
    assert spend(ledger, GRANDCHILD) == 1
    assert spend(ledger, CHILD) == 0
    with pytest.raises(RefusedError):
        spend(ledger, GRANDCHILD)


def test_what_the_parent_spends_after_the_reservation_is_gone_for_the_child(ledger: Ledger) -> None:
    spawn(ledger, CHILD, calls=3)
    ledger.write_blocking(lambda txn: sessions.allow_spawn(txn, parent=CHILD, max_depth=2, child_calls=3))
    spend(ledger, CHILD)
    ledger.write_blocking(lambda txn: sessions.adopt(txn, child=GRANDCHILD, parent=CHILD))
    assert spend(ledger, GRANDCHILD) == 1


@pytest.mark.parametrize(("depth", "calls"), [(0, 5), (5, 0), (-1, 5)])
def test_zero_means_none(ledger: Ledger, depth: int, calls: int) -> None:
    with pytest.raises(RefusedError):
        spawn(ledger, CHILD, depth=depth, calls=calls)
    spawn(ledger, CHILD, depth=1, calls=1)


def test_depth_is_bounded(ledger: Ledger) -> None:
    spawn(ledger, CHILD, depth=1)
    with pytest.raises(RefusedError):
        spawn(ledger, GRANDCHILD, parent=CHILD, depth=1)
    spawn(ledger, GRANDCHILD, parent=CHILD, depth=2)


def test_used_up_child_spawns_nothing(ledger: Ledger) -> None:
    spawn(ledger, CHILD, calls=1)
    spend(ledger, CHILD)
    with pytest.raises(RefusedError):
        spawn(ledger, GRANDCHILD, parent=CHILD)


def adopt(ledger: Ledger, child: str, parent: str = ROOT) -> None:
    ledger.write_blocking(lambda txn: sessions.adopt(txn, child=child, parent=parent))


def test_each_adoption_needs_a_reservation_of_its_own(ledger: Ledger) -> None:
    with pytest.raises(RefusedError):
        adopt(ledger, CHILD)
    spawn(ledger, CHILD)
    with pytest.raises(RefusedError):
        adopt(ledger, GRANDCHILD)
    ledger.write_blocking(lambda txn: sessions.allow_spawn(txn, parent=ROOT, max_depth=1, child_calls=1))
    for child, parent in ((CHILD, ROOT), (ROOT, ROOT), (GRANDCHILD, "agent:other:main")):
        with pytest.raises(RefusedError):
            adopt(ledger, child, parent)
    adopt(ledger, GRANDCHILD)


# ── provenance ───────────────────────────────────────────────────────────────────────────────────────────────────


def mark(ledger: Ledger, session: str, source: str, *, tainted: bool) -> None:
    ledger.write_blocking(
        lambda txn: provenance.mark(txn, session=session, source=source, tainted=tainted, ref="call_1")
    )


def marks(ledger: Ledger, session: str | None) -> provenance.Marks:
    with ledger.read() as look:
        return provenance.marks(look, session)


def test_unknown_past_is_tainted(ledger: Ledger) -> None:
    for session in (ROOT, CHILD, None):
        assert marks(ledger, session) == provenance.Marks(known=False, tainted=True, marks=())


def test_clean_until_something_else_comes_in(ledger: Ledger, clock: FakeClock) -> None:
    mark(ledger, ROOT, "user", tainted=False)
    clock.pass_time(5)
    mark(ledger, ROOT, "user", tainted=False)
    assert marks(ledger, ROOT) == provenance.Marks(
        known=True, tainted=False, marks=(provenance.Mark("user", False, "call_1", START + 5),)
    )
    mark(ledger, ROOT, "web", tainted=True)
    mark(ledger, ROOT, "web", tainted=False)
    assert marks(ledger, ROOT).tainted


def test_child_has_its_parents_past(ledger: Ledger) -> None:
    mark(ledger, ROOT, "user", tainted=False)
    mark(ledger, CHILD, "task", tainted=False)
    assert marks(ledger, CHILD) == provenance.Marks(known=False, tainted=True, marks=marks(ledger, CHILD).marks)
    spawn(ledger, CHILD)
    assert not marks(ledger, CHILD).tainted
    mark(ledger, ROOT, "web", tainted=True)
    assert marks(ledger, CHILD).tainted


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def result(ledger: Ledger, job: str, agent: str | None = "main", session: str | None = ROOT) -> Any:
    with ledger.read() as look:
        return jobs.result_for(look, job, agent=agent, session=session)


def test_job(ledger: Ledger) -> None:
    job = ledger.write_blocking(lambda txn: jobs.open_job(txn, agent="main", session=ROOT, call_digest="ab" * 32))
    assert job.startswith("job_")
    assert result(ledger, job) == ("running", None)
    ledger.write_blocking(lambda txn: jobs.finish_job(txn, job, ok=False, text="nö"))
    assert result(ledger, job) == ("error", "nö")
    assert result(ledger, job, session="agent:main:other") is None
    assert result(ledger, job, agent=None) is None
    with pytest.raises(RefusedError):
        ledger.write_blocking(lambda txn: jobs.finish_job(txn, job, ok=True, text="again"))


def test_interrupted_job_is_unknown(ledger: Ledger) -> None:
    job = ledger.write_blocking(lambda txn: jobs.open_job(txn, agent=None, session=None, call_digest="ab" * 32))
    assert ledger.write_blocking(jobs.interrupt_all) == 1
    assert ledger.write_blocking(jobs.interrupt_all) == 0
    assert result(ledger, job, agent=None, session=None) == ("unknown", None)
    with pytest.raises(RefusedError):
        ledger.write_blocking(lambda txn: jobs.finish_job(txn, job, ok=True, text="late"))


# ── outbox ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_outbox_keeps_until_acked(ledger: Ledger) -> None:
    def fill(txn: Any) -> list[int]:
        return [outbox.put(txn, "k", f"r{priority}", {"p": priority}, priority) for priority in (0, 2, 1)]

    first, urgent, middle = ledger.write_blocking(fill)
    with ledger.read() as look:
        assert [each.seq for each in outbox.due(look)] == [urgent, middle, first]
        assert [each.seq for each in outbox.due(look, limit=1)] == [urgent]
        assert outbox.due(look)[0] == outbox.Message(urgent, "k", "r2", {"p": 2}, 2, START)
    assert ledger.write_blocking(lambda txn: outbox.ack(txn, urgent))
    assert not ledger.write_blocking(lambda txn: outbox.ack(txn, urgent))
    assert not ledger.write_blocking(lambda txn: outbox.ack(txn, 999))
    with ledger.read() as look:
        assert [each.seq for each in outbox.due(look)] == [middle, first]
    with pytest.raises(CanonicalError):
        ledger.write_blocking(lambda txn: outbox.put(txn, "k", "r", {"n": float("inf")}))


# ── floor ────────────────────────────────────────────────────────────────────────────────────────────────────────


def raise_to(ledger: Ledger, version: int, sha256: str) -> None:
    ledger.write_blocking(lambda txn: floor.raise_to(txn, version, sha256))


def floor_of(ledger: Ledger) -> floor.Floor | None:
    with ledger.read() as look:
        return floor.get(look)


def test_floor_is_never_lowered(ledger: Ledger) -> None:
    one, two = "ab" * 32, "cd" * 32
    assert floor_of(ledger) is None
    raise_to(ledger, 3, one)
    raise_to(ledger, 3, one)
    for version, sha256 in ((2, one), (2, two), (3, two), (0, one), (4, "short"), (4, "AB" * 32)):
        with pytest.raises(RefusedError):
            raise_to(ledger, version, sha256)
        assert floor_of(ledger) == floor.Floor(3, one)
    raise_to(ledger, 4, two)
    assert floor_of(ledger) == floor.Floor(4, two)


def test_undone_change_does_not_raise_the_floor(ledger: Ledger) -> None:
    def change(txn: Any) -> None:
        floor.raise_to(txn, 3, "ab" * 32)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        ledger.write_blocking(change)
    ledger.write_blocking(lambda txn: txn.audit("stop", body={}))
    assert floor_of(ledger) is None
