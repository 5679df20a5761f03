"""Notice input and output of code that promises to do none, through the interpreter's audit events."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_EVENTS: Final = (
    "open",
    "os.",
    "socket.",
    "subprocess.",
    "shutil.",
    "sqlite3.connect",
    "ctypes.",
    "urllib.",
    "tempfile.",
    "glob.",
    "webbrowser.",
    "_thread.start_new_thread",
    "signal.",
)
_watching: list[tuple[int, list[str]]] = []
_installed: list[bool] = []


@contextmanager
def watch() -> Iterator[list[str]]:
    """The names of the audit events of this thread's code that mean I/O, as they happen.

    An audit hook can't be taken away again, so one is installed at first use and does nothing outside of this.
    """
    if not _installed:
        _installed.append(True)
        sys.addaudithook(_hear)
    seen: list[str] = []
    entry = (threading.get_ident(), seen)
    _watching.append(entry)
    try:
        yield seen
    finally:
        _watching.remove(entry)


def _hear(event: str, _arguments: tuple[object, ...]) -> None:
    if _watching and event.startswith(_EVENTS):
        for thread, seen in _watching:
            if thread == threading.get_ident():
                seen.append(event)
