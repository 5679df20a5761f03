"""Writing and reading: durable before the answer, undone alone, never waiting for each other."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper.errors import LedgerCorruptError, LedgerError
from safety_wrapper.ledger import Ledger, Txn, approvals, export, verify_all
from stateful.rig import START, FakeClock, new_request, open_ledger


class Mine(Exception):  # noqa: N818 - no error of the product's
    """A change's own exception."""


def note(txn: Txn) -> int:
    return txn.audit("decision", body={})


def failing(txn: Txn) -> int:
    txn.audit("alarm", body={})
    raise Mine


def kinds(ledger: Ledger) -> list[str]:
    with ledger.read() as look:
        verify_all(look)
        return [kind for (kind,) in look.db.execute("SELECT kind FROM audit ORDER BY seq")]


def test_answer_is_the_value_of_the_change(ledger: Ledger) -> None:
    assert ledger.write_blocking(note) == 1
    assert asyncio.run(ledger.write(note)) == 2
    assert kinds(ledger) == ["decision", "decision"]


def test_exception_undoes_its_own_change_only(ledger: Ledger) -> None:
    async def all_at_once() -> list[Any]:
        changes = [failing if number % 3 == 0 else note for number in range(30)]
        return await asyncio.gather(*(ledger.write(change) for change in changes), return_exceptions=True)

    answers = asyncio.run(all_at_once())
    assert [type(answer) is Mine for answer in answers] == [number % 3 == 0 for number in range(30)]
    assert sorted(answer for answer in answers if type(answer) is int) == list(range(1, 21))
    with pytest.raises(Mine):
        ledger.write_blocking(failing)
    assert kinds(ledger) == ["decision"] * 20


@pytest.mark.parametrize(
    "statement",
    ["SELECT nonsense FROM nowhere", "INSERT INTO audit(seq) VALUES (NULL)", "this is no SQL"],
)
def test_statement_that_fails_is_the_change_s_own_affair(ledger: Ledger, statement: str) -> None:
    def change(txn: Txn) -> None:
        txn.audit("alarm", body={})
        txn.db.execute(statement)

    async def both() -> list[Any]:
        return await asyncio.gather(ledger.write(change), ledger.write(note), return_exceptions=True)

    bad, good = asyncio.run(both())
    assert type(bad) is LedgerError
    assert good == 1
    with pytest.raises(LedgerError):
        ledger.write_blocking(change)
    assert ledger.write_blocking(note) == 2


def test_stop_iteration_reaches_its_caller_as_an_error(ledger: Ledger) -> None:
    def change(txn: Txn) -> None:
        next(iter(()))

    with pytest.raises(LedgerError):
        asyncio.run(ledger.write(change))


def test_lone_surrogate_is_a_typed_error(ledger: Ledger) -> None:
    with pytest.raises(LedgerError):
        ledger.write_blocking(lambda txn: txn.db.execute("SELECT ?", ("\ud800",)))
    assert ledger.write_blocking(note) == 1


