"""The audit chain under hypothesis: what was acknowledged is there, in order, once; any edit of the file is noticed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from safety_wrapper.errors import LedgerCorruptError
from safety_wrapper.ledger import Ledger, chain, export, store, transaction, verify_all, writer
from safety_wrapper.ledger.chain import COLUMNS, record_sha256
from stateful.rig import FAST_FOLDER, FakeClock, open_ledger

LONG = os.environ.get("SW_LONG") == "1"
SETTINGS = settings(
    max_examples=1000 if LONG else 40,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
HUNT = settings(
    SETTINGS,
    max_examples=600,
    phases=[Phase.generate],
    report_multiple_bugs=False,
    print_blob=False,
    derandomize=not LONG,
)
#: What somebody with the file, but without the key, could do to it; "graft" takes a record of another ledger of ours.
EDITS = ["body", "kind", "at", "mac", "cut", "take_out", "swap", "rewrite", "add", "graft", "head", "signature"]

TEXTS = st.one_of(st.none(), st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
BODIES = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), st.integers(-9, 9) | TEXTS)


class Undone(Exception):  # noqa: N818 - no error of the product's
    """Raised by a change of the test's own."""


class ChainMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory(dir=FAST_FOLDER)
        self.path = Path(self.folder.name) / "ledger.db"
        self.clock = FakeClock()
        self.ledger: Ledger = open_ledger(self.path.parent, self.clock)
        self.written: dict[int, tuple[Any, ...]] = {}
        self.foreign: list[tuple[Any, ...]] = []

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()

    def append(self, txn: Any, *record: Any) -> int:
        kind, agent, session, ref, body = record
        return txn.audit(kind, agent=agent, session=session, ref=ref, body=body)

    def remember(self, seq: int, record: tuple[Any, ...]) -> None:
        assert seq not in self.written, "two records have one number"
        self.written[seq] = record

    @initialize()
    def begins(self) -> None:
        fork = Path(self.folder.name) / "fork"
        fork.mkdir()
        other = open_ledger(fork, self.clock)
        for number in range(2):
            other.write_blocking(lambda txn, n=number: txn.audit("start", ref=f"fork{n}", body={"n": n}))
        with other.read() as look:
            self.foreign = look.db.execute(f"SELECT {COLUMNS} FROM audit ORDER BY seq").fetchall()
        other.close()
        for number in range(3):
            self.one("start", None, None, f"r{number}", {"n": number})

    @rule(kind=st.sampled_from(["decision", "result", "alarm"]), agent=TEXTS, session=TEXTS, ref=TEXTS, body=BODIES)
    def one(self, kind: str, agent: str | None, session: str | None, ref: str | None, body: dict[str, Any]) -> None:
        record = (kind, agent, session, ref, body)
        self.remember(self.ledger.write_blocking(lambda txn: self.append(txn, *record)), record)

    @rule(count=st.integers(2, 12), failing=st.integers(0, 12))
    def many_at_once(self, count: int, failing: int) -> None:
        """Tasks whose changes travel in one commit; one of them fails and takes only its own back."""

        async def task(number: int) -> None:
            record = ("decision", "main", None, f"task{number}", {"n": number})

            def change(txn: Any) -> int:
                seq = self.append(txn, *record)
                if number == failing:
                    raise Undone
                return seq

            with contextlib.suppress(Undone):
                self.remember(await self.ledger.write(change), record)

        async def all_tasks() -> None:
            await asyncio.gather(*(task(number) for number in range(count)))

        asyncio.run(all_tasks())

    @rule()
    def one_is_undone(self) -> None:
        def change(txn: Any) -> None:
            self.append(txn, "alarm", None, None, None, {"never": 1})
            raise Undone

        with contextlib.suppress(Undone):
            self.ledger.write_blocking(change)
            raise AssertionError("a change's exception did not reach its caller")

    @rule(seconds=st.sampled_from([1, 3700]))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_time(seconds)

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(self.path.parent, self.clock)

    @rule(
        data=st.data(),
        how=st.sampled_from(EDITS),
    )
    @precondition(lambda self: len(self.written) > 2)
    def somebody_edits(self, data: st.DataObject, how: str) -> None:
        self.ledger.close()
        copy = self.path.with_suffix(".copy")
        shutil.copy(self.path, copy)
        with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
            last = db.execute("SELECT max(seq) FROM audit").fetchone()[0]
            edit(db, how, data.draw(st.integers(1, last)), last, self.foreign)
        try:
            damaged = open_ledger(self.path.parent, self.clock)
            try:
                with damaged.read() as look:
                    verify_all(look)
                    lines = list(export.export_records(look, 1, export.last_seq(look)))
            finally:
                damaged.close()
        except LedgerCorruptError:
            pass
        else:
            assert not export.verify_export(lines).ok, f"an edit went unnoticed: {how}"
            raise AssertionError(f"an edit went unnoticed by the ledger itself: {how}")
        finally:
            for name in ("ledger.db", "ledger.db-wal", "ledger.db-shm"):
                (self.path.parent / name).unlink(missing_ok=True)
            shutil.move(copy, self.path)
        self.ledger = open_ledger(self.path.parent, self.clock)

    @invariant()
    def acknowledged_is_there(self) -> None:
        with self.ledger.read() as look:
            found = export.records(look, limit=100_000)
        assert [each["seq"] for each in found] == list(range(1, len(found) + 1)), "numbers have gaps"
        for each in found:
            if each["kind"] == "checkpoint":
                continue
            record = (each["kind"], each["agent"], each["session"], each["ref"], each["body"])
            assert self.written.get(each["seq"]) == record, "another record than the one that was written"
        assert len([each for each in found if each["kind"] != "checkpoint"]) == len(self.written), "a record is lost"

    @invariant()
    def verifies(self) -> None:
        with self.ledger.read() as look:
            assert verify_all(look).seq == export.last_seq(look)
            report = export.verify_export(export.export_records(look, 1, export.last_seq(look)))
        assert report.ok
        # Each hour and each stop leaves a checkpoint; never more than the limit stays uncovered.
        assert report.to_seq - report.covered_to <= chain.CHECKPOINT_RECORDS + 16


