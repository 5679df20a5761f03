"""Audit records as JSON lines, and a check of such lines that needs nothing else: no key, no ledger.

The check proves that the lines are one unbroken chain and that every checkpoint in it is signed by the key named in the
first line; whoever reads the export compares that key with the one that `safety-wrapper audit keys` shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from safety_wrapper.canonical import canonical_json, parse_strict
from safety_wrapper.errors import CanonicalError, LedgerCorruptError, LedgerError, RefusedError
from safety_wrapper.ledger.chain import COLUMNS, Link, Row, record_mac, record_sha256, verify_checkpoint, verify_rows
from safety_wrapper.ledger.state import ZERO
from safety_wrapper.ledger.transaction import Look

_FIELDS: Final = frozenset({"seq", "at", "kind", "agent", "session", "ref", "body", "prev_sha256", "sha256", "mac"})
_HEADER: Final = frozenset({"export", "tenant", "from_seq", "to_seq", "prev_sha256", "public_keys"})


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What an export proves. ``covered_to``: the last record under a signed checkpoint; what follows is only chained.
    ``fault``: None, or the first thing that is wrong, in one sentence."""

    ok: bool
    tenant: str
    from_seq: int
    to_seq: int
    records: int
    checkpoints: int
    covered_to: int
    public_keys: tuple[tuple[str, str], ...]
    fault: str | None


def records(look: Look, *, after_seq: int = 0, limit: int = 500) -> list[dict[str, Any]]:
    """Records in the shape of docs/reference/schemas.md §3, oldest first, after ``after_seq``. Not verified."""
    rows = look.db.execute(
        f"SELECT {COLUMNS} FROM audit WHERE seq >= ? ORDER BY seq LIMIT ?",  # noqa: S608
        (after_seq, limit + 1),
    ).fetchall()
    previous = ZERO.hex()
    if rows and rows[0][0] == after_seq:
        previous = rows.pop(0)[7].hex()
    found = []
    for row in rows[:limit]:
        found.append(_record(row, previous))
        previous = row[7].hex()
    return found


def search(
    look: Look, *, where: Mapping[str, Any], limit: int = 100, before_seq: int | None = None
) -> list[dict[str, Any]]:
    """The newest records that fit, oldest of them first. Not verified.

    ``where``: kind, agent, session, ref, since, until (seconds), outcome, text (any part of the body), all optional.
    """
    conditions, values = ["seq < ?"], [before_seq if before_seq is not None else 2**62]
    for key in ("kind", "agent", "session", "ref"):
        if key in where:
            conditions.append(f"{key} = ?")
            values.append(where[key])
    for key, condition in (("since", "at >= ?"), ("until", "at < ?"), ("text", "instr(CAST(body AS TEXT), ?) > 0")):
        if key in where:
            conditions.append(condition)
            values.append(where[key])
    if "outcome" in where:
        conditions.append("json_extract(CAST(body AS TEXT), '$.outcome') = ?")
        values.append(where["outcome"])
    chosen = " AND ".join(conditions)
    rows = look.db.execute(
        f"SELECT {COLUMNS} FROM audit WHERE {chosen} ORDER BY seq DESC LIMIT ?",  # noqa: S608 - fixed names
        (*values, limit),
    ).fetchall()
    found = []
    for row in reversed(rows):
        before = look.db.execute("SELECT sha256 FROM audit WHERE seq = ?", (row[0] - 1,)).fetchone()
        found.append(_record(row, before[0].hex() if before else ZERO.hex()))
    return found


def last_seq(look: Look) -> int:
    """Number of the newest record in this snapshot, 0 in a new ledger."""
    return int(look.db.execute("SELECT coalesce(max(seq), 0) FROM audit").fetchone()[0])


def export_records(look: Look, from_seq: int, to_seq: int) -> Iterator[bytes]:
    """The header line, then one line for each record from ``from_seq`` to ``to_seq``, each ending in a newline.

    The chain is checked on the way. Raises RefusedError for a range that is not there, LedgerCorruptError.
    """
    if not 1 <= from_seq <= to_seq <= last_seq(look):
        raise RefusedError("no such range of audit records")
    previous = ZERO
    if from_seq > 1:
        row = look.db.execute("SELECT sha256 FROM audit WHERE seq = ?", (from_seq - 1,)).fetchone()
        if row is None:
            raise LedgerCorruptError(f"audit record {from_seq - 1} is missing")
        previous = row[0]
    header = {
        "export": 1,
        "tenant": look.tenant,
        "from_seq": from_seq,
        "to_seq": to_seq,
        "prev_sha256": previous.hex(),
        "public_keys": {look.keys.kid: look.keys.public},
    }
    yield canonical_json(header) + b"\n"
    link = Link(from_seq - 1, previous)
    rows = look.db.execute(f"SELECT {COLUMNS} FROM audit WHERE seq BETWEEN ? AND ? ORDER BY seq", (from_seq, to_seq))  # noqa: S608
    for row in rows:
        before, link = link, verify_rows((row,), link, look.keys.audit)
        yield canonical_json(_record(row, before.sha256.hex())) + b"\n"
    if link.seq != to_seq:
        raise LedgerCorruptError("audit records are missing at the end of the range")