def test_many_loops_and_threads_at_once(ledger: Ledger) -> None:
    async def tasks() -> None:
        await asyncio.gather(*(ledger.write(note) for _ in range(50)))

    def blocking() -> None:
        for _ in range(50):
            ledger.write_blocking(note)

    threads = [threading.Thread(target=asyncio.run, args=(tasks(),)) for _ in range(3)]
    threads += [threading.Thread(target=blocking) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kinds(ledger) == ["decision"] * 300


def test_tasks_that_wait_together_are_committed_together(ledger: Ledger) -> None:
    commits: list[str] = []
    db = ledger._db
    ledger.write_blocking(lambda txn: db.set_trace_callback(commits.append))

    async def all_at_once() -> None:
        await asyncio.gather(*(ledger.write(note) for _ in range(64)))

    asyncio.run(all_at_once())
    ledger.write_blocking(lambda txn: db.set_trace_callback(None))
    assert commits.count("COMMIT") < 8


def test_cancelled_task_does_no_harm(ledger: Ledger) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(ledger.write(note))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await ledger.write(note)

    asyncio.run(cancelled())
    assert set(kinds(ledger)) == {"decision"}


def test_loop_that_ended_before_its_answer_does_no_harm(ledger: Ledger) -> None:
    held, go = threading.Event(), threading.Event()

    def slow(txn: Txn) -> int:
        held.set()
        go.wait(10)
        return note(txn)

    async def leave() -> None:
        task = asyncio.create_task(ledger.write(slow))
        await asyncio.to_thread(held.wait, 10)
        task.cancel()

    asyncio.run(leave())
    go.set()
    ledger.write_blocking(note)
    assert kinds(ledger) == ["decision", "decision"]


def test_reader_sees_a_snapshot_and_waits_for_nobody(ledger: Ledger) -> None:
    ledger.write_blocking(note)
    with ledger.read() as look:
        assert export.last_seq(look) == 1
        ledger.write_blocking(note)
        assert export.last_seq(look) == 1
        with ledger.read() as other:
            assert export.last_seq(other) == 2
    held, go = threading.Event(), threading.Event()

    def slow(txn: Txn) -> None:
        note(txn)
        held.set()
        go.wait(10)

    writer = threading.Thread(target=ledger.write_blocking, args=(slow,))
    writer.start()
    held.wait(10)
    with ledger.read() as look:
        assert export.last_seq(look) == 2
    go.set()
    writer.join()


def test_reader_can_not_write(ledger: Ledger) -> None:
    with pytest.raises(LedgerError), ledger.read() as look:
        look.db.execute("DELETE FROM audit")


def test_reader_s_time_is_the_writer_s(ledger: Ledger, clock: FakeClock) -> None:
    ledger.write_blocking(note)
    clock.pass_time(50)
    clock.wall -= 10_000
    with ledger.read() as look:
        assert look.now == START + 50
    assert ledger.write_blocking(lambda txn: txn.now) == START + 50


def test_change_can_not_wait_for_another(ledger: Ledger) -> None:
    with pytest.raises(LedgerError, match="can't wait"):
        ledger.write_blocking(lambda txn: ledger.write_blocking(note))
    assert ledger.write_blocking(note) == 1


def test_closed_ledger(folder: Path) -> None:
    ledger = open_ledger(folder)
    ledger.write_blocking(note)
    ledger.close()
    ledger.close()
    with pytest.raises(LedgerError, match="closed"):
        ledger.write_blocking(note)
    with pytest.raises(LedgerError, match="closed"):
        asyncio.run(ledger.write(note))
    with pytest.raises(LedgerError, match="closed"), ledger.read():
        pass


def test_what_waits_is_committed_before_closing(folder: Path) -> None:
    ledger = open_ledger(folder)

    async def leave() -> None:
        tasks = [asyncio.create_task(ledger.write(note)) for _ in range(10)]
        await asyncio.sleep(0)
        ledger.close()
        assert sorted(await asyncio.gather(*tasks)) == list(range(1, 11))

    asyncio.run(leave())
    ledger = open_ledger(folder)
    assert kinds(ledger) == ["decision"] * 10 + ["checkpoint"]
    ledger.close()


def test_stop_leaves_a_checkpoint_and_a_second_one_adds_none(folder: Path) -> None:
    for _ in range(3):
        ledger = open_ledger(folder)
        ledger.close()
    ledger = open_ledger(folder)
    ledger.write_blocking(note)
    ledger.close()
    ledger = open_ledger(folder)
    assert kinds(ledger) == ["decision", "checkpoint"]
    ledger.close()


def test_settings_of_the_file(ledger: Ledger) -> None:
    db: sqlite3.Connection = ledger.write_blocking(lambda txn: txn.db)
    assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
    assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_reboot_with_a_clock_that_can_not_be_trusted_expires_what_is_open(folder: Path, clock: FakeClock) -> None:
    ledger = open_ledger(folder, clock)
    request = ledger.write_blocking(lambda txn: approvals.open_request(txn, new_request())).id or ""
    ledger.close()
    clock.reboot(60, synchronised=False)
    ledger = open_ledger(folder, clock)
    with ledger.read() as look:
        row = approvals.get(look, request)
    assert row is not None
    assert (row.state, row.closed_why) == ("expired", "clock")
    assert "clock" in kinds(ledger)
    ledger.close()


def test_reboot_with_a_clock_that_can_be_trusted_keeps_it(folder: Path, clock: FakeClock) -> None:
    ledger = open_ledger(folder, clock)
    request = ledger.write_blocking(lambda txn: approvals.open_request(txn, new_request())).id or ""
    ledger.close()
    clock.reboot(60)
    ledger = open_ledger(folder, clock)
    with ledger.read() as look:
        row = approvals.get(look, request)
    assert row is not None
    assert (row.state, row.expires_in_s) == ("pending", 24 * 3600 - 60)
    ledger.close()


def test_writer_thread_that_meets_the_unexpected_answers_all_the_same(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger._writer, "_transact", lambda batch: 1 / 0)
    with pytest.raises(LedgerError):
        ledger.write_blocking(note)
    monkeypatch.undo()
    assert ledger.write_blocking(note) == 1


def test_faults_are_answered_with_a_fresh_exception(ledger: Ledger) -> None:
    ledger._writer.fault = LedgerCorruptError("damaged", do="look")
    caught = []
    for _ in range(2):
        with pytest.raises(LedgerCorruptError) as found:
            ledger.write_blocking(note)
        caught.append(found.value)
    assert caught[0] is not caught[1]
    assert caught[0].do == "look"


def test_forgotten_ledger_does_not_keep_the_process(folder: Path) -> None:
    script = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from pathlib import Path
from stateful.rig import open_ledger
ledger = open_ledger(Path({str(folder)!r}))
print(ledger.write_blocking(lambda txn: txn.audit("start", body={{}})))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "1\n"
    ledger = open_ledger(folder)
    assert kinds(ledger) == ["start"]
    ledger.close()
