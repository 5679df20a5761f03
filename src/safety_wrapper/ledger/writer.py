"""The one thread that writes: takes all queued changes, commits them together, and only then answers.

A change runs in a savepoint of its own, so its exception undoes it alone. Nobody is answered before the commit is on
the disk and the files are seen to be still the same ones.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from typing import Any, Final

from safety_wrapper.errors import LedgerCorruptError, LedgerError, LedgerFullError, LedgerGoneError
from safety_wrapper.ledger import recovery
from safety_wrapper.ledger.chain import CHECKPOINT_RECORDS, CHECKPOINT_SECONDS
from safety_wrapper.ledger.clock import Clock, Timekeeper
from safety_wrapper.ledger.files import Files
from safety_wrapper.ledger.keys import LedgerKeys
from safety_wrapper.ledger.state import State, save
from safety_wrapper.ledger.transaction import Txn, write_checkpoint

type Change = Callable[[Txn], Any]

_log = logging.getLogger(__name__)

#: How long the thread sleeps at most before it looks whether the hour's checkpoint is due.
_IDLE_S: Final = 60.0
#: More would make one slow commit; the rest goes into the next.
_BATCH: Final = 512
_CORRUPT: Final = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
#: Primary result codes that speak of the change, not of the store: they undo the change only.
_OF_THE_CHANGE: Final = frozenset(
    {
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_RANGE,
        sqlite3.SQLITE_TOOBIG,
        sqlite3.SQLITE_MISUSE,
        0,
    }
)


class Item:
    """One change on its way; ``waiter`` is a future of ``inbox``'s loop, or a lock that a thread waits for."""

    __slots__ = ("change", "error", "finish", "inbox", "value", "waiter")

    def __init__(
        self, change: Change, *, finish: bool, inbox: Inbox | None, waiter: asyncio.Future[Any] | threading.Lock
    ) -> None:
        self.change = change
        self.finish = finish
        self.inbox = inbox
        self.waiter = waiter
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def dropped(self) -> bool:
        """Its task was cancelled before the change was begun."""
        return isinstance(self.waiter, asyncio.Future) and self.waiter.cancelled()


class Inbox:
    """Collects what one loop's tasks hand in during one turn of the loop, so that it travels as one list."""

    __slots__ = ("items", "loop", "writer")

    def __init__(self, loop: asyncio.AbstractEventLoop, writer: Writer) -> None:
        self.loop = loop
        self.writer = writer
        self.items: list[Item] = []

    def add(self, item: Item) -> None:
        """Called on the loop's own thread."""
        if not self.items:
            self.loop.call_soon(self.flush)
        self.items.append(item)

    def flush(self) -> None:
        """Hand all collected items to the writer."""
        items, self.items = self.items, []
        if items:
            self.writer.submit(items)

    def resolve(self, items: list[Item]) -> None:
        """Answer the tasks; runs on the loop's own thread."""
        for item in items:
            future = item.waiter
            if not isinstance(future, asyncio.Future) or future.done():
                continue
            if item.error is None:
                future.set_result(item.value)
            else:
                future.set_exception(item.error)


