"""The connecting side: a blocking client for command lines, and one for daemons with many requests at once.

The other end is another process with other rights, so its frames are bounded and checked like a peer's.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from safety_wrapper.errors import WireError
from safety_wrapper.frames.wire import (
    MAX_FRAME_BYTES,
    Incoming,
    Outgoing,
    check_answer,
    close_all,
    encode,
    own_keys,
    request,
    wire_error,
)

#: Above this many bytes that the other end has not read, a call is refused as ``busy``.
_MAX_UNSENT_BYTES: Final = 16 * 1024 * 1024
_MAX_WAITING_EVENTS: Final = 1000


def _ignore(exc: BaseException) -> None:
    """Hear of a fault and do nothing."""


class Client:
    """A blocking client for command lines and tests.

    Raises OSError when the socket is away or silent (TimeoutError after ``timeout_s``), WireError for an error
    answer or a frame that is none. Descriptors of an answer are the caller's, under ``_descriptors``.
    """

    def __init__(self, path: Path, *, timeout_s: float = 10.0, hello: dict[str, Any] | None = None) -> None:
        self._timeout_s = timeout_s
        self._next = 0
        self._in = Incoming()
        self._events: deque[dict[str, Any]] = deque(maxlen=_MAX_WAITING_EVENTS)
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self._wait_at_most(timeout_s)
            self._sock.connect(str(path))
            self.greeting = self.call("hello", **(hello or {}))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, and every descriptor that nobody took."""
        self._sock.close()
        self._in.close()

    def call(self, verb: str, *, _descriptors: list[int] | None = None, **body: Any) -> dict[str, Any]:
        """One request, one answer, within ``timeout_s`` in all.

        ``_descriptors`` go with the request: they are taken out of the list and closed once sent.
        """
        descriptors = _taken(_descriptors)
        self._next += 1
        deadline = time.monotonic() + self._timeout_s
        self._wait_at_most(self._timeout_s)
        try:
            frame = encode(request(self._next, verb, body, len(descriptors)))
            sent = socket.send_fds(self._sock, [frame], descriptors) if descriptors else 0
            self._sock.sendall(frame[sent:])
        except (BrokenPipeError, ConnectionResetError):
            pass  # closed by the other end: its reason may lie in what came
        finally:
            close_all(descriptors)
        while True:
            message = self._message(deadline)
            if message.get("id") == self._next or (message.get("id") is None and message.get("ok") is False):
                return check_answer(message)
            if "event" in message:
                self._events.append(own_keys(message))
            close_all(message.get("_descriptors", ()))  # an answer to a call that was given up

    def receive(self, *, timeout_s: float | None = None) -> dict[str, Any]:
        """The next event. Waits ``timeout_s`` seconds (the client's own when None, for ever when infinite)."""
        if self._events:
            return self._events.popleft()
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        while True:
            message = self._message(deadline)
            if "event" in message:
                return own_keys(message)
            close_all(message.get("_descriptors", ()))
            if message.get("id") is None:
                check_answer(message)

    def _message(self, deadline: float) -> dict[str, Any]:
        while (item := self._in.message()) is None:
            self._in.settle()
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("no answer in time")
            self._wait_at_most(left)
            if not self._in.receive(self._sock):
                raise ConnectionResetError("the other end closed the connection")
        return _with_descriptors(item[0], item[1])

    def _wait_at_most(self, seconds: float) -> None:
        self._sock.settimeout(None if math.isinf(seconds) else seconds)


