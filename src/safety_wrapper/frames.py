"""Framed JSON over Unix sockets: four bytes of length, one strict JSON object, descriptors on the first byte.

One implementation for every socket of the engine, server and client. Who the peer is comes from the kernel
(SO_PEERCRED), never from a frame. A frame that is cut, slow, too long, not strict JSON or without a known verb gets
one error answer with fixed text, then the connection closes. Source: docs/reference/schemas.md §1.
"""

from __future__ import annotations

import array
import asyncio
import contextlib
import errno
import fcntl
import os
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import orjson

from safety_wrapper.canonical import parse_strict
from safety_wrapper.errors import CanonicalError, SafetyError, WireError

MESSAGES: Final = {
    "bad_frame": "the frame can't be read",
    "bad_request": "the request does not fit the verb",
    "unknown_verb": "there is no such verb on this socket",
    "not_permitted": "not permitted",
    "busy": "too much at once; try again later",
    "deadline": "no answer in time",
    "unavailable": "the part that should answer is away",
    "withheld": "the text is withheld",
    "internal": "internal error",
}
MAX_DESCRIPTORS: Final = 4
MEMFD_ABOVE: Final = 64 * 1024
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel names it."""

    pid: int
    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Limits:
    """What one socket takes. ``first_verb``: the verb that must come first, within ``hello_s``."""

    max_frame_bytes: int = 1024 * 1024
    max_in_flight: int = 32
    max_connections_per_uid: int = 16
    max_bytes_in_flight: int = 16 * 1024 * 1024
    hello_s: float = 2.0
    frame_s: float = 5.0
    first_verb: str | None = "hello"


@dataclass(slots=True)
class Request:
    """One request of a peer. ``body`` holds the verb's own keys; ``descriptors`` are the handler's to close."""

    verb: str
    body: dict[str, Any]
    connection: Connection
    descriptors: list[int] = field(default_factory=list)


#: A handler gives the answer's own keys; it raises WireError or SafetyError for an error answer.
type Handler = Callable[[Request], Awaitable[dict[str, Any]]]


def encode(message: dict[str, Any]) -> bytes:
    """One frame. ``message`` must be JSON by type."""
    data = orjson.dumps(message)
    return struct.pack(">I", len(data)) + data


class Connection:
    """One accepted connection: buffers, in-flight requests, deadlines. Made by :class:`Server` only."""

    def __init__(self, server: Server, sock: socket.socket, peer: Peer) -> None:
        self.peer = peer
        self.state: dict[str, Any] = {}
        self._server = server
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._in = bytearray()
        self._out = bytearray()
        self._fds: list[int] = []
        self._out_fds: list[tuple[int, list[int]]] = []  # (offset in _out, descriptors)
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._greeted = server.limits.first_verb is None
        self._closing = False
        self._timer = self._loop.call_later(server.limits.hello_s, self._late)
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """True once no more answers can be sent."""
        return self._sock.fileno() < 0

    def push(self, message: dict[str, Any]) -> None:
        """Send an event (a frame without id)."""
        self._send(message, ())

    def close(self) -> None:
        """Close now; running requests are cancelled."""
        if self._sock.fileno() < 0:
            return
        self._timer.cancel()
        fd = self._sock.fileno()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()
        for task in self._tasks.values():
            task.cancel()
        for left in self._fds:
            os.close(left)
        self._fds.clear()
        for _, group in self._out_fds:
            for left in group:
                os.close(left)
        self._out_fds.clear()
        self._server.forget(self)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def _readable(self) -> None:
        try:
            data, ancillary, flags, _ = self._sock.recvmsg(
                262_144, socket.CMSG_LEN(MAX_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self.close()
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self._fds.extend(fds)
        if not data:
            return self.close()
        if self._closing:
            return None
        self._in += data
        if flags & socket.MSG_CTRUNC or len(self._fds) > MAX_DESCRIPTORS * self._server.limits.max_in_flight:
            return self._refuse(None, "bad_frame")
        while not self._closing and len(self._in) >= 4:
            length = int.from_bytes(self._in[:4], "big")
            if not 2 <= length <= self._server.limits.max_frame_bytes:
                return self._refuse(None, "bad_frame")
            if len(self._in) < 4 + length:
                break
            frame = bytes(self._in[4 : 4 + length])
            del self._in[: 4 + length]
            self._frame(frame)
        if not self._closing and self._sock.fileno() >= 0 and self._greeted:
            self._timer.cancel()
            if self._in:
                self._timer = self._loop.call_later(self._server.limits.frame_s, self._late)
        return None

    def _frame(self, frame: bytes) -> None:
        limits = self._server.limits
        try:
            message = parse_strict(frame)
        except CanonicalError:
            return self._refuse(None, "bad_frame")
        if type(message) is not dict:
            return self._refuse(None, "bad_frame")
        request_id, verb = message.pop("id", None), message.pop("verb", None)
        if type(request_id) is not int or message.pop("v", None) != 1 or type(verb) is not str:
            return self._refuse(None, "bad_frame")
        if not self._greeted:
            if verb != limits.first_verb:
                return self._refuse(request_id, "bad_request")
            self._greeted = True
        handler = self._server.verbs.get(verb)
        if handler is None:
            return self._refuse(request_id, "unknown_verb")
        if request_id in self._tasks:
            return self._refuse(request_id, "bad_frame")
        if len(self._tasks) >= limits.max_in_flight or self._server.over_budget(len(frame)):
            return self._answer(request_id, _error("busy"))
        descriptors = self._take_descriptors(message)
        if descriptors is None:
            return self._refuse(request_id, "bad_frame")
        request = Request(verb, message, self, descriptors)
        self._server.bytes_in_flight += len(frame)
        task = self._loop.create_task(self._run(request_id, handler, request, len(frame)))
        self._tasks[request_id] = task
        return None

    def _take_descriptors(self, message: dict[str, Any]) -> list[int] | None:
        """The first ``fds`` descriptors that came so far belong to this frame."""
        count = message.pop("fds", 0)
        if type(count) is not int or not 0 <= count <= min(MAX_DESCRIPTORS, len(self._fds)):
            return None
        taken, self._fds = self._fds[:count], self._fds[count:]
        return taken

    async def _run(self, request_id: int, handler: Handler, request: Request, size: int) -> None:
        try:
            answer = await handler(request)
        except WireError as exc:
            answer = _error(exc.code)
        except SafetyError as exc:
            answer = _error(exc.code if exc.code in MESSAGES else "internal")
        except asyncio.CancelledError:
            raise
        except Exception as exc:
            self._server.on_fault(exc)
            answer = _error("internal")
        finally:
            self._tasks.pop(request_id, None)
            self._server.bytes_in_flight -= size
            for fd in request.descriptors:
                with contextlib.suppress(OSError):
                    os.close(fd)
        self._answer(request_id, answer)

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request_id: int | None, answer: dict[str, Any]) -> None:
        descriptors = answer.pop("_descriptors", ())
        answer.setdefault("ok", True)
        self._send({"id": request_id, **answer}, descriptors)

    def _refuse(self, request_id: int | None, code: str) -> None:
        """One error answer, then close."""
        self._answer(request_id, _error(code))
        self._closing = True
        if not self._out:
            self.close()

    def _late(self) -> None:
        if self._in or not self._greeted:
            self._refuse(None, "deadline")

    def _send(self, message: dict[str, Any], descriptors: Sequence[int]) -> None:
        if self._sock.fileno() < 0:
            for fd in descriptors:
                os.close(fd)
            return
        if descriptors:
            message["fds"] = len(descriptors)
            self._out_fds.append((len(self._out), list(descriptors)))
        self._out += encode(message)
        if len(self._out) > self._server.limits.max_bytes_in_flight * 2:
            return self.close()  # a peer that does not read is cut off
        self._writable()
        return None

    def _writable(self) -> None:
        fd = self._sock.fileno()
        try:
            while self._out:
                if self._out_fds and self._out_fds[0][0] == 0:
                    group = self._out_fds.pop(0)[1]
                    sent = self._sock.sendmsg(
                        [self._out], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", group))]
                    )
                    for used in group:
                        os.close(used)
                else:
                    end = self._out_fds[0][0] if self._out_fds else len(self._out)
                    sent = self._sock.send(self._out[:end])
                del self._out[:sent]
                self._out_fds = [(offset - sent, group) for offset, group in self._out_fds]
        except (BlockingIOError, InterruptedError):
            self._loop.add_writer(fd, self._writable)
            return
        except OSError:
            return self.close()
        self._loop.remove_writer(fd)
        if self._closing:
            self.close()
        return None


class Server:
    """Listens on one Unix socket and answers verbs.

    ``admit`` decides by the peer's uid before anything is read. ``on_fault`` hears of a handler's unexpected
    exception (never of its text). The socket's folder must exist; owner and mode are set by the caller's umask
    and ``mode``/``gid``.
    """

    def __init__(
        self,
        verbs: dict[str, Handler],
        *,
        admit: Callable[[Peer], bool],
        limits: Limits | None = None,
        on_fault: Callable[[BaseException], None] = lambda exc: None,
    ) -> None:
        self.verbs = verbs
        self.limits = limits or Limits()
        self.on_fault = on_fault
        self.bytes_in_flight = 0
        self.connections: set[Connection] = set()
        self._admit = admit
        self._listener: socket.socket | None = None
        self._per_uid: Counter[int] = Counter()

    def listen(self, path: Path, *, mode: int = 0o660, gid: int | None = None) -> None:
        """Bind ``path`` (a stale socket is replaced) and start to accept. Call inside the running loop."""
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        before = os.umask(0o777)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if gid is not None:
            os.chown(path, -1, gid)
        os.chmod(path, mode)
        listener.listen(64)
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

    def forget(self, connection: Connection) -> None:
        """Called by a connection that closed."""
        if connection in self.connections:
            self.connections.discard(connection)
            self._per_uid[connection.peer.uid] -= 1

    def over_budget(self, size: int) -> bool:
        """True when ``size`` more bytes would be too much at once."""
        return self.bytes_in_flight + size > self.limits.max_bytes_in_flight

    def _accept(self) -> None:
        if self._listener is None:
            return
        try:
            sock, _ = self._listener.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                self.on_fault(exc)
            return
        sock.setblocking(False)
        peer = peer_of(sock)
        if not self._admit(peer) or self._per_uid[peer.uid] >= self.limits.max_connections_per_uid:
            code = "busy" if self._admit(peer) else "not_permitted"
            with contextlib.suppress(OSError):
                sock.send(encode({"id": None, **_error(code)}))
            sock.close()
            return
        self._per_uid[peer.uid] += 1
        self.connections.add(Connection(self, sock, peer))


class Client:
    """A blocking client for command lines and tests. Raises OSError when the socket is away, WireError otherwise."""

    def __init__(self, path: Path, *, timeout_s: float = 10.0, hello: dict[str, Any] | None = None) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout_s)
        try:
            self._sock.connect(str(path))
        except OSError:
            self._sock.close()
            raise
        self._next = 0
        self._fds: list[int] = []
        self._in = bytearray()
        self.greeting = self.call("hello", **(hello or {}))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def call(self, verb: str, **body: Any) -> dict[str, Any]:
        """One request, one answer. Raises WireError with the answer's code when it is an error."""
        self._next += 1
        self._sock.sendall(encode({"v": 1, "id": self._next, "verb": verb, **body}))
        while True:
            message = self.receive()
            if message.get("id") == self._next or (message.get("id") is None and message.get("ok") is False):
                return check_answer(message)

    def receive(self) -> dict[str, Any]:
        """The next frame, whatever it is (an event has no id)."""
        while True:
            if len(self._in) >= 4:
                length = int.from_bytes(self._in[:4], "big")
                if len(self._in) >= 4 + length:
                    frame = bytes(self._in[4 : 4 + length])
                    del self._in[: 4 + length]
                    message = parse_strict(frame)
                    if type(message) is not dict:
                        raise WireError("bad_frame", MESSAGES["bad_frame"])
                    count = message.pop("fds", 0)
                    message["_descriptors"], self._fds = self._fds[:count], self._fds[count:]
                    if not message["_descriptors"]:
                        del message["_descriptors"]
                    return message
            data, fds, _, _ = socket.recv_fds(self._sock, 262_144, MAX_DESCRIPTORS)
            self._fds.extend(fds)
            if not data:
                raise ConnectionResetError("the other end closed the connection")
            self._in += data


