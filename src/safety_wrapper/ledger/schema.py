"""Tables of ledger.db and their numbered migrations. A released migration is never changed; a new one follows it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import cache
from typing import Final

from safety_wrapper.errors import LedgerCorruptError, LedgerError

APPLICATION_ID: Final = 0x5357_4C47  # "SWLG"

#: FULL, since NORMAL loses acknowledged rows on power loss; tests/stateful/test_power_loss.py shows both.
PRAGMAS: Final = (
    "PRAGMA journal_mode=WAL",
    "PRAGMA synchronous=FULL",
    "PRAGMA foreign_keys=ON",
    "PRAGMA trusted_schema=OFF",
    "PRAGMA temp_store=MEMORY",
    "PRAGMA wal_autocheckpoint=1000",
)

_V1: Final = """
CREATE TABLE state(
  id INTEGER PRIMARY KEY CHECK (id = 1), tenant TEXT NOT NULL,
  t_ns INTEGER NOT NULL, boottime_ns INTEGER NOT NULL, boot_id TEXT NOT NULL, synchronised INTEGER NOT NULL,
  head_seq INTEGER NOT NULL, head_sha256 BLOB NOT NULL, checkpoint_seq INTEGER NOT NULL, checkpoint_at INTEGER NOT NULL,
  owner_count INTEGER NOT NULL, owner_mac BLOB NOT NULL, floor_version INTEGER, floor_sha256 TEXT, mac BLOB NOT NULL
) STRICT;

-- No index but this one: an audit row is on the hot path, searching is not. A second execution of one approval can't
-- even be written down.
CREATE TABLE audit(
  seq INTEGER PRIMARY KEY, at INTEGER NOT NULL, kind TEXT NOT NULL, agent TEXT, session TEXT, ref TEXT,
  body BLOB NOT NULL, sha256 BLOB NOT NULL, mac BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX one_execution ON audit(ref) WHERE kind = 'execution';

CREATE TABLE approval_request(
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, agent TEXT NOT NULL, session TEXT NOT NULL,
  call_digest TEXT NOT NULL, shape TEXT NOT NULL, stored_call BLOB NOT NULL, tool TEXT NOT NULL, class TEXT NOT NULL,
  external INTEGER NOT NULL, own_tool INTEGER NOT NULL, rules TEXT NOT NULL, title TEXT NOT NULL, lines TEXT NOT NULL,
  reason TEXT NOT NULL, bundle_sha256 TEXT NOT NULL, repeats TEXT, created_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, opened_mac BLOB NOT NULL,
  state TEXT NOT NULL, count INTEGER NOT NULL DEFAULT 1, closed_why TEXT,
  decided_by TEXT, decided_at INTEGER, comment TEXT, run_before INTEGER, decided_mac BLOB,
  finished_at INTEGER, result BLOB, wake INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE UNIQUE INDEX one_pending ON approval_request(call_digest, agent, session) WHERE state = 'pending';
CREATE INDEX request_pending ON approval_request(agent, shape) WHERE state = 'pending';
CREATE INDEX request_to_run ON approval_request(run_before) WHERE state = 'approved' AND own_tool = 1;
CREATE INDEX request_executing ON approval_request(n) WHERE state = 'executing';
CREATE INDEX request_past ON approval_request(call_digest);
CREATE INDEX request_no ON approval_request(decided_at) WHERE state = 'denied' OR state = 'revoked';
CREATE INDEX request_wake ON approval_request(n) WHERE wake = 1;

CREATE TABLE approval_grant(
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, request TEXT NOT NULL UNIQUE REFERENCES approval_request(id),
  agent TEXT NOT NULL, session TEXT NOT NULL, tool TEXT NOT NULL, call_digest TEXT NOT NULL,
  bundle_sha256 TEXT NOT NULL, assurance INTEGER NOT NULL, approver TEXT NOT NULL, minted_at INTEGER NOT NULL,
  expires_at INTEGER NOT NULL, mac BLOB NOT NULL, state TEXT NOT NULL, used_at INTEGER, tool_call_id TEXT
) STRICT;
CREATE INDEX grant_past ON approval_grant(call_digest);
-- One small index for both open states: spending a grant touches as few pages as can be.
CREATE INDEX grant_open ON approval_grant(state) WHERE state = 'live' OR state = 'executing';

CREATE TABLE job(
  id TEXT PRIMARY KEY, agent TEXT NOT NULL, session TEXT NOT NULL, call_digest TEXT NOT NULL, state TEXT NOT NULL,
  opened_at INTEGER NOT NULL, finished_at INTEGER, result BLOB
) STRICT, WITHOUT ROWID;
CREATE INDEX job_running ON job(state) WHERE state = 'running';

CREATE TABLE owner_statement(
  n INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL,
  made_by TEXT NOT NULL, reason TEXT NOT NULL, made_at INTEGER NOT NULL, ends_at INTEGER, supersedes TEXT,
  mac BLOB NOT NULL
) STRICT;

CREATE TABLE child_session(
  session TEXT PRIMARY KEY, parent TEXT NOT NULL, depth INTEGER NOT NULL, calls_left INTEGER NOT NULL, mac BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE spawn_reservation(
  n INTEGER PRIMARY KEY, parent TEXT NOT NULL, depth INTEGER NOT NULL, calls INTEGER NOT NULL, made_at INTEGER NOT NULL,
  mac BLOB NOT NULL
) STRICT;
CREATE INDEX reservation_parent ON spawn_reservation(parent);

CREATE TABLE provenance(
  session TEXT NOT NULL, source TEXT NOT NULL, tainted INTEGER NOT NULL, ref TEXT, at INTEGER NOT NULL,
  PRIMARY KEY (session, source, tainted)
) STRICT, WITHOUT ROWID;

CREATE TABLE outbox(
  seq INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, ref TEXT NOT NULL, body TEXT NOT NULL,
  priority INTEGER NOT NULL, put_at INTEGER NOT NULL, acked_at INTEGER
) STRICT;
CREATE INDEX outbox_due ON outbox(priority DESC, seq) WHERE acked_at IS NULL;
"""

MIGRATIONS: Final = (_V1,)


def migrate(db: sqlite3.Connection) -> bool:
    """Bring the file to the newest version, each migration in one transaction; True if the file was new.

    Raises LedgerCorruptError for a file that is no ledger or whose tables are not ours alone (a trigger would act
    inside our transactions), LedgerError for one that a newer version wrote.
    """
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    application = int(db.execute("PRAGMA application_id").fetchone()[0])
    is_new = version == 0
    if is_new and db.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise LedgerCorruptError("the file is a database, but no ledger")
    if not is_new and application != APPLICATION_ID:
        raise LedgerCorruptError("the file is a database, but no ledger")
    if version > len(MIGRATIONS):
        raise LedgerError("a newer version of safety-wrapper wrote this ledger", do="install that version")
    for number, script in enumerate(MIGRATIONS[version:], start=version + 1):
        # executescript leaves transactions to the script, so a migration is applied whole or not at all.
        db.executescript(
            f"BEGIN IMMEDIATE;\n{script}\nPRAGMA application_id={APPLICATION_ID};\n"
            f"PRAGMA user_version={number};\nCOMMIT;"
        )
    if _schema(db) != _expected_schema():
        raise LedgerCorruptError("the ledger's tables were changed", do="restore it from its backup")
    return is_new


def _schema(db: sqlite3.Connection) -> list[tuple[str, ...]]:
    return db.execute("SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


@cache
def _expected_schema() -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        for script in MIGRATIONS:
            db.executescript(script)
        return _schema(db)
