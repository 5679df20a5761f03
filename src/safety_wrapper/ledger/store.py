"""Ledger: opening with all its checks, writing through the writer thread, reading on connections of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote
from weakref import WeakKeyDictionary

import orjson

from safety_wrapper.errors import LedgerCorruptError, LedgerError, LedgerFullError
from safety_wrapper.ledger import recovery, schema
from safety_wrapper.ledger import state as state_row
from safety_wrapper.ledger.chain import COLUMNS, Link, verify_checkpoint, verify_rows
from safety_wrapper.ledger.clock import Clock, advance, wait_synchronised
from safety_wrapper.ledger.files import Files
from safety_wrapper.ledger.keys import LedgerKeys
from safety_wrapper.ledger.state import ZERO, State
from safety_wrapper.ledger.transaction import Look, Reader, Txn
from safety_wrapper.ledger.writer import Inbox, Item, Writer, typed

_BUSY_S: Final = 5.0
_IDLE_READERS: Final = 4
_SYNC_WAIT_S: Final = 60.0
BALLAST_BYTES: Final = 16 * 1024 * 1024


class Ledger:
    """The core's only store. One writer process (lock file), any number of readers in it.

    ``write`` and ``write_blocking`` return after the change is durable; an exception of the change undoes that
    change only. They raise LedgerGoneError, LedgerCorruptError (both final until a restart), LedgerFullError (passes
    by itself when there is room again; changes with ``finish=True`` still go through in reserved space).
    """

    def __init__(
        self, path: Path, db: sqlite3.Connection, keys: LedgerKeys, state: State, clock: Clock, files: Files
    ) -> None:
        """For ``open`` only."""
        self.path = path
        self._db = db
        self._keys = keys
        self._tenant = state.tenant
        self._files = files
        self._writer = Writer(db, files, keys, state, clock)
        self._inboxes: WeakKeyDictionary[asyncio.AbstractEventLoop, Inbox] = WeakKeyDictionary()
        self._readers: deque[sqlite3.Connection] = deque()
        self._is_closed = False

    @classmethod
    def open(
        cls,
        path: Path,
        keys: LedgerKeys,
        *,
        tenant: str,
        clock: Clock,
        ballast_bytes: int = BALLAST_BYTES,
        sync_wait_s: float = _SYNC_WAIT_S,
    ) -> Self:
        """Lock, check, migrate, verify the chain since the last checkpoint, recover. Blocks; call it at start.

        After a reboot it waits up to ``sync_wait_s`` for the kernel's clock before it expires what was open.
        Raises LedgerError when another process writes, and the errors named at the class.
        """
        path = Path(path)
        files = Files(path, ballast_bytes)
        try:
            files.prepare()
            try:
                db, state = _connect(files, keys, tenant, clock)
            except LedgerFullError:
                if not files.drop_ballast():
                    raise
                db, state = _connect(files, keys, tenant, clock)
        except BaseException:
            files.close()
            raise
        try:
            files.watch()
            files.check()
            wait_synchronised(clock, state.mark, sync_wait_s)
            ledger = cls(path, db, keys, state, clock, files)
        except BaseException:
            db.close()
            files.close()
            raise
        ledger._writer.start()
        try:
            ledger.write_blocking(recovery.recover, finish=True)
            files.mark_made()
        except BaseException:
            ledger.close()
            raise
        return ledger

    @property
    def fault(self) -> LedgerError | None:
        """Why nothing can be written until a restart, or None. For health checks."""
        return self._writer.fault

    @property
    def is_full(self) -> bool:
        """Whether new changes are refused for want of space. For health checks."""
        return self._writer.is_full

    async def write[T](self, change: Callable[[Txn], T], *, finish: bool = False) -> T:
        """Run ``change`` in the writer thread; its value once it is durable. ``finish``: it only ends what has begun
        (a result, a denial), so it may use the space that is kept back for a full disk.

        A task that is cancelled while it waits can't know whether its change was made.
        """
        loop = asyncio.get_running_loop()
        inbox = self._inboxes.get(loop)
        if inbox is None:
            inbox = self._inboxes[loop] = Inbox(loop, self._writer)
        future: asyncio.Future[T] = loop.create_future()
        inbox.add(Item(change, finish=finish, inbox=inbox, waiter=future))
        return await future

    def write_blocking[T](self, change: Callable[[Txn], T], *, finish: bool = False) -> T:
        """The same for threads; never call it on a running loop's thread."""
        if self._writer.is_me:
            raise LedgerError("a change can't wait for another change")
        waiter = threading.Lock()
        waiter.acquire()
        item = Item(change, finish=finish, inbox=None, waiter=waiter)
        self._writer.submit([item])
        with waiter:
            pass
        if item.error is not None:
            raise item.error
        value: T = item.value
        return value

    @contextmanager
    def read(self) -> Iterator[Reader]:
        """A snapshot on a read-only connection of its own; never waits for the writer. Keep it short.

        Raises LedgerGoneError, LedgerCorruptError, LedgerError (closed).
        """
        if self._is_closed:
            raise LedgerError("the ledger is closed")
        if isinstance(self._writer.fault, LedgerCorruptError):
            raise self._writer.fault
        self._files.check_ledger()
        db = self._take_reader()
        try:
            db.execute("BEGIN")
            yield Reader(db, self._keys, self._tenant, self.now())
        except sqlite3.Error as exc:
            raise typed(exc) from exc
        finally:
            self._give_back(db)

    def now(self) -> int:
        """t_eff in seconds, as a look would see it now. Cheap; writes nothing."""
        return self._writer.time.step()[0].now

    def close(self) -> None:
        """Commit what is queued, write a checkpoint, close the file, let go of the lock. Twice is no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        for inbox in list(self._inboxes.values()):
            inbox.flush()
        self._writer.stop()
        while self._readers:
            self._readers.pop().close()
        with contextlib.suppress(sqlite3.Error):
            self._db.close()
        self._files.close()

    def _take_reader(self) -> sqlite3.Connection:
        try:
            return self._readers.pop()
        except IndexError:
            pass
        uri = f"file:{quote(str(self.path.absolute()))}?mode=ro"
        try:
            db = sqlite3.connect(uri, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA query_only=ON")
        except sqlite3.Error as exc:
            raise typed(exc) from exc
        return db

    def _give_back(self, db: sqlite3.Connection) -> None:
        try:
            if db.in_transaction:
                db.execute("ROLLBACK")
        except sqlite3.Error:
            db.close()
            return
        if self._is_closed or len(self._readers) >= _IDLE_READERS:
            db.close()
        else:
            self._readers.append(db)


def verify_all(look: Look) -> Link:
    """Check the whole chain and each checkpoint's signature; the last link. Raises LedgerCorruptError. O(records)."""
    return _verify(look.db, look.keys, look.state, Link(0, ZERO))


