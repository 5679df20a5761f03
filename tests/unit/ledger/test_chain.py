"""Records and exports: the digest is that of the canonical record; an export proves itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safety_wrapper.canonical import canonical_json, digest, library_json, parse_strict
from safety_wrapper.errors import CanonicalError, LedgerCorruptError, LedgerError, RefusedError
from safety_wrapper.ledger import Ledger, export, verify_all
from safety_wrapper.ledger.chain import CHECKPOINT_RECORDS, Link, record_sha256, verify_rows
from stateful.rig import START, FakeClock, make_keys

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
BODY = st.dictionaries(
    TEXT,
    st.recursive(st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(-9, 9) | TEXT, st.lists),
)


@settings(max_examples=200)
@given(
    st.integers(1, 10**9), st.integers(0, 10**10), st.sampled_from(["decision", "stop"]), *[st.none() | TEXT] * 3, BODY
)
def test_digest_is_that_of_the_canonical_record(
    seq: int, at: int, kind: str, agent: str | None, session: str | None, ref: str | None, body: dict[str, Any]
) -> None:
    record = {
        "seq": seq,
        "at": at,
        "kind": kind,
        "agent": agent,
        "session": session,
        "ref": ref,
        "body": body,
        "prev_sha256": "5c" * 32,
    }
    found = record_sha256(seq, at, kind, agent, session, ref, canonical_json(body), bytes.fromhex("5c" * 32))
    assert found.hex() == digest("sw/audit/v1", record)
    assert canonical_json(record) == library_json(record)


def write(ledger: Ledger, count: int) -> None:
    def change(txn: Any) -> None:
        for number in range(count):
            txn.audit("decision", agent="main", ref=f"dec_{number}", body={"n": number, "text": "ä"})

    ledger.write_blocking(change)


def lines_of(ledger: Ledger, first: int = 1, last: int | None = None) -> list[bytes]:
    with ledger.read() as look:
        return list(export.export_records(look, first, last or export.last_seq(look)))


def test_bad_records_are_refused(ledger: Ledger) -> None:
    bad: list[tuple[type[Exception], str, dict[str, Any]]] = [
        (LedgerError, "gossip", {"body": {}}),
        (CanonicalError, "decision", {"body": {"n": float("nan")}}),
        (CanonicalError, "decision", {"body": {"n": 2**60}}),
        (LedgerError, "decision", {"body": {}, "agent": "\ud800"}),
    ]
    for error, kind, arguments in bad:
        with pytest.raises(error):
            ledger.write_blocking(lambda txn, kind=kind, arguments=arguments: txn.audit(kind, **arguments))
    assert ledger.write_blocking(lambda txn: txn.audit("decision", body={})) == 1


def test_export_proves_itself(ledger: Ledger) -> None:
    write(ledger, 20)
    report = export.verify_export(lines_of(ledger))
    assert report.ok
    assert (report.from_seq, report.to_seq, report.records, report.fault) == (1, 20, 20, None)
    part = export.verify_export(lines_of(ledger, 5, 9))
    assert part.ok
    assert (part.from_seq, part.to_seq, part.records) == (5, 9, 5)


def test_export_has_the_shape_of_the_schema(ledger: Ledger) -> None:
    write(ledger, 2)
    header, first, second = (parse_strict(line) for line in lines_of(ledger))
    assert header == {
        "export": 1,
        "tenant": "ten_test",
        "from_seq": 1,
        "to_seq": 2,
        "prev_sha256": "00" * 32,
        "public_keys": {make_keys().kid: make_keys().public},
    }
    assert first["prev_sha256"] == "00" * 32
    assert second["prev_sha256"] == first["sha256"]
    assert export.mac_is_ours(first, make_keys().audit)
    assert not export.mac_is_ours(first, bytes(32))
    with ledger.read() as look:
        assert export.records(look) == [first, second]
        assert export.records(look, after_seq=1, limit=1) == [second]


def test_search(ledger: Ledger, clock: FakeClock) -> None:
    def say(outcome: str, **where: Any) -> int:
        return ledger.write_blocking(lambda txn: txn.audit("decision", body={"outcome": outcome, "why": "ä"}, **where))

    first, second = say("allow", agent="main", ref="dec_1"), say("block", agent="other", session="s")
    clock.pass_time(100)
    third = say("allow", agent="main")

    def found(limit: int = 100, **where: Any) -> list[int]:
        with ledger.read() as look:
            return [each["seq"] for each in export.search(look, where=where, limit=limit)]

    assert found() == [first, second, third]
    assert found(limit=2) == [second, third]
    assert found(agent="main") == [first, third]
    assert found(outcome="block", session="s") == [second]
    assert found(ref="dec_1") == [first]
    assert found(since=START + 100) == [third]
    assert found(until=START + 100) == [first, second]
    assert found(text="ä") == [first, second, third]
    assert found(text="nothing like it", kind="decision") == []


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 99), (-1, -1)])
def test_export_of_no_such_range(ledger: Ledger, first: int, last: int) -> None:
    write(ledger, 2)
    with ledger.read() as look, pytest.raises(RefusedError):
        next(export.export_records(look, first, last))


def test_altered_exports_are_noticed(ledger: Ledger, clock: FakeClock) -> None:
    write(ledger, 6)
    clock.pass_time(3700)
    write(ledger, 1)
    lines = lines_of(ledger)
    assert export.verify_export(lines).checkpoints == 1
    assert export.verify_export(lines).covered_to == 8
    altered = [
        lines[:-1],
        lines[:3] + lines[4:],
        [*lines, lines[-1]],
        [lines[0], lines[2], lines[1], *lines[3:]],
        [line.replace(b'"n":3', b'"n":4') for line in lines],
        [line.replace(b'"decision"', b'"drop"') for line in lines],
        [line.replace(b"ten_test", b"ten_else") for line in lines],
        [lines[0].replace(b'"public_keys":{"led', b'"public_keys":{"lad'), *lines[1:]],
        [line.replace(b'"sig":"', b'"sig":"A') for line in lines],
        [line.replace(b'"mac"', b'"mec"') for line in lines],
        [line.replace(b'"at":', b'"at":"",at":') for line in lines],
        [line.replace(b'"seq":3', b'"seq":"3"') for line in lines],
        [line.replace(b'"body":{"n":2,"text":"\xc3\xa4"}', b'"body":[]') for line in lines],
        lines[1:],
        [b"{}", *lines[1:]],
        [b"\xff"],
        [],
    ]
    for number, each in enumerate(altered):
        report = export.verify_export(each)
        assert not report.ok, number
        assert report.fault


def test_checkpoint_each_thousand_records(ledger: Ledger) -> None:
    for _ in range(11):
        write(ledger, 100)
    with ledger.read() as look:
        rows = look.db.execute("SELECT seq FROM audit WHERE kind = 'checkpoint'").fetchall()
        assert rows == [(CHECKPOINT_RECORDS + 1,)]
        verify_all(look)
    assert export.verify_export(lines_of(ledger)).covered_to == CHECKPOINT_RECORDS + 1


def test_rows_out_of_order_are_noticed() -> None:
    with pytest.raises(LedgerCorruptError, match="record 1 is missing"):
        verify_rows([(2, 0, "stop", None, None, None, b"{}", bytes(32), bytes(32))], Link(0, bytes(32)), None)
    assert verify_rows([], Link(7, bytes(32)), None) == Link(7, bytes(32))
