"""Rows edited while the core was down: nobody acts on them, and the same rows unedited do their work."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper.errors import LedgerCorruptError, LedgerError
from safety_wrapper.ledger import Ledger, Txn, approvals, floor, jobs, owner, sessions
from stateful.rig import new_request, open_ledger


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        yield db


def level(txn: Txn, value: int, agent: str = "*") -> str:
    return owner.set_statement(
        txn, kind="level", body={"agent": agent, "level": value}, by="local_root", reason="because"
    )


def grant_for(ledger: Ledger, call: str) -> str:
    new = new_request(call, own_tool=False)
    request = ledger.write_blocking(lambda txn: approvals.open_request(txn, new)).id or ""
    ledger.write_blocking(
        lambda txn: approvals.decide(txn, request, decision="approve", by="local_root", shown_digest=new.call_digest)
    )
    return new.call_digest


def spend(ledger: Ledger, digest: str) -> str | None:
    return ledger.write_blocking(
        lambda txn: approvals.spend_grant(
            txn, call_digest=digest, agent="main", session="agent:main:main", tool_call_id="call_0"
        )
    )


GRANT_EDITS = {
    "digest": ("UPDATE approval_grant SET call_digest = ?", new_request("other").call_digest, "other"),
    "expiry": ("UPDATE approval_grant SET expires_at = expires_at + ?", 10**6, "call"),
    "assurance": ("UPDATE approval_grant SET assurance = assurance + ?", 1, "call"),
    "approver": ("UPDATE approval_grant SET approver = ?", "passkey:x", "call"),
    "tool": ("UPDATE approval_grant SET tool = ?", "mail.send", "call"),
}


@pytest.mark.parametrize("edit", GRANT_EDITS)
def test_edited_grant_blocks(folder: Path, edit: str) -> None:
    statement, value, call = GRANT_EDITS[edit]
    ledger = open_ledger(folder)
    grant_for(ledger, "call")
    ledger.close()
    with plain(folder) as db:
        db.execute(statement, (value,))
    ledger = open_ledger(folder)
    with pytest.raises(LedgerCorruptError):
        spend(ledger, new_request(call).call_digest)
    ledger.close()


def test_unedited_grant_is_spent(folder: Path) -> None:
    ledger = open_ledger(folder)
    digest = grant_for(ledger, "call")
    ledger.close()
    ledger = open_ledger(folder)
    assert spend(ledger, digest) is not None
    ledger.close()


def test_grant_set_back_to_live_does_not_run_again(folder: Path) -> None:
    ledger = open_ledger(folder)
    digest = grant_for(ledger, "call")
    assert spend(ledger, digest) is not None
    ledger.close()
    with plain(folder) as db:
        db.execute("UPDATE approval_grant SET state = 'live'")
    ledger = open_ledger(folder)
    with pytest.raises(LedgerError):
        spend(ledger, digest)
    ledger.close()


@pytest.mark.parametrize(
    "edit",
    [
        'UPDATE owner_statement SET body = \'{"agent":"*","level":3}\' WHERE n = 1',
        "UPDATE owner_statement SET ends_at = 1 WHERE n = 2",
        "UPDATE owner_statement SET key = 'other' WHERE n = 2",
        "DELETE FROM owner_statement WHERE n = 2",
        "DELETE FROM owner_statement WHERE n = 1",
        "DELETE FROM owner_statement",
        "INSERT INTO owner_statement SELECT n + 2, n, kind, key, body, '', '', 0, 0, '', mac FROM owner_statement",
        "UPDATE state SET owner_count = 0",
        "UPDATE state SET floor_version = 1",
    ],
)
def test_edited_owner_statement_blocks(folder: Path, edit: str) -> None:
    ledger = open_ledger(folder)
    ledger.write_blocking(lambda txn: level(txn, 2))
    ledger.write_blocking(lambda txn: level(txn, 1))
    ledger.write_blocking(lambda txn: floor.raise_to(txn, 7, "ab" * 32))
    ledger.close()
    again = open_ledger(folder)
    with again.read() as look:
        assert owner.view(look).level_for("main") == 1
        assert floor.get(look) == floor.Floor(7, "ab" * 32)
    again.close()
    with plain(folder) as db:
        db.execute(edit)

    def all_of_it() -> None:
        ledger = open_ledger(folder)
        try:
            with ledger.read() as look:
                owner.view(look)
        finally:
            ledger.close()

    with pytest.raises(LedgerCorruptError):
        all_of_it()


REQUEST_EDITS: dict[str, tuple[str, Any]] = {
    "shown text": ("UPDATE approval_request SET lines = ?", '[["path","/tmp/harmless"]]'),
    "title": ("UPDATE approval_request SET title = ?", "Read a file"),
    "class": ("UPDATE approval_request SET class = ?", "GREEN"),
    "call": ("UPDATE approval_request SET stored_call = ?", bytes(40)),
    "session": ("UPDATE approval_request SET session = ?", "agent:other:main"),
    "expiry": ("UPDATE approval_request SET expires_at = ?", 2**40),
    "own tool": ("UPDATE approval_request SET own_tool = ?", 0),
}


@pytest.mark.parametrize("edit", REQUEST_EDITS)
def test_edited_request_is_neither_shown_nor_decided(folder: Path, edit: str) -> None:
    ledger = open_ledger(folder)
    new = new_request()
    request = ledger.write_blocking(lambda txn: approvals.open_request(txn, new)).id or ""
    ledger.close()
    with plain(folder) as db:
        db.execute(REQUEST_EDITS[edit][0], (REQUEST_EDITS[edit][1],))
    ledger = open_ledger(folder)
    with pytest.raises(LedgerCorruptError), ledger.read() as look:
        approvals.get(look, request)
    with pytest.raises(LedgerCorruptError):
        ledger.write_blocking(
            lambda txn: approvals.decide(
                txn, request, decision="approve", by="local_root", shown_digest=new.call_digest
            )
        )
    ledger.close()


def test_sealed_result_moved_to_another_request_is_noticed(folder: Path) -> None:
    ledger = open_ledger(folder)
    first, second = (
        ledger.write_blocking(lambda txn: jobs.open_job(txn, agent="a", session="s", call_digest="00" * 32))
        for _ in range(2)
    )
    for job in (first, second):
        ledger.write_blocking(lambda txn, job=job: jobs.finish_job(txn, job, ok=True, text=job))
    ledger.close()
    with plain(folder) as db:
        db.execute("UPDATE job SET result = (SELECT result FROM job WHERE id = ?) WHERE id = ?", (first, second))
    ledger = open_ledger(folder)
    with ledger.read() as look:
        assert jobs.result_for(look, first, agent="a", session="s") == ("done", first)
        with pytest.raises(LedgerCorruptError):
            jobs.result_for(look, second, agent="a", session="s")
    ledger.close()


def test_edited_budget_blocks(folder: Path) -> None:
    child = "agent:main:subagent:1"
    ledger = open_ledger(folder)
    ledger.write_blocking(lambda txn: sessions.allow_spawn(txn, parent="agent:main:main", max_depth=1, child_calls=2))
    ledger.write_blocking(lambda txn: sessions.adopt(txn, child=child, parent="agent:main:main"))
    assert ledger.write_blocking(lambda txn: sessions.spend_call(txn, child)) == 1
    ledger.close()
    with plain(folder) as db:
        db.execute("UPDATE child_session SET calls_left = 1000")
    ledger = open_ledger(folder)
    with pytest.raises(LedgerCorruptError):
        ledger.write_blocking(lambda txn: sessions.spend_call(txn, child))
    ledger.close()


def test_no_call_and_no_result_lies_in_the_clear(folder: Path) -> None:
    ledger = open_ledger(folder)
    new = new_request("cat /srv/very-private")
    request = ledger.write_blocking(lambda txn: approvals.open_request(txn, new)).id or ""
    ledger.write_blocking(
        lambda txn: approvals.decide(txn, request, decision="approve", by="local_root", shown_digest=new.call_digest)
    )
    ledger.write_blocking(lambda txn: approvals.begin_execution(txn, request))
    ledger.write_blocking(
        lambda txn: approvals.finish_execution(txn, request, ok=True, text="very-secret-result", facts={})
    )
    ledger.close()
    data = b"".join(path.read_bytes() for path in folder.iterdir() if path.is_file())
    assert request.encode() in data
    assert b"very-private" not in data
    assert b"very-secret-result" not in data
