"""The listening side: who may connect, and what one peer may hold.

Bounds for each uid: connections, requests and bytes in flight. Bounds for each connection: one frame not complete
(with a deadline from its first byte on, so that dripping bytes does not extend it), answers not read, requests in
flight. A peer that breaks one costs nobody else anything.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Final

from safety_wrapper.errors import ConfigError
from safety_wrapper.frames.connection import Connection, Handler, Limits
from safety_wrapper.frames.wire import Peer, answer, encode, error_answer, peer_of

#: A path of a Unix socket has at most this many bytes.
_MAX_PATH: Final = 107


def ignore(exc: BaseException) -> None:
    """Hear of a fault and do nothing."""


class Server:
    """Listens on one Unix socket and answers verbs.

    ``admit`` decides by the peer before anything is read; if it raises, the peer is not admitted. ``on_fault`` hears
    of a handler's unexpected exception. The socket's folder must exist.
    """

    def __init__(
        self,
        verbs: dict[str, Handler],
        *,
        admit: Callable[[Peer], bool],
        limits: Limits | None = None,
        on_fault: Callable[[BaseException], None] = ignore,
    ) -> None:
        self.verbs = verbs
        self.limits = limits or Limits()
        self.connections: set[Connection] = set()
        self._on_fault = on_fault
        self._admit = admit
        self._listener: socket.socket | None = None
        self._per_uid: Counter[int] = Counter()
        self._bytes_per_uid: Counter[int] = Counter()

    def listen(self, path: Path, *, mode: int = 0o660, gid: int | None = None) -> None:
        """Bind ``path`` and start to accept; call inside the running loop.

        A socket that lies there already is replaced. Raises ConfigError for anything else that lies there, and for a
        path that is too long.
        """
        if len(os.fsencode(path)) > _MAX_PATH:
            raise ConfigError(f"{path}: too long for a socket", do=f"choose paths.run of less than {_MAX_PATH} bytes")
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(path.lstat().st_mode):
                raise ConfigError(f"{path}: something that is no socket lies there", do="move it away")
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            before = os.umask(0o777)
            try:
                listener.bind(str(path))
            finally:
                os.umask(before)
            if gid is not None:
                os.chown(path, -1, gid)
            path.chmod(mode)
            listener.listen(64)
        except BaseException:
            listener.close()
            raise
        self._listener = listener
        asyncio.get_running_loop().add_reader(listener.fileno(), self._accept)

    def close(self) -> None:
        """Stop to accept and close every connection."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener.fileno())
            self._listener.close()
            self._listener = None
        for connection in list(self.connections):
            connection.close()

    def fault(self, exc: BaseException) -> None:
        """Tell ``on_fault``; what that raises changes nothing here."""
        with contextlib.suppress(Exception):
            self._on_fault(exc)

    def forget(self, connection: Connection) -> None:
        """Called by a connection that closed."""
        if connection in self.connections:
            self.connections.discard(connection)
            _count_down(self._per_uid, connection.peer.uid, 1)

    def take_budget(self, uid: int, size: int) -> bool:
        """Count ``size`` bytes as in flight for ``uid``; False when that would be too much at once."""
        if self._bytes_per_uid[uid] + size > self.limits.max_bytes_in_flight:
            return False
        self._bytes_per_uid[uid] += size
        return True

    def give_back(self, uid: int, size: int) -> None:
        """Undo :meth:`take_budget`."""
        _count_down(self._bytes_per_uid, uid, size)

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError as exc:
            if exc.errno in {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS}:
                # it would be called again at once, for ever: leave who waits in the queue and look again later
                self.fault(exc)
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._listener.fileno())
                loop.call_later(0.5, self._accept_again)
            return
        sock.setblocking(False)  # noqa: FBT003 - its only form
        peer = peer_of(sock)
        refusal = self._refusal(peer)
        if refusal is not None:
            with contextlib.suppress(OSError):
                sock.send(encode(answer(None, error_answer(refusal))))
            sock.close()
            return
        self._per_uid[peer.uid] += 1
        self.connections.add(Connection(self, sock, peer))

    def _accept_again(self) -> None:
        if self._listener is not None:
            asyncio.get_running_loop().add_reader(self._listener.fileno(), self._accept)

    def _refusal(self, peer: Peer) -> str | None:
        try:
            admitted = self._admit(peer)
        except Exception as exc:  # noqa: BLE001 - whatever it is, the peer is not admitted
            self.fault(exc)
            return "internal"
        if admitted is not True:
            return "not_permitted"
        return "busy" if self._per_uid[peer.uid] >= self.limits.max_connections_per_uid else None


def _count_down(counter: Counter[int], key: int, amount: int) -> None:
    counter[key] -= amount
    if counter[key] <= 0:
        del counter[key]
