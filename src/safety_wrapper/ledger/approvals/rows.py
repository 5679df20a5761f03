"""Rows of approval requests: their values, their MACs, and the state that counts at a given time."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

import orjson

from safety_wrapper.ledger.seals import check_mac, row_mac
from safety_wrapper.ledger.transaction import Look
from safety_wrapper.model import DEADLINES

REQUEST_S: Final = DEADLINES.approval_request_s
GRANT_S: Final = DEADLINES.builtin_grant_s
#: A denied call opens no new request for so long.
COOLDOWN_S: Final = 600
#: A built-in whose end nobody reported for so long counts as "may have run".
SILENT_S: Final = 900

#: Who decided, as a number: 3 root on the admin socket, 2 a passkey of the tenant, 1 the Hub.
LOCAL_ROOT: Final = 3
PASSKEY: Final = 2
HUB: Final = 1

TERMINAL: Final = frozenset({"denied", "expired", "cancelled", "revoked", "done", "error", "unknown"})
GRANT_TERMINAL: Final = frozenset({"expired", "revoked", "done_ok", "done_err", "unknown"})


@dataclass(frozen=True, slots=True)
class NewRequest:
    """A held call. ``stored_call`` are the bytes that will run, sealed in the ledger; ``lines`` is what the person
    reads, label and value; ``max_pending`` how many requests of one agent may wait at a time."""

    agent: str | None
    session: str | None
    call_digest: str
    stored_call: bytes
    tool: str
    safety_class: str
    external: bool
    rules: tuple[str, ...]
    title: str
    lines: tuple[tuple[str, str], ...]
    reason: str
    own_tool: bool
    bundle_sha256: str
    max_pending: int


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to a held call. ``state``: pending (``repeated``: it was there already), cooldown (``id`` is the
    request that was denied; ``expires_in_s`` until it may be asked again), flood (too many wait; ``id`` None)."""

    id: str | None
    expires_in_s: int
    repeated: bool
    state: str


@dataclass(frozen=True, slots=True)
class Decided:
    """A decision's outcome. ``changed`` false: it came too late or again; ``state`` is what holds."""

    state: str
    changed: bool
    own_tool: bool


@dataclass(frozen=True, slots=True)
class StoredCall:
    """The call that runs now, once."""

    id: str
    agent: str | None
    session: str | None
    tool: str
    call_digest: str
    stored_call: bytes
    external: bool
    safety_class: str


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request as people and the admin socket see it. ``state`` is the one that counts now; ``grant_state`` only
    for built-ins; ``repeats``: id of an earlier request for the same call that may have run."""

    id: str
    state: str
    agent: str | None
    session: str | None
    tool: str
    safety_class: str
    external: bool
    own_tool: bool
    rules: tuple[str, ...]
    title: str
    lines: tuple[tuple[str, str], ...]
    reason: str
    call_digest: str
    bundle_sha256: str
    repeats: str | None
    created_at: int
    expires_at: int
    expires_in_s: int
    count: int
    closed_why: str | None
    decided_by: str | None
    decided_at: int | None
    comment: str | None
    run_before: int | None
    grant_state: str | None


@dataclass(frozen=True, slots=True)
class WakeRow:
    """A session that must be told of its request's end."""

    id: str
    agent: str | None
    session: str
    state: str
    tool: str
    own_tool: bool


_COLUMNS: Final = (
    "r.id, r.agent, r.session, r.call_digest, r.stored_call, r.tool, r.class, r.external, r.own_tool, r.rules, "
    "r.title, r.lines, r.reason, r.bundle_sha256, r.repeats, r.created_at, r.expires_at, r.opened_mac, r.state, "
    "r.count, r.closed_why, r.decided_by, r.decided_at, r.comment, r.run_before, r.decided_mac, g.state"
)
SELECT: Final = f"SELECT {_COLUMNS} FROM approval_request r LEFT JOIN approval_grant g ON g.request = r.id "  # noqa: S608

#: The state that counts: what is over time is expired, whether or not a sweep has written it down. :now is t_eff.
EFFECTIVE: Final = (
    "CASE WHEN r.state = 'pending' AND r.expires_at <= :now THEN 'expired' "
    "WHEN r.state = 'approved' AND r.own_tool = 1 AND r.run_before <= :now THEN 'expired' ELSE r.state END"
)


@dataclass(frozen=True, slots=True)
class Stored:
    """A row that was read and whose opening MAC holds, with the sealed call."""

    row: RequestRow
    sealed_call: bytes
    raw_state: str
    opened_mac: bytes
    decided_mac: bytes | None


def read_row(look: Look, row: tuple[Any, ...]) -> Stored:
    """Make a value of a row of SELECT. Raises LedgerCorruptError if what a person reads or approves was edited."""
    check_mac(row[17], opened_mac(look, row[:17]), "approval request")
    raw = row[18]
    over = (raw == "pending" and row[16] <= look.now) or (
        raw == "approved" and bool(row[8]) and row[24] is not None and row[24] <= look.now
    )
    value = RequestRow(
        id=row[0],
        state="expired" if over else raw,
        agent=row[1] or None,
        session=row[2] or None,
        tool=row[5],
        safety_class=row[6],
        external=bool(row[7]),
        own_tool=bool(row[8]),
        rules=tuple(orjson.loads(row[9])),
        title=row[10],
        lines=tuple((label, text) for label, text in orjson.loads(row[11])),
        reason=row[12],
        call_digest=row[3],
        bundle_sha256=row[13],
        repeats=row[14],
        created_at=row[15],
        expires_at=row[16],
        expires_in_s=max(0, row[16] - look.now),
        count=row[19],
        closed_why=row[20],
        decided_by=row[21],
        decided_at=row[22],
        comment=row[23],
        run_before=row[24],
        grant_state=row[26],
    )
    return Stored(value, row[4], raw, row[17], row[25])


def opened_mac(look: Look, values: tuple[Any, ...]) -> bytes:
    """MAC over all that is fixed when a request is opened, in the order of SELECT; the sealed call by its digest."""
    return row_mac(
        look.keys.grant,
        "sw/request/v1",
        look.tenant,
        *values[:4],
        hashlib.sha256(values[4]).hexdigest(),
        *values[5:],
    )


def decided_mac(look: Look, opened: bytes, by: str | None, at: int | None, run_before: int | None) -> bytes:
    """MAC over an approval: the request as it was opened, who said yes, when, and until when it may run."""
    return row_mac(look.keys.grant, "sw/approved/v1", opened.hex(), by, at, run_before)


def shape_of(new: NewRequest) -> str:
    """What calls have in common that a person would not want to be woken for twice."""
    parts = [new.agent or "", new.tool, new.safety_class, "1" if new.external else "0", *sorted(new.rules)]
    return hashlib.sha256("\x00".join(parts).encode("utf-8")).hexdigest()


def assurance_of(by: str) -> int:
    """How much a decision by ``by`` is worth; 0 for somebody who may not decide."""
    if by == "local_root":
        return LOCAL_ROOT
    if by.startswith("passkey:"):
        return PASSKEY
    return HUB if by == "hub" else 0