class AsyncClient:
    """A client for daemons: many requests at once over one connection, answers in any order.

    After the connection broke, every waiting and later call raises ConnectionResetError, or the WireError that the
    other end closed it with; the owner makes a new client. A call that is cancelled leaves the stream whole: its
    frame is sent in full or not at all, its late answer is dropped. Time limits are the caller's (asyncio.timeout).
    """

    def __init__(
        self,
        sock: socket.socket,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        *,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        on_fault: Callable[[BaseException], None] = _ignore,
    ) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_event = on_event
        self._on_fault = on_fault
        self._next = 0
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._in = Incoming(max_frame_bytes=max_frame_bytes)
        self._out = Outgoing()
        self._writing = False
        self._loop.add_reader(sock.fileno(), self._readable)

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        hello: dict[str, Any] | None = None,
        on_event: Callable[[dict[str, Any]], None] | None = None,
        on_fault: Callable[[BaseException], None] = _ignore,
        timeout_s: float = 5.0,
    ) -> AsyncClient:
        """Connect and say hello. Raises OSError when the socket is away or silent, WireError when refused."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        client: AsyncClient | None = None
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.get_running_loop().sock_connect(sock, str(path))
                client = cls(sock, on_event, on_fault=on_fault)
                await client.call("hello", **(hello or {}))
        except BaseException:
            if client is not None:
                client.close()
            sock.close()
            raise
        return client

    @property
    def closed(self) -> bool:
        """True once the connection is gone."""
        return self._sock.fileno() < 0

    async def call(self, verb: str, *, _descriptors: list[int] | None = None, **body: Any) -> dict[str, Any]:
        """One request, one answer. Raises WireError with the answer's code when it is an error.

        ``_descriptors`` go with the request: they are taken out of the list and closed once sent, or when it can't
        be. Those of the answer are the caller's, under ``_descriptors``.
        """
        descriptors = _taken(_descriptors)
        try:
            self._check_open()
            self._next += 1
            request_id = self._next
            frame = encode(request(request_id, verb, body, len(descriptors)))
        except BaseException:
            close_all(descriptors)
            raise
        future: asyncio.Future[dict[str, Any]] = self._loop.create_future()
        self._waiting[request_id] = future
        self._out.put(frame, descriptors)
        try:
            if not self._writing:
                self._writable()
            message = await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                close_all(future.result().get("_descriptors", ()))
            raise
        finally:
            self._waiting.pop(request_id, None)
        return check_answer(message)

    def close(self) -> None:
        """Close; every waiting call gets ConnectionResetError."""
        self._break(ConnectionResetError("the connection is closed"))

    def _check_open(self) -> None:
        if self.closed:
            raise ConnectionResetError("the connection is closed")
        if self._out.waiting_bytes > _MAX_UNSENT_BYTES:
            raise wire_error("busy")

    def _break(self, exc: Exception) -> None:
        fd = self._sock.fileno()
        if fd >= 0:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)
            self._sock.close()
        self._in.close()
        self._out.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(exc)

    def _readable(self) -> None:
        try:
            if not self._in.receive(self._sock):
                return self.close()
            while not self.closed and (item := self._in.message()) is not None:
                self._take(item[0], item[1])
            if not self.closed:
                self._in.settle()
        except (BlockingIOError, InterruptedError):
            return None
        except OSError:
            return self.close()
        except WireError as exc:
            return self._break(exc)
        return None

    def _take(self, message: dict[str, Any], descriptors: list[int]) -> None:
        request_id = message.get("id")
        future = self._waiting.get(request_id) if type(request_id) is int else None
        if future is not None and not future.done():
            future.set_result(_with_descriptors(message, descriptors))
            return
        close_all(descriptors)
        if "event" in message and self._on_event is not None:
            try:
                self._on_event(own_keys(message))
            except Exception as exc:  # noqa: BLE001 - a listener's bug must not end the connection
                self._on_fault(exc)
        elif request_id is None and message.get("ok") is False:
            try:
                check_answer(message)
            except WireError as exc:
                self._break(exc)

    def _writable(self) -> None:
        fd = self._sock.fileno()
        try:
            sent = self._out.flush(self._sock)
        except OSError:
            # what the other end said before it closed may still be there to read
            self._out.close()
            sent = True
        if sent is not self._writing:
            return
        self._writing = not sent
        if sent:
            self._loop.remove_writer(fd)
        else:
            self._loop.add_writer(fd, self._writable)


def _taken(descriptors: list[int] | None) -> list[int]:
    """The list's contents; the list is left empty, so that its owner can't close them a second time."""
    taken = list(descriptors or ())
    if descriptors:
        descriptors.clear()
    return taken


def _with_descriptors(message: dict[str, Any], descriptors: list[int]) -> dict[str, Any]:
    """Hand descriptors over with an answer that is no error; nobody would take those of another."""
    message.pop("_descriptors", None)
    if message.get("ok") is not True:
        close_all(descriptors)
    elif descriptors:
        message["_descriptors"] = descriptors
    return message