SIMPLE_EDITS = {
    "body": """UPDATE audit SET body = CAST('{"edited":true}' AS BLOB) WHERE seq = :seq""",
    "rewrite": """UPDATE audit SET body = CAST('{"edited":true}' AS BLOB) WHERE seq = :seq""",
    "kind": "UPDATE audit SET kind = 'drop' WHERE seq = :seq",
    "at": "UPDATE audit SET at = at + 1 WHERE seq = :seq",
    "mac": "UPDATE audit SET mac = zeroblob(32) WHERE seq = :seq",
    "cut": "DELETE FROM audit WHERE seq >= :seq",
    "head": "UPDATE state SET head_seq = head_seq - 1 WHERE :seq",
    "signature": """UPDATE audit SET kind = 'checkpoint',
                    body = CAST('{"kid":"led-0","seq":1,"sha256":"00","sig":"AA"}' AS BLOB) WHERE seq = :seq""",
}


def edit(db: sqlite3.Connection, how: str, seq: int, last: int, foreign: list[tuple[Any, ...]]) -> None:
    if how in SIMPLE_EDITS:
        db.execute(SIMPLE_EDITS[how], {"seq": seq})
    elif how == "graft":
        row = foreign[seq % len(foreign)]
        db.execute("INSERT OR REPLACE INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    elif how == "take_out":
        db.execute("DELETE FROM audit WHERE seq = ?", (seq,))
        db.execute("UPDATE audit SET seq = seq - 1 WHERE seq > ?", (seq,))
    elif how == "swap":
        other = 1 if seq == last else seq + 1
        db.execute("UPDATE audit SET seq = -1 WHERE seq = ?", (seq,))
        db.execute("UPDATE audit SET seq = ? WHERE seq = ?", (seq, other))
        db.execute("UPDATE audit SET seq = ? WHERE seq = -1", (other,))
    elif how == "add":
        row = db.execute(f"SELECT {COLUMNS} FROM audit WHERE seq = ?", (last,)).fetchone()
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", (last + 1, *row[1:]))
    if how in ("rewrite", "signature", "add"):
        rewrite(db, last + 1 if how == "add" else seq)


def rewrite(db: sqlite3.Connection, start: int) -> None:
    """Make the digests right again from ``start`` on; the MACs can't be made."""
    row = db.execute("SELECT sha256 FROM audit WHERE seq = ?", (start - 1,)).fetchone()
    previous = row[0] if row else bytes(32)
    for each in db.execute(f"SELECT {COLUMNS} FROM audit WHERE seq >= ? ORDER BY seq", (start,)).fetchall():
        previous = record_sha256(*each[:7], previous)
        db.execute("UPDATE audit SET sha256 = ? WHERE seq = ?", (previous, each[0]))


def test_chain_holds() -> None:
    run_state_machine_as_test(ChainMachine, settings=SETTINGS)


type Patch = pytest.MonkeyPatch


def mac_not_checked(patch: Patch) -> None:
    true = store.verify_rows
    patch.setattr(store, "verify_rows", lambda rows, start, key: true(rows, start, None))
    patch.setattr(export, "verify_rows", lambda rows, start, key: true(rows, start, None))


def digest_not_checked(patch: Patch) -> None:
    def verify_rows(rows: Any, start: Any, key: Any) -> Any:
        for row in rows:
            start = chain.Link(row[0], row[7])
        return start

    patch.setattr(store, "verify_rows", verify_rows)
    patch.setattr(export, "verify_rows", verify_rows)


def link_not_covered(patch: Patch) -> None:
    def unlinked(*record: Any) -> bytes:
        return record_sha256(*record[:-1], bytes(32))

    patch.setattr(chain, "record_sha256", unlinked)
    patch.setattr(transaction, "record_sha256", unlinked)


def end_not_compared(patch: Patch) -> None:
    true = store._verify

    def verify(db: Any, keys: Any, state: Any, start: Any) -> Any:
        row = db.execute("SELECT seq, sha256 FROM audit ORDER BY seq DESC LIMIT 1").fetchone() or (0, bytes(32))
        state.head_seq, state.head_sha256 = row
        return true(db, keys, state, start)

    patch.setattr(store, "_verify", verify)
    patch.setattr(store, "_last_checkpoint", lambda *arguments: chain.Link(0, bytes(32)))


def undone_change_stays(patch: Patch) -> None:
    def run_alone(self: Any, txn: Any, item: Any) -> bool:
        try:
            item.value = item.change(txn)
        except Undone as exc:
            item.error = exc
        return True

    patch.setattr(writer.Writer, "_run_alone", run_alone)


def answered_before_commit(patch: Patch) -> None:
    true = writer.Writer._transact

    def transact(self: Any, batch: Any) -> None:
        if self._state.head_seq % 5 < 4:
            true(self, batch)
        for item in batch:
            item.value = item.value or self._state.head_seq + 1

    patch.setattr(writer.Writer, "_transact", transact)


FAULTS = [
    mac_not_checked,
    digest_not_checked,
    link_not_covered,
    end_not_compared,
    undone_change_stays,
    answered_before_commit,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_seeded_fault_is_noticed(fault: Callable[[Patch], None], monkeypatch: Patch) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(ChainMachine, settings=HUNT)
