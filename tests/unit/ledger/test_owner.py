"""Owner statements: newest unexpired by kind and key, strict defaults, strict shapes, an epoch that tells of change."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger import Ledger, owner
from safety_wrapper.ledger.owner import InternalService, OwnerView
from safety_wrapper.ledger.statements import UNLOCK_MAX_S
from safety_wrapper.model import AutonomyLevel, GateState
from stateful.rig import START, FakeClock

LEVEL = {"agent": "*", "level": 3}
GATE = {"agent": "*", "state": "named"}
UNLOCK = {"agent": "main", "tool": "mail.send", "channel": None, "to": "jo@example.com", "count": 20}
TENANT = {
    "domains": ["example.com"],
    "internal_services": [{"host": "db", "port": 5432, "address": "10.0.0.7"}],
}
SCOPE = {"secret": "smtp", "uses": [["mail.send", "smtp_auth"]]}


def say(ledger: Ledger, kind: str, body: dict[str, Any], ends_in: int | None = None, **changes: Any) -> str:
    ends_at = None if ends_in is None else START + ends_in
    arguments = {"by": "local_root", "reason": "because", "ends_at": ends_at, **changes}
    return ledger.write_blocking(lambda txn: owner.set_statement(txn, kind=kind, body=body, **arguments))


def view(ledger: Ledger) -> OwnerView:
    with ledger.read() as look:
        return owner.view(look)


def test_defaults_are_strict(ledger: Ledger) -> None:
    found = view(ledger)
    assert (found.level_for("main"), found.level_for(None)) == (2, 2)
    assert (found.gate_for("main"), found.gate_for(None)) == (GateState.LOCKED, GateState.LOCKED)
    assert (found.unlocks, found.domains, found.internal_services, found.secret_scopes) == ((), (), (), {})
    assert (found.hub_session, found.epoch) == (False, 0)


def test_newest_counts(ledger: Ledger) -> None:
    first = say(ledger, "level", LEVEL)
    second = say(ledger, "level", {"agent": "*", "level": 1})
    assert view(ledger).level_for("main") is AutonomyLevel.TRAINING_WHEELS
    with ledger.read() as look:
        made = owner.statements(look)
    assert [each.id for each in made] == [first, second]
    assert [each.supersedes for each in made] == [None, first]


def test_ended_statement_gives_way_to_the_one_before(ledger: Ledger, clock: FakeClock) -> None:
    say(ledger, "level", {"agent": "*", "level": 1})
    say(ledger, "level", LEVEL, ends_in=60)
    before = view(ledger)
    assert before.level_for("main") == 3
    clock.pass_time(60)
    after = view(ledger)
    assert after.level_for("main") == 1
    assert after.epoch > before.epoch


def test_every_kind_is_seen(ledger: Ledger, clock: FakeClock) -> None:
    say(ledger, "gate", GATE)
    say(ledger, "unlock", UNLOCK, ends_in=60)
    say(ledger, "tenant", TENANT)
    say(ledger, "secret_scope", SCOPE)
    say(ledger, "hub_session", {"enabled": True})
    say(ledger, "bundle", {"sha256": "ab" * 32})
    found = view(ledger)
    assert found.gate_for("main") is GateState.NAMED
    assert [(each.tool, each.to, each.count, each.ends_at) for each in found.unlocks] == [
        ("mail.send", "jo@example.com", 20, START + 60)
    ]
    assert found.domains == ("example.com",)
    assert found.internal_services == (InternalService("db", 5432, "10.0.0.7"),)
    assert found.secret_scopes == {"smtp": (("mail.send", "smtp_auth"),)}
    assert found.hub_session
    clock.pass_time(60)
    assert view(ledger).unlocks == ()


LEVELS = st.dictionaries(st.sampled_from(["*", "a", "b"]), st.sampled_from(AutonomyLevel))
GATES = st.dictionaries(st.sampled_from(["*", "a", "b"]), st.sampled_from(GateState))


@given(LEVELS, GATES)
def test_claimed_name_never_widens(levels: dict[str, AutonomyLevel], gates: dict[str, GateState]) -> None:
    """A name is the gateway's word: it may only make things stricter than ``*``; no name is as strict as any."""
    found = OwnerView(levels, gates, (), (), (), 0, {}, hub_session=False)
    base_level, base_gate = levels.get("*", AutonomyLevel.TRUSTED_ASSISTANT), gates.get("*", GateState.LOCKED)
    for agent in ("a", "b", "unheard"):
        assert found.level_for(agent) == min(base_level, levels.get(agent, base_level))
        assert found.level_for(None) <= found.level_for(agent)
        if found.gate_for(agent) is GateState.NAMED:
            assert base_gate is GateState.NAMED
            assert gates.get(agent, base_gate) is GateState.NAMED
        if found.gate_for(None) is GateState.NAMED:
            assert found.gate_for(agent) is GateState.NAMED