class AsyncClient:
    """A client for daemons: many requests at once over one connection, answers in any order.

    ``connect`` raises OSError when the socket is away. After the connection broke, every waiting and later call
    raises ConnectionResetError; the owner makes a new client.
    """

    def __init__(self, sock: socket.socket, on_event: Callable[[dict[str, Any]], None] | None = None) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._in = bytearray()
        self._fds: list[int] = []
        self._lock = asyncio.Lock()
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        hello: dict[str, Any] | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
    ) -> AsyncClient:
        """Connect and say hello."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            await asyncio.get_running_loop().sock_connect(sock, str(path))
        except OSError:
            sock.close()
            raise
        client = cls(sock, on_event)
        await client.call("hello", **(hello or {}))
        return client

    @property
    def closed(self) -> bool:
        """True once the connection is gone."""
        return self._sock.fileno() < 0

    async def call(self, verb: str, **body: Any) -> dict[str, Any]:
        """One request, one answer. Raises WireError with the answer's code when it is an error."""
        if self.closed:
            raise ConnectionResetError("the connection is closed")
        self._next += 1
        request_id = self._next
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[request_id] = future
        try:
            async with self._lock:
                await self._loop.sock_sendall(
                    self._sock, encode({"v": 1, "id": request_id, "verb": verb, **body})
                )
            return check_answer(await future)
        finally:
            self._waiting.pop(request_id, None)

    def close(self) -> None:
        """Close; every waiting call gets ConnectionResetError."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError("the connection is closed"))

    def _readable(self) -> None:
        try:
            data, fds, _, _ = socket.recv_fds(self._sock, 262_144, MAX_DESCRIPTORS)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            return self.close()
        self._fds.extend(fds)
        if not data:
            return self.close()
        self._in += data
        while len(self._in) >= 4:
            length = int.from_bytes(self._in[:4], "big")
            if len(self._in) < 4 + length:
                return None
            frame = bytes(self._in[4 : 4 + length])
            del self._in[: 4 + length]
            try:
                message = parse_strict(frame)
            except CanonicalError:
                return self.close()
            if type(message) is not dict:
                return self.close()
            self._take(message)
        return None

    def _take(self, message: dict[str, Any]) -> None:
        count = message.pop("fds", 0)
        descriptors, self._fds = self._fds[:count], self._fds[count:]
        request_id = message.get("id")
        future = self._waiting.get(request_id) if type(request_id) is int else None
        if future is None or future.done():
            for fd in descriptors:
                os.close(fd)
            if request_id is None and self._on_event is not None and "event" in message:
                self._on_event(message)
            elif request_id is None and message.get("ok") is False:
                self.close()
            return
        if descriptors:
            message["_descriptors"] = descriptors
        future.set_result(message)


def check_answer(message: dict[str, Any]) -> dict[str, Any]:
    """The answer's own keys, or WireError."""
    if message.get("ok") is True:
        return message
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    raise WireError(code if code in MESSAGES else "internal", MESSAGES.get(str(code), MESSAGES["internal"]))


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, from the kernel."""
    pid, uid, gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid, gid)


def to_memfd(data: bytes) -> int:
    """A sealed memory file with ``data``; the caller closes it."""
    fd = os.memfd_create("sw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with os.fdopen(os.dup(fd), "wb") as file:
        file.write(data)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    return fd


def from_memfd(fd: int, *, max_bytes: int) -> bytes:
    """The contents of a sealed memory file. Raises WireError when it is not sealed or too big."""
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
    except OSError as exc:
        raise WireError("bad_request", MESSAGES["bad_request"]) from exc
    size = os.fstat(fd).st_size
    if sealed != fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK or size > max_bytes:
        raise WireError("bad_request", MESSAGES["bad_request"])
    return os.pread(fd, size, 0)


def _error(code: str) -> dict[str, Any]:
    return {"ok": False, "error": {"code": code, "message": MESSAGES[code], "retry_s": 1 if code == "busy" else None}}