def _connect(files: Files, keys: LedgerKeys, tenant: str, clock: Clock) -> tuple[sqlite3.Connection, State]:
    """The writing connection after all checks. Raises LedgerFullError, LedgerCorruptError, LedgerError."""
    db = sqlite3.connect(
        files.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        return db, _open_checked(db, files, keys, tenant, clock)
    except BaseException as exc:
        db.close()
        if isinstance(exc, sqlite3.OperationalError) and exc.sqlite_errorcode == sqlite3.SQLITE_ERROR:
            raise LedgerCorruptError("the ledger's tables are damaged", do="restore it from its backup") from exc
        if isinstance(exc, sqlite3.Error):
            raise typed(exc) from exc
        raise


def _open_checked(db: sqlite3.Connection, files: Files, keys: LedgerKeys, tenant: str, clock: Clock) -> State:
    mode = db.execute(schema.PRAGMAS[0]).fetchone()[0]
    if mode != "wal":
        raise LedgerError("the folder's file system can't hold a ledger (no write-ahead log)")
    for pragma in schema.PRAGMAS[1:]:
        db.execute(pragma)
    if db.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise LedgerCorruptError("the ledger's file is damaged", do="restore it from its backup")
    schema.migrate(db)
    if not files.was_made and db.execute("SELECT count(*) FROM state").fetchone()[0] == 0:
        mark, _ = advance(None, clock.reading())
        fresh = State(tenant, mark)
        fresh.checkpoint_at = mark.now
        db.execute("BEGIN IMMEDIATE")
        state_row.save(db, keys, fresh, mark, is_new=True)
        db.execute("COMMIT")
    state = state_row.load(db, keys, tenant)
    _verify(db, keys, state, _last_checkpoint(db, keys, state))
    return state


def _last_checkpoint(db: sqlite3.Connection, keys: LedgerKeys, state: State) -> Link:
    """The link below the newest checkpoint; its signature is checked with the rows after it."""
    if not state.checkpoint_seq:
        return Link(0, ZERO)
    row = db.execute("SELECT body FROM audit WHERE seq = ? AND kind = 'checkpoint'", (state.checkpoint_seq,)).fetchone()
    try:
        return Link(state.checkpoint_seq - 1, bytes.fromhex(orjson.loads(row[0])["sha256"]))
    except (TypeError, ValueError, KeyError) as exc:
        raise LedgerCorruptError("the newest checkpoint is missing or was edited") from exc


def _verify(db: sqlite3.Connection, keys: LedgerKeys, state: State, start: Link) -> Link:
    rows = db.execute(f"SELECT {COLUMNS} FROM audit WHERE seq > ? ORDER BY seq", (start.seq,))  # noqa: S608
    public_keys = {keys.kid: keys.public}
    last = start
    for row in rows:
        before, last = last, verify_rows((row,), last, keys.audit)
        if row[2] == "checkpoint":
            try:
                body: Any = orjson.loads(row[6])
            except ValueError as exc:
                raise LedgerCorruptError(f"audit record {row[0]} was edited") from exc
            verify_checkpoint(state.tenant, row[1], body, public_keys, before)
    if last != Link(state.head_seq, state.head_sha256):
        raise LedgerCorruptError("audit records are missing at the end of the chain")
    return last
