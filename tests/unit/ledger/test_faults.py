"""Faults of the real thing: full disk, files taken away, damaged, edited. Each ends in its typed error, with a twin."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper.errors import ConfigError, LedgerCorruptError, LedgerError, LedgerFullError, LedgerGoneError
from safety_wrapper.ledger import Ledger, LedgerKeys, Txn, approvals, floor, jobs, owner, sessions, verify_all
from stateful.rig import TENANT, FakeClock, new_request, open_ledger


def note(txn: Txn) -> int:
    return txn.audit("decision", ref="dec_1", body={"filling": "x" * 400})


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        yield db


# ── disk full ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte. Needs root, as CI has it."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all that is left, to the last block."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(4096))
    return filler


def test_full_disk_refuses_finishes_and_recovers(small_disk: Path) -> None:
    ledger = open_ledger(small_disk, ballast_bytes=128 * 1024)
    try:
        opened = ledger.write_blocking(lambda txn: approvals.open_request(txn, new_request()))
        digest = new_request().call_digest
        request = opened.id or ""
        ledger.write_blocking(
            lambda txn: approvals.decide(txn, request, decision="approve", by="local_root", shown_digest=digest)
        )
        ledger.write_blocking(lambda txn: approvals.begin_execution(txn, request))
        filler = fill(small_disk)
        acknowledged = []
        with contextlib.suppress(LedgerFullError):
            for _ in range(2000):
                acknowledged.append(ledger.write_blocking(note))  # noqa: PERF401 - what came before counts
        assert ledger.is_full
        assert ledger.fault is None
        with pytest.raises(LedgerFullError):
            ledger.write_blocking(note)
        # What had begun is finished in the space that was kept back, and reading goes on.
        ledger.write_blocking(
            lambda txn: approvals.finish_execution(txn, request, ok=True, text="done", facts={}), finish=True
        )
        with ledger.read() as look:
            assert approvals.result_for(look, request, agent="main", session="agent:main:main") == ("done", "done")
            assert acknowledged[-1:] <= [row[0] for row in look.db.execute("SELECT seq FROM audit ORDER BY seq DESC")]
            verify_all(look)
        with pytest.raises(LedgerFullError):
            ledger.write_blocking(note)
        filler.unlink()
        ledger.write_blocking(note)
        assert not ledger.is_full
        assert (small_disk / "ledger.db.ballast").stat().st_size == 128 * 1024
    finally:
        ledger.close()
    reopened = open_ledger(small_disk, ballast_bytes=128 * 1024)
    with reopened.read() as look:
        found = {row[0] for row in look.db.execute("SELECT seq FROM audit WHERE kind = 'decision'")}
    reopened.close()
    assert set(acknowledged) <= found


def test_full_disk_at_start_recovers_in_reserved_space(small_disk: Path) -> None:
    open_ledger(small_disk, ballast_bytes=128 * 1024).close()
    filler = fill(small_disk)
    ledger = open_ledger(small_disk, ballast_bytes=128 * 1024)
    assert ledger.is_full
    with pytest.raises(LedgerFullError):
        ledger.write_blocking(note)
    filler.unlink()
    ledger.write_blocking(note)
    ledger.close()


def test_no_room_for_a_new_ledger(small_disk: Path) -> None:
    filler = fill(small_disk)
    with pytest.raises(LedgerFullError):
        open_ledger(small_disk)
    filler.unlink()
    open_ledger(small_disk).close()


# ── files taken away under the writer ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["ledger.db", "ledger.db-wal", "ledger.db-shm", "ledger.db.lock"])
@pytest.mark.parametrize("how", ["deleted", "replaced"])
def test_file_gone_under_the_writer(folder: Path, name: str, how: str) -> None:
    ledger = open_ledger(folder)
    ledger.write_blocking(note)
    away = folder / name
    content = away.read_bytes() if name.endswith("lock") else b""
    away.rename(folder / "away")
    if how == "replaced":
        away.write_bytes(content)
    with pytest.raises(LedgerGoneError):
        ledger.write_blocking(note)
    if name == "ledger.db":
        with pytest.raises(LedgerGoneError), ledger.read():
            pass
    # It is final: the file's return does not make what was refused meanwhile good.
    away.unlink(missing_ok=True)
    (folder / "away").rename(away)
    with pytest.raises(LedgerGoneError):
        ledger.write_blocking(note)
    assert isinstance(ledger.fault, LedgerGoneError)
    ledger.close()
    again = open_ledger(folder)
    again.write_blocking(note)
    again.close()


def test_folder_replaced_under_the_writer(folder: Path) -> None:
    place = folder / "core"
    place.mkdir()
    ledger = open_ledger(place)
    ledger.write_blocking(note)
    place.rename(folder / "away")
    place.mkdir()
    with pytest.raises(LedgerGoneError):
        ledger.write_blocking(note)
    ledger.close()


def test_other_files_in_the_folder_do_no_harm(folder: Path) -> None:
    ledger = open_ledger(folder)
    for number in range(20):
        (folder / f"other{number}").write_bytes(b"")
        ledger.write_blocking(note)
    ledger.close()


def test_deleted_ledger_is_not_begun_anew(folder: Path) -> None:
    open_ledger(folder).close()
    (folder / "ledger.db").unlink()
    with pytest.raises(LedgerGoneError):
        open_ledger(folder)
    (folder / "ledger.db").touch(0o600)
    with pytest.raises(LedgerCorruptError):
        open_ledger(folder)
    (folder / "ledger.db").unlink()
    (folder / "ledger.db.lock").unlink()
    open_ledger(folder).close()


def test_truncated_under_the_writer(folder: Path) -> None:
    ledger = open_ledger(folder)
    ledger.write_blocking(note)
    ledger.close()
    ledger = open_ledger(folder)
    subprocess.run(["truncate", "-s", "4096", str(folder / "ledger.db")], check=True)
    with pytest.raises(LedgerCorruptError):
        ledger.write_blocking(note)
    with pytest.raises(LedgerCorruptError), ledger.read():
        pass
    ledger.close()


def test_truncated_while_down(folder: Path) -> None:
    open_ledger(folder).close()
    path = folder / "ledger.db"
    data = path.read_bytes()
    for size in (100, 4096, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(LedgerCorruptError):
            open_ledger(folder)
    path.write_bytes(data)
    open_ledger(folder).close()


def test_flipped_bits_never_pass_for_the_truth(folder: Path) -> None:
    """One bit at a time, all over the file: refused, or what is read is exactly what was written."""
    ledger = open_ledger(folder)
    for _ in range(30):
        ledger.write_blocking(note)
    ledger.write_blocking(lambda txn: level(txn, 1))
    ledger.close()
    path = folder / "ledger.db"
    data = path.read_bytes()
    refused = 0
    for place in range(0, len(data), 211):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :])
        try:
            damaged = open_ledger(folder)
            try:
                with damaged.read() as look:
                    verify_all(look)
                    assert owner.view(look).level_for("main") == 1
                    assert look.db.execute("SELECT count(*) FROM audit WHERE kind = 'decision'").fetchone()[0] == 30
            finally:
                damaged.close()
        except LedgerCorruptError:
            refused += 1
    path.write_bytes(data)
    for name in ("ledger.db-wal", "ledger.db-shm"):
        (folder / name).unlink(missing_ok=True)
    open_ledger(folder).close()
    assert refused > 50


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like a file" * 100, b"x"])
def test_not_a_database(folder: Path, content: bytes) -> None:
    (folder / "ledger.db").write_bytes(content)
    (folder / "ledger.db").chmod(0o600)
    with pytest.raises(LedgerCorruptError):
        open_ledger(folder)


def test_another_database_is_not_taken_over(folder: Path) -> None:
    with plain(folder) as db:
        db.execute("CREATE TABLE theirs(a)")
    (folder / "ledger.db").chmod(0o600)
    with pytest.raises(LedgerCorruptError):
        open_ledger(folder)
    with plain(folder) as db:
        assert db.execute("SELECT count(*) FROM theirs").fetchone()[0] == 0


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TRIGGER t AFTER INSERT ON audit BEGIN UPDATE approval_request SET state = 'approved'; END",
        "CREATE TABLE more(a)",
        "DROP INDEX one_execution",
    ],
)
def test_changed_tables_are_refused(folder: Path, change: str) -> None:
    open_ledger(folder).close()
    with plain(folder) as db:
        db.execute(change)
    with pytest.raises(LedgerCorruptError, match="tables were changed"):
        open_ledger(folder)


def test_newer_ledger_is_left_alone(folder: Path) -> None:
    open_ledger(folder).close()
    with plain(folder) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerError, match="newer version"):
        open_ledger(folder)
    with plain(folder) as db:
        db.execute("PRAGMA user_version = 1")
    open_ledger(folder).close()


# ── a second writer ──────────────────────────────────────────────────────────────────────────────────────────────


def test_second_writer_is_refused(folder: Path) -> None:
    first = open_ledger(folder)
    with pytest.raises(LedgerError, match="another process"):
        open_ledger(folder)
    first.write_blocking(note)
    first.close()
    open_ledger(folder).close()


def test_foreign_write_is_noticed(folder: Path) -> None:
    """Somebody who goes round the lock file: the writer stops instead of writing over it."""
    ledger = open_ledger(folder)
    ledger.write_blocking(note)
    with plain(folder) as db:
        db.execute("UPDATE audit SET at = at + 1 WHERE seq = 1")
    with pytest.raises(LedgerCorruptError):
        ledger.write_blocking(note)
    ledger.close()
    with pytest.raises(LedgerCorruptError):
        open_ledger(folder)


def test_foreign_reader_does_no_harm(folder: Path) -> None:
    ledger = open_ledger(folder)
    with plain(folder) as db:
        assert db.execute("SELECT count(*) FROM audit").fetchone()[0] == 0
    ledger.write_blocking(note)
    ledger.close()


# ── edited rows ──────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── keys, modes, tenants ─────────────────────────────────────────────────────────────────────────────────────────


def test_another_key_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    with pytest.raises(LedgerCorruptError):
        Ledger.open(folder / "ledger.db", LedgerKeys(bytes(32)), tenant=TENANT, clock=FakeClock())
    open_ledger(folder).close()


def test_another_tenant_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    keys = LedgerKeys(bytes(range(32)))
    with pytest.raises(LedgerCorruptError):
        Ledger.open(folder / "ledger.db", keys, tenant="ten_other", clock=FakeClock())


def test_ledger_that_others_can_read_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    (folder / "ledger.db").chmod(0o640)
    with pytest.raises(LedgerError, match="read by others"):
        open_ledger(folder)
    (folder / "ledger.db").chmod(0o600)
    open_ledger(folder).close()


def test_ledger_behind_a_link_is_refused(folder: Path) -> None:
    (folder / "real").mkdir()
    open_ledger(folder / "real").close()
    (folder / "ledger.db").symlink_to(folder / "real" / "ledger.db")
    with pytest.raises(LedgerError):
        open_ledger(folder)


def test_key_file(folder: Path) -> None:
    path = folder / "ledger.key"
    made = LedgerKeys.create(path)
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.stat().st_size == 32
    assert LedgerKeys.load(path).audit == made.audit
    assert len({made.audit, made.grant}) == 2
    assert made.audit.hex() not in repr(made)
    with pytest.raises(ConfigError):
        LedgerKeys.create(path)


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o404, 0o644, 0o000])
def test_key_of_wrong_mode(folder: Path, mode: int) -> None:
    path = folder / "ledger.key"
    LedgerKeys.create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="0400"):
        LedgerKeys.load(path)
    path.chmod(0o400)
    LedgerKeys.load(path)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_key_of_wrong_length(folder: Path, size: int) -> None:
    path = folder / "ledger.key"
    path.write_bytes(bytes(size))
    path.chmod(0o400)
    with pytest.raises(ConfigError, match="32 bytes"):
        LedgerKeys.load(path)


def test_key_that_is_no_file(folder: Path) -> None:
    path = folder / "ledger.key"
    with pytest.raises(ConfigError):
        LedgerKeys.load(path)
    path.mkdir()
    with pytest.raises(ConfigError):
        LedgerKeys.load(path)
    LedgerKeys.create(folder / "real.key")
    (folder / "link.key").symlink_to(folder / "real.key")
    with pytest.raises(ConfigError):
        LedgerKeys.load(folder / "link.key")