def verify_export(lines: Iterable[bytes]) -> VerifyReport:
    """Check an export. Never raises for bad content: the report says what is wrong. O(lines)."""
    iterator = iter(lines)
    try:
        header = parse_strict(next(iterator, b""))
        if type(header) is not dict or header.keys() != _HEADER or header["export"] != 1:
            raise LedgerCorruptError("the first line is no export header")
        link = Link(int(header["from_seq"]) - 1, bytes.fromhex(header["prev_sha256"]))
        keys = {str(kid): str(key) for kid, key in header["public_keys"].items()}
        tenant, from_seq, to_seq = str(header["tenant"]), int(header["from_seq"]), int(header["to_seq"])
    except (CanonicalError, LedgerCorruptError, ValueError, TypeError, AttributeError) as exc:
        return VerifyReport(False, "", 0, 0, 0, 0, 0, (), _sentence(exc, "the first line is no export header"))  # noqa: FBT003
    count = checkpoints = covered_to = 0
    fault: str | None = None
    try:
        for line in iterator:
            row, record = _row(line, link)
            before, link = link, verify_rows((row,), link, None)
            count += 1
            # A checkpoint covers the record before it; in the first line of a range that one is known by digest only.
            if record["kind"] == "checkpoint":
                verify_checkpoint(tenant, row[1], record["body"], keys, before)
                checkpoints, covered_to = checkpoints + 1, link.seq
        if link.seq != to_seq:
            raise LedgerCorruptError(f"the export ends at record {link.seq}, not at {to_seq}")
    except (CanonicalError, LedgerError) as exc:
        fault = _sentence(exc, "")
    return VerifyReport(
        fault is None, tenant, from_seq, to_seq, count, checkpoints, covered_to, tuple(sorted(keys.items())), fault
    )


def mac_is_ours(record: dict[str, Any], audit_key: bytes) -> bool:
    """Whether a record's MAC was made under ``audit_key``; for whoever holds the ledger's key."""
    return bool(record_mac(audit_key, bytes.fromhex(record["sha256"])).hex() == record["mac"])


def _record(row: Row, previous: str) -> dict[str, Any]:
    seq, at, kind, agent, session, ref, body, sha256, mac = row
    return {
        "seq": seq,
        "at": at,
        "kind": kind,
        "agent": agent,
        "session": session,
        "ref": ref,
        "body": orjson.loads(body),
        "prev_sha256": previous,
        "sha256": sha256.hex(),
        "mac": mac.hex(),
    }


def _row(line: bytes, link: Link) -> tuple[Row, dict[str, Any]]:
    """One exported line as a row of the chain. Raises LedgerCorruptError, CanonicalError."""
    record = parse_strict(line)
    number = link.seq + 1
    if type(record) is not dict or record.keys() != _FIELDS:
        raise LedgerCorruptError(f"line of record {number} has another shape")
    texts = (record["agent"], record["session"], record["ref"])
    if type(record["seq"]) is not int or type(record["at"]) is not int or type(record["kind"]) is not str:
        raise LedgerCorruptError(f"line of record {number} has another shape")
    if any(text is not None and type(text) is not str for text in texts) or type(record["body"]) is not dict:
        raise LedgerCorruptError(f"line of record {number} has another shape")
    if record["prev_sha256"] != link.sha256.hex():
        raise LedgerCorruptError(f"record {number} does not follow the one before it")
    try:
        body = canonical_json(record["body"])
        sha256, mac = bytes.fromhex(record["sha256"]), bytes.fromhex(record["mac"])
    except (TypeError, ValueError) as exc:
        raise LedgerCorruptError(f"line of record {number} has another shape") from exc
    return (record["seq"], record["at"], record["kind"], *texts, body, sha256, mac), record


def _sentence(exc: Exception, otherwise: str) -> str:
    return exc.message if isinstance(exc, CanonicalError | LedgerError) else otherwise


__all__ = [
    "VerifyReport",
    "export_records",
    "last_seq",
    "mac_is_ours",
    "record_sha256",
    "records",
    "verify_export",
]
