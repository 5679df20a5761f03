"""One accepted connection: what a peer sent, what runs for it, what it has not read yet, and its deadlines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from safety_wrapper.errors import SafetyError, WireError
from safety_wrapper.frames.wire import (
    MAX_DESCRIPTORS,
    MAX_FRAME_BYTES,
    MEMFD_ABOVE,
    Incoming,
    Outgoing,
    Peer,
    answer,
    close_all,
    encode,
    error_answer,
    event,
    own_keys,
)

if TYPE_CHECKING:
    from safety_wrapper.frames.server import Server

#: Above this many bytes that a peer has not read, nothing more is read from it.
_PAUSE_ABOVE: Final = 256 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """What one socket takes. ``first_verb``: the verb that must come first, within ``hello_s``.

    ``frame_s``: from a frame's first byte to its last. ``unread_s``: how long answers may wait for a peer that does
    not read them. ``max_descriptors``: in one frame; 0 where a socket takes none.
    """

    max_frame_bytes: int = MAX_FRAME_BYTES
    max_in_flight: int = 32
    max_connections_per_uid: int = 16
    max_bytes_in_flight: int = 16 * 1024 * 1024
    max_unread_bytes: int = 8 * 1024 * 1024
    max_descriptors: int = MAX_DESCRIPTORS
    hello_s: float = 2.0
    frame_s: float = 5.0
    unread_s: float = 30.0
    first_verb: str | None = "hello"


@dataclass(slots=True)
class Request:
    """One request of a peer. ``body`` holds the verb's own keys.

    ``descriptors`` are closed when the handler has ended; one that shall live longer is taken out of the list.
    """

    verb: str
    body: dict[str, Any]
    connection: Connection
    descriptors: list[int] = field(default_factory=list)


#: A handler gives the answer's own keys (``_descriptors``: those that go with it, closed once sent); it raises
#: WireError or SafetyError for an error answer.
type Handler = Callable[[Request], Awaitable[dict[str, Any]]]


class Connection:
    """One accepted connection: buffers, requests in flight, deadlines. Made by :class:`Server` only."""

    def __init__(self, server: Server, sock: socket.socket, peer: Peer) -> None:
        limits = server.limits
        self.peer = peer
        self.state: dict[str, Any] = {}
        self._server = server
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._in = Incoming(max_frame_bytes=limits.max_frame_bytes, max_descriptors=limits.max_descriptors)
        self._out = Outgoing()
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._greeted = limits.first_verb is None
        self._greeting = False  # the first verb is being answered: what comes after it waits
        self._full = False  # the peer does not read its answers: what it asks next waits
        self._reading = True
        self._writing = False
        self._closing = False
        self._read_timer = None if self._greeted else self._loop.call_later(limits.hello_s, self._late)
        self._write_timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock.fileno(), self._readable)

    @property
    def closed(self) -> bool:
        """True once no more answers can be sent."""
        return self._closing or self._sock.fileno() < 0

    def push(self, message: dict[str, Any]) -> None:
        """Send an event: ``message`` names it by ``event``. Dropped when the connection is closed."""
        if not self.closed:
            self._send(encode(event(message), max_bytes=self._server.limits.max_frame_bytes), ())

    def close(self) -> None:
        """Close now; running requests are cancelled."""
        fd = self._sock.fileno()
        if fd < 0:
            return
        self._stop_timers()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()
        for task in tuple(self._tasks.values()):
            task.cancel()
        self._in.close()
        self._out.close()
        self._server.forget(self)

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────

    def _readable(self) -> None:
        try:
            if not self._in.receive(self._sock):
                return self.close()
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return self.close()
        except WireError as exc:
            return self._refuse(None, exc.code)
        return self._take_frames()

    def _take_frames(self) -> None:
        """Start what the whole frames ask for, until one must wait for a slow peer or for the greeting."""
        fresh = False
        try:
            while not self.closed and not self._full and not self._greeting:
                item = self._in.message()
                if item is None:
                    self._in.settle()
                    break
                fresh = True
                self._message(*item)
        except WireError as exc:
            return self._refuse(None, exc.code)
        if self.closed:
            return None
        reading = not self._full and not self._greeting
        if reading is not self._reading:
            self._reading = reading
            if reading:
                self._loop.add_reader(self._sock.fileno(), self._readable)
            else:
                self._loop.remove_reader(self._sock.fileno())
        if self._greeted:
            self._time_frame(fresh=fresh)
        return None

    def _time_frame(self, *, fresh: bool) -> None:
        """A frame that is not complete has a deadline from its first byte on; more bytes of it don't renew it."""
        if self._read_timer is not None and (fresh or not self._in.partial or not self._reading):
            self._read_timer.cancel()
            self._read_timer = None
        if self._in.partial and self._read_timer is None and self._reading:
            self._read_timer = self._loop.call_later(self._server.limits.frame_s, self._late)

    def _late(self) -> None:
        self._read_timer = None
        self._refuse(None, "deadline")

    def _message(self, message: dict[str, Any], descriptors: list[int], size: int) -> None:
        """Start one request. ``descriptors`` are ours until its task has them."""
        server = self._server
        request_id, verb, version = message.pop("id", None), message.pop("verb", None), message.pop("v", None)
        handler = server.verbs.get(verb) if type(verb) is str else None
        fault = None
        if type(request_id) is not int or type(verb) is not str or type(version) is not int or version != 1:
            request_id, fault = None, "bad_frame"
        elif not self._greeted and verb != server.limits.first_verb:
            fault = "bad_request"
        elif handler is None:
            fault = "unknown_verb"
        elif request_id in self._tasks:
            fault = "bad_frame"
        if fault is not None or handler is None or request_id is None:
            close_all(descriptors)
            return self._refuse(request_id, fault or "bad_frame")
        size += len(descriptors) * MEMFD_ABOVE  # so that the bound on bytes bounds descriptors too
        if len(self._tasks) >= server.limits.max_in_flight or not server.take_budget(self.peer.uid, size):
            close_all(descriptors)
            return self._answer(request_id, error_answer("busy"))
        self._greeting = not self._greeted
        request = Request(verb, own_keys(message), self, descriptors)
        # started at once: most handlers end without waiting for anything, and need no second turn of the loop
        task = asyncio.Task(self._run(request_id, handler, request, size), loop=self._loop, eager_start=True)
        if task.done():
            return None
        self._tasks[request_id] = task
        if self.closed:
            task.cancel()
        return None

    async def _run(self, request_id: int, handler: Handler, request: Request, size: int) -> None:
        refused = None
        try:
            body = await handler(request)
        except asyncio.CancelledError:
            # Either this connection closes, or what the handler waited for was cancelled: then the peer hears of it.
            self._answer(request_id, error_answer("internal"))
            raise
        except SafetyError as exc:
            refused = exc.code
        except Exception as exc:  # noqa: BLE001 - a handler's bug must not leave the peer waiting
            self._server.fault(exc)
            refused = "internal"
        finally:
            self._tasks.pop(request_id, None)
            self._server.give_back(self.peer.uid, size)
            close_all(request.descriptors)
        if not self._greeted:
            self._welcome(request_id, refused)
        self._answer(request_id, body if refused is None else error_answer(refused))

    def _welcome(self, request_id: int, refused: str | None) -> None:
        """The first verb is answered: refused, it ends the connection; else what came after it goes on."""
        if refused is not None:
            return self._refuse(request_id, refused)
        self._greeted, self._greeting = True, False
        if self._read_timer is not None:
            self._read_timer.cancel()
            self._read_timer = None
        if not self._reading:
            self._loop.call_soon(self._take_frames)
        return None

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────

    def _answer(self, request_id: int | None, body: dict[str, Any]) -> None:
        """Send an answer. A body that can't be sent becomes ``internal``: the peer never waits for nothing."""
        descriptors: Sequence[int] = ()
        limit = self._server.limits.max_frame_bytes
        try:
            if "_descriptors" in body:
                body = dict(body)
                descriptors = body.pop("_descriptors")
            frame = encode(answer(request_id, body, len(descriptors)), max_bytes=limit)
        except Exception as exc:  # noqa: BLE001 - nor must an answer that can't be sent
            self._server.fault(exc)
            close_all(descriptors)
            descriptors, frame = (), encode(answer(request_id, error_answer("internal")), max_bytes=limit)
        self._send(frame, descriptors)

    def _refuse(self, request_id: int | None, code: str) -> None:
        """One error answer, then close; what is still running is cancelled."""
        if self.closed:
            return
        self._answer(request_id, error_answer(code))
        fd = self._sock.fileno()
        if fd < 0:
            return
        self._closing = True
        self._loop.remove_reader(fd)
        for task in tuple(self._tasks.values()):
            task.cancel()
        if not self._out.waiting_bytes:
            self.close()

    def _send(self, frame: bytes, descriptors: Sequence[int]) -> None:
        if self.closed or self._out.waiting_bytes + len(frame) > self._server.limits.max_unread_bytes:
            close_all(descriptors)
            if not self._closing:
                self.close()  # a peer that does not read is cut off
            return
        self._out.put(frame, descriptors)
        if not self._writing:
            self._writable()
        self._full = self._out.waiting_bytes > _PAUSE_ABOVE

    def _writable(self) -> None:
        fd = self._sock.fileno()
        try:
            sent = self._out.flush(self._sock)
        except OSError:
            return self.close()
        if not sent:
            if not self._writing:
                self._writing = True
                self._loop.add_writer(fd, self._writable)
                self._write_timer = self._loop.call_later(self._server.limits.unread_s, self.close)
            return None
        if self._writing:
            self._writing = False
            self._loop.remove_writer(fd)
            if self._write_timer is not None:
                self._write_timer.cancel()
                self._write_timer = None
        if self._closing:
            return self.close()
        if self._full:
            self._full = False
            self._loop.call_soon(self._take_frames)
        return None

    def _stop_timers(self) -> None:
        for timer in (self._read_timer, self._write_timer):
            if timer is not None:
                timer.cancel()
        self._read_timer = self._write_timer = None
