"""Owner statements: what only the owner may set. Newest unexpired by kind and key; none = the strict defaults.

Each row's MAC covers the row before, and the state row holds the last one, so that a statement can neither be edited
nor taken out. What can't be verified is an error for the caller, who blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from safety_wrapper.canonical import canonical_json
from safety_wrapper.errors import LedgerCorruptError, RefusedError
from safety_wrapper.ledger.ids import new_id
from safety_wrapper.ledger.seals import check_mac, row_mac
from safety_wrapper.ledger.state import ZERO
from safety_wrapper.ledger.statements import MAX_REASON, check
from safety_wrapper.ledger.transaction import Look, Txn
from safety_wrapper.model import AutonomyLevel, GateState

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement as it was made. Times in seconds since the epoch."""

    id: str
    kind: str
    body: Mapping[str, Any]
    by: str
    reason: str
    made_at: int
    ends_at: int | None
    supersedes: str | None


@dataclass(frozen=True, slots=True)
class Unlock:
    """What may leave the tenant unasked: ``to`` is one address, or ``@domain``."""

    id: str
    agent: str
    tool: str
    channel: str | None
    to: str
    count: int
    ends_at: int


@dataclass(frozen=True, slots=True)
class InternalService:
    """An exact host and port inside, at an exact address."""

    host: str
    port: int
    address: str


@dataclass(frozen=True, slots=True)
class OwnerView:
    """What holds now. ``epoch`` is another number after each change that can alter a decision, and only grows."""

    levels: Mapping[str, AutonomyLevel]
    gates: Mapping[str, GateState]
    unlocks: tuple[Unlock, ...]
    domains: tuple[str, ...]
    internal_services: tuple[InternalService, ...]
    epoch: int
    secret_scopes: Mapping[str, tuple[tuple[str, str], ...]]
    hub_session: bool

    def level_for(self, agent: str | None) -> AutonomyLevel:
        """The strictest of ``*`` and the agent's own; for an unknown agent the strictest of all. Default 2."""
        base = self.levels.get(ANY, AutonomyLevel.TRUSTED_ASSISTANT)
        if agent is None:
            return min((base, *self.levels.values()))
        return min(base, self.levels.get(agent, base))

    def gate_for(self, agent: str | None) -> GateState:
        """``named`` only where nothing that could apply says ``locked``. Default locked."""
        base = self.gates.get(ANY, GateState.LOCKED)
        asked = self.gates.values() if agent is None else (self.gates.get(agent, base),)
        return GateState.NAMED if all(state is GateState.NAMED for state in (base, *asked)) else GateState.LOCKED


def set_statement(
    txn: Txn, *, kind: str, body: Mapping[str, Any], by: str, reason: str, ends_at: int | None = None
) -> str:
    """Record a statement; its id. Raises RefusedError for one that is not well-formed, LedgerCorruptError if the
    statements so far were edited."""
    if by != "local_root":
        raise RefusedError("only the owner may make a statement")
    if len(reason) > MAX_REASON:
        raise RefusedError(f"the reason is longer than {MAX_REASON} characters")
    key = check(kind, body, txn.now, ends_at)
    before = [each for number, row_key, each in _rows(txn) if each.kind == kind and row_key == key]
    supersedes = before[-1].id if before else None
    state = txn.state
    identity = new_id("own")
    text = canonical_json(dict(body)).decode("utf-8")
    values = (state.owner_count + 1, identity, kind, key, text, by, reason, txn.now, ends_at, supersedes)
    mac = _mac(txn, state.owner_mac, values)
    txn.db.execute(
        "INSERT INTO owner_statement(n, id, kind, key, body, made_by, reason, made_at, ends_at, supersedes, mac) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (*values, mac),
    )
    state.owner_count += 1
    state.owner_mac = mac
    txn.audit("owner", ref=identity, body={"kind": kind, "body": dict(body), "by": by, "ends_at": ends_at})
    return identity


def statements(look: Look) -> list[Statement]:
    """All statements ever made, oldest first. Raises LedgerCorruptError if one was edited or taken out."""
    return [each for _, _, each in _rows(look)]


def view(look: Look) -> OwnerView:
    """What holds now. Raises LedgerCorruptError if a statement was edited or taken out. O(statements ever made)."""
    newest: dict[tuple[str, str], Statement] = {}
    epoch = 0
    for _, key, each in _rows(look):
        epoch += 1
        if each.ends_at is not None and each.ends_at <= look.now:
            epoch += 1
        else:
            newest[each.kind, key] = each
    by_kind: dict[str, list[Statement]] = {}
    for (kind, _), each in newest.items():
        by_kind.setdefault(kind, []).append(each)
    tenant = by_kind["tenant"][0].body if "tenant" in by_kind else {"domains": [], "internal_services": []}
    return OwnerView(
        levels={each.body["agent"]: AutonomyLevel(each.body["level"]) for each in by_kind.get("level", ())},
        gates={each.body["agent"]: GateState(each.body["state"]) for each in by_kind.get("gate", ())},
        unlocks=tuple(Unlock(each.id, **each.body, ends_at=each.ends_at or 0) for each in by_kind.get("unlock", ())),
        domains=tuple(tenant["domains"]),
        internal_services=tuple(InternalService(**service) for service in tenant["internal_services"]),
        epoch=epoch,
        secret_scopes={
            each.body["secret"]: tuple((tool, slot) for tool, slot in each.body["uses"])
            for each in by_kind.get("secret_scope", ())
        },
        hub_session=any(each.body["enabled"] for each in by_kind.get("hub_session", ())),
    )


def _rows(look: Look) -> list[tuple[int, str, Statement]]:
    """(number, key, statement), verified from the first to the one that the state row names."""
    state = look.state
    previous, number, found = ZERO, 0, []
    for row in look.db.execute(
        "SELECT n, id, kind, key, body, made_by, reason, made_at, ends_at, supersedes, mac "
        "FROM owner_statement ORDER BY n"
    ):
        number += 1
        if row[0] != number:
            raise LedgerCorruptError("an owner statement was taken out of the ledger")
        check_mac(row[10], _mac(look, previous, row[:10]), "owner statement")
        previous = row[10]
        body = orjson.loads(row[4])
        found.append((number, row[3], Statement(row[1], row[2], body, row[5], row[6], row[7], row[8], row[9])))
    if (number, previous) != (state.owner_count, state.owner_mac):
        raise LedgerCorruptError("an owner statement was taken out of the ledger")
    return found


def _mac(look: Look, previous: bytes, values: tuple[Any, ...]) -> bytes:
    return row_mac(look.keys.grant, "sw/owner/v1", look.tenant, previous.hex(), *values)
