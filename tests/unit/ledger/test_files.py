"""Files taken away, cut off, damaged, or shared with a second writer: each ends in its typed error, with a twin."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_wrapper.errors import LedgerCorruptError, LedgerError, LedgerGoneError
from safety_wrapper.ledger import Txn, owner, verify_all
from stateful.rig import open_ledger


def note(txn: Txn) -> int:
    return txn.audit("decision", ref="dec_1", body={"filling": "x" * 400})


@contextlib.contextmanager
def plain(folder: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(sqlite3.connect(folder / "ledger.db", isolation_level=None)) as db:
        yield db


def level(txn: Txn, value: int, agent: str = "*") -> str:
    return owner.set_statement(
        txn, kind="level", body={"agent": agent, "level": value}, by="local_root", reason="because"
    )


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