class Writer:
    """Owns the writing connection and the state from ``start`` on. ``fault`` is set once nothing can be written
    until a restart (gone, corrupt, closed)."""

    def __init__(self, db: sqlite3.Connection, files: Files, keys: LedgerKeys, state: State, clock: Clock) -> None:
        self.fault: LedgerError | None = None
        self.time = Timekeeper(clock, state.mark)
        self._db = db
        self._files = files
        self._keys = keys
        self._state = state
        self._full = not files.fill_ballast()
        self._data_version = self._read_data_version()
        self._queue: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        self._closing = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)

    @property
    def is_full(self) -> bool:
        """The disk was full at the last commit: only what finishes something is admitted."""
        return self._full

    @property
    def is_me(self) -> bool:
        """Asked on the writer's own thread, where waiting for it would never end."""
        return threading.current_thread() is self._thread

    def start(self) -> None:
        """Begin to take changes."""
        self._thread.start()

    def submit(self, items: list[Item]) -> None:
        """Hand over changes; answered later. After the end they are answered at once, with the fault."""
        with self._closing:
            if not self._ended:
                self._queue.put(items)
                return
        for item in items:
            item.error = _again(self.fault) if self.fault else LedgerError("the ledger is closed")
        self._answer(items)

    def stop(self) -> None:
        """Commit what is queued, write a checkpoint, end the thread."""
        with self._closing:
            self._queue.put(None)
        self._thread.join()

    # ── the thread ───────────────────────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        open_for_more = True
        while open_for_more:
            try:
                first = self._queue.get(timeout=_IDLE_S)
            except queue.Empty:
                self._checkpoint(only_if_due=True)
                continue
            open_for_more = self._take(first)
        self._checkpoint(only_if_due=False)
        with self._closing:
            self._ended = True
        while True:
            try:
                late = self._queue.get_nowait() or []
            except queue.Empty:
                return
            for item in late:
                item.error = LedgerError("the ledger is closed")
            self._answer(late)

    def _take(self, first: list[Item] | None) -> bool:
        """Drain the queue and commit; False once the end was asked for."""
        batch: list[Item] = []
        more = True
        entry = first
        while True:
            if entry is None:
                more = False
                break
            batch += entry
            if len(batch) >= _BATCH:
                break
            try:
                entry = self._queue.get_nowait()
            except queue.Empty:
                break
        batch = [item for item in batch if not item.dropped]
        try:
            self._commit(batch)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, every caller must get an answer
            fault = typed(exc)
            for item in batch:
                item.error = item.error or fault
        self._answer(batch)
        return more

    def _commit(self, batch: list[Item]) -> None:
        """Commit ``batch``; each item holds its value or error afterwards. Raises LedgerError for all of them."""
        if self.fault is not None:
            raise _again(self.fault)
        if self._full:
            self._full = not self._files.fill_ballast()
        if self._full:
            batch = _finishing_only(batch)
        if not batch:
            return
        try:
            self._transact(batch)
        except LedgerFullError:
            # What has begun can be finished in the ballast's space; everything new waits for room.
            self._full = True
            _log.error("ledger: the disk is full; only what has begun is finished")
            if not self._files.drop_ballast():
                raise
            batch = _finishing_only(batch)
            if batch:
                self._transact(batch)
        except (LedgerGoneError, LedgerCorruptError) as exc:
            self.fault = exc
            _log.critical("ledger: %s", exc.message)
            raise

    def _transact(self, batch: list[Item]) -> None:
        db, state = self._db, self._state
        before = state.counters()
        mark, distrusted = self.time.step()
        txn = Txn(db, self._keys, state, mark.now)
        try:
            db.execute("BEGIN IMMEDIATE")
            if self._read_data_version() != self._data_version:
                raise LedgerCorruptError("another program wrote into the ledger")
            if distrusted:
                recovery.distrust_clock(txn)
            if len(batch) == 1 and not distrusted:
                done = self._run_alone(txn, batch[0])
            else:
                done = self._run_all(txn, batch) or distrusted
            if done:
                if self._checkpoint_due(mark.now):
                    write_checkpoint(txn)
                save(db, self._keys, state, mark)
                self._files.check()
                db.execute("COMMIT")
                # A file taken away during the commit took the commit with it.
                self._files.check()
                if distrusted:
                    self.time.trust(mark)
            else:
                db.execute("ROLLBACK")
                state.restore(before)
        except BaseException as exc:
            state.restore(before)
            self._roll_back()
            raise typed(exc) from exc

    def _run_alone(self, txn: Txn, item: Item) -> bool:
        """A batch of one needs no savepoint: its exception undoes the transaction."""
        try:
            item.value = item.change(txn)
        except Exception as exc:
            if _is_fault(exc):
                raise
            item.error = _own_error(exc)
            return False
        return True

    def _run_all(self, txn: Txn, batch: list[Item]) -> bool:
        db, state, done = self._db, self._state, False
        for item in batch:
            before = state.counters()
            db.execute("SAVEPOINT change")
            try:
                item.value = item.change(txn)
            except Exception as exc:
                if _is_fault(exc) or not db.in_transaction:
                    raise
                db.execute("ROLLBACK TO change")
                state.restore(before)
                item.error = _own_error(exc)
            else:
                done = True
            db.execute("RELEASE change")
        return done

    def _checkpoint_due(self, now: int) -> bool:
        state = self._state
        if state.head_seq == state.checkpoint_seq:
            return False
        return (
            state.head_seq - state.checkpoint_seq >= CHECKPOINT_RECORDS
            or now - state.checkpoint_at >= CHECKPOINT_SECONDS
        )

    def _checkpoint(self, *, only_if_due: bool) -> None:
        """A checkpoint outside of a batch: in an idle hour, or at the end."""
        if self.fault is not None:
            return
        # At the end there is a commit in any case: it stores the time that readers have seen since the last one.
        if only_if_due and not self._checkpoint_due(self.time.step()[0].now):
            return
        item = Item(write_checkpoint, finish=True, inbox=None, waiter=threading.Lock())
        try:
            self._commit([item])
        except LedgerError as exc:
            _log.error("ledger: no checkpoint written: %s", exc.message)

    def _read_data_version(self) -> int:
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error as exc:
            self.fault = LedgerError("the ledger can't be written any more", do="restart the core")
            _log.critical("ledger: roll-back failed: %s", exc.sqlite_errorname)

    def _answer(self, items: list[Item]) -> None:
        by_inbox: dict[Inbox, list[Item]] = {}
        for item in items:
            if isinstance(item.waiter, asyncio.Future):
                if item.inbox is not None:
                    by_inbox.setdefault(item.inbox, []).append(item)
            elif item.waiter.locked():
                item.waiter.release()
        for inbox, theirs in by_inbox.items():
            try:
                inbox.loop.call_soon_threadsafe(inbox.resolve, theirs)
            except RuntimeError:
                _log.warning("ledger: a loop ended before its changes were answered")