BAD: list[tuple[str, dict[str, Any]]] = [
    ("wish", {}),
    ("level", {"agent": "*", "level": 4}),
    ("level", {"agent": "*", "level": True}),
    ("level", {"agent": "*", "level": "3"}),
    ("level", {"agent": "A B", "level": 1}),
    ("level", {"agent": None, "level": 1}),
    ("level", {"agent": "*"}),
    ("level", {**LEVEL, "more": 1}),
    ("gate", {"agent": "*", "state": "open"}),
    ("tenant", {**TENANT, "domains": ["*.example.com"]}),
    ("tenant", {**TENANT, "domains": ["Example.com"]}),
    ("tenant", {**TENANT, "domains": ["example.com\n"]}),
    ("tenant", {**TENANT, "domains": "example.com"}),
    ("tenant", {**TENANT, "internal_services": [{"host": "db", "port": 5432, "address": "10.0.0.0/8"}]}),
    ("tenant", {**TENANT, "internal_services": [{"host": "db", "port": 0, "address": "10.0.0.7"}]}),
    ("tenant", {**TENANT, "internal_services": [{"host": "*", "port": 1, "address": "10.0.0.7"}]}),
    ("tenant", {**TENANT, "internal_services": ["db"]}),
    ("secret_scope", {"secret": "smtp", "uses": [["mail.send"]]}),
    ("secret_scope", {"secret": "SMTP", "uses": []}),
    ("hub_session", {"enabled": 1}),
    ("bundle", {"sha256": "AB" * 32}),
]


@pytest.mark.parametrize(("kind", "body"), BAD, ids=range(len(BAD)))
def test_statement_of_another_shape(ledger: Ledger, kind: str, body: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        say(ledger, kind, body)
    assert view(ledger).epoch == 0


@pytest.mark.parametrize(
    ("change", "ends_in"),
    [
        ({"to": "*@example.com"}, 60),
        ({"to": "example.com"}, 60),
        ({"to": "jo@example.com,al@evil.test"}, 60),
        ({"to": "jo @example.com"}, 60),
        ({"to": "@com"}, 60),
        ({"count": 0}, 60),
        ({"count": True}, 60),
        ({"tool": ""}, 60),
        ({"channel": 7}, 60),
        ({}, None),
        ({}, UNLOCK_MAX_S + 1),
        ({}, 0),
    ],
)
def test_unlock_of_another_shape(ledger: Ledger, change: dict[str, Any], ends_in: int | None) -> None:
    with pytest.raises(RefusedError):
        say(ledger, "unlock", {**UNLOCK, **change}, ends_in)
    say(ledger, "unlock", UNLOCK, UNLOCK_MAX_S)
    say(ledger, "unlock", {**UNLOCK, "to": "@example.com"}, 60)
    assert len(view(ledger).unlocks) == 2


@pytest.mark.parametrize("changes", [{"by": "agent"}, {"by": "hub"}, {"reason": "x" * 201}, {"ends_in": 0}])
def test_statement_that_nobody_may_make(ledger: Ledger, changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedError):
        say(ledger, "level", LEVEL, **changes)
    say(ledger, "level", LEVEL)


def test_undone_statement_leaves_no_trace(ledger: Ledger) -> None:
    def change(txn: Any) -> None:
        owner.set_statement(txn, kind="level", body=LEVEL, by="local_root", reason="")
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        ledger.write_blocking(change)
    assert view(ledger).epoch == 0
    say(ledger, "level", LEVEL)
    assert view(ledger).epoch == 1