def _finishing_only(batch: list[Item]) -> list[Item]:
    """Refuse what is new while the disk is full."""
    for item in batch:
        item.error = None
        if not item.finish:
            item.error = LedgerFullError("the disk is full", do="free space; the engine continues by itself")
    return [item for item in batch if item.finish]


def _is_fault(exc: BaseException) -> bool:
    """Faults of the store concern the whole batch; anything else is the change's own affair."""
    return isinstance(exc, sqlite3.Error) and _code(exc) not in _OF_THE_CHANGE


def _own_error(exc: Exception) -> Exception:
    """What the change's caller gets: its own exception, unless that is one of the store or one a future refuses."""
    return typed(exc) if isinstance(exc, sqlite3.Error | UnicodeError | StopIteration) else exc


def _again(fault: LedgerError) -> LedgerError:
    """A fresh exception for each caller: one that is raised again and again would keep every traceback."""
    return type(fault)(fault.message, do=fault.do)


def typed(exc: BaseException) -> LedgerError:
    """The error of errors.py that stands for ``exc``."""
    if isinstance(exc, LedgerError):
        return exc
    if isinstance(exc, sqlite3.Error):
        code = _code(exc)
        if code == sqlite3.SQLITE_FULL or getattr(exc, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
            return LedgerFullError("the disk is full", do="free space; the engine continues by itself")
        if code in _CORRUPT:
            return LedgerCorruptError("the ledger's file is damaged", do="restore it from its backup")
        return LedgerError(f"the ledger can't be written: {getattr(exc, 'sqlite_errorname', 'unknown')}")
    return LedgerError("the ledger's writer failed")


def _code(exc: sqlite3.Error) -> int:
    """The primary result code."""
    return int(getattr(exc, "sqlite_errorcode", 0)) & 0xFF
