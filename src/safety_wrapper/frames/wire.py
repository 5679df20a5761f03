"""The frame itself: encoding, the two buffers of a connection, answers, descriptors. No event loop in here.

A frame is four bytes of length, big-endian, then one strict JSON object. Descriptors ride on its first byte and are
claimed by its key ``fds``. A verb's own key ``id`` travels as ``ref``, since ``id`` is the frame's.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import socket
import struct
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from safety_wrapper.canonical import parse_strict
from safety_wrapper.errors import CanonicalError, WireError

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
MAX_FRAME_BYTES: Final = 1024 * 1024
MAX_DESCRIPTORS: Final = 4
MEMFD_ABOVE: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024
_ANCILLARY: Final = socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_LENGTH: Final = struct.Struct(">I")
_FRAME_KEYS: Final = frozenset({"v", "verb", "event", "fds", "ref"})


@dataclass(frozen=True, slots=True)
class Peer:
    """The process at the other end, as the kernel names it."""

    pid: int
    uid: int
    gid: int


def peer_of(sock: socket.socket) -> Peer:
    """Who connected, from the kernel."""
    pid, uid, gid = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return Peer(pid, uid, gid)


def wire_error(code: str) -> WireError:
    """The error of ``code`` with its fixed text; a code that is not on the list becomes ``internal``."""
    code = code if code in MESSAGES else "internal"
    return WireError(code, MESSAGES[code])


def error_answer(code: str) -> dict[str, Any]:
    """The keys of an error answer; a code that is not on the list becomes ``internal``."""
    code = code if code in MESSAGES else "internal"
    return {"ok": False, "error": {"code": code, "message": MESSAGES[code], "retry_s": 1 if code == "busy" else None}}


def encode(message: dict[str, Any], *, max_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """One frame. Raises WireError ``internal`` for what is no JSON by type, or longer than ``max_bytes``."""
    try:
        data = orjson.dumps(message, option=orjson.OPT_STRICT_INTEGER)
    except TypeError as exc:
        raise wire_error("internal") from exc
    if len(data) > max_bytes:
        raise wire_error("internal")
    return _LENGTH.pack(len(data)) + data


def request(request_id: int, verb: str, body: dict[str, Any], descriptors: int = 0) -> dict[str, Any]:
    """A request's message. Raises WireError ``bad_request`` for a body whose keys the frame needs."""
    return {"v": 1, "id": request_id, "verb": verb, **_body(body, descriptors)}


def answer(request_id: int | None, body: dict[str, Any], descriptors: int = 0) -> dict[str, Any]:
    """An answer's message. Raises WireError as :func:`request`."""
    return {"ok": True, **_body(body, descriptors), "id": request_id}


def event(body: dict[str, Any]) -> dict[str, Any]:
    """An event's message; ``body`` names it by ``event``. Raises WireError as :func:`request`."""
    rest = dict(body)
    return {"event": rest.pop("event"), **_body(rest, 0)}


def own_keys(message: dict[str, Any]) -> dict[str, Any]:
    """Undo what :func:`request`, :func:`answer` and :func:`event` did to the keys of a body, in place."""
    if "ref" in message:
        message["id"] = message.pop("ref")
    return message


def _body(body: dict[str, Any], descriptors: int) -> dict[str, Any]:
    if not _FRAME_KEYS.isdisjoint(body):
        raise wire_error("bad_request")
    if "id" in body:
        body = {**body, "ref": body["id"]}
        del body["id"]
    if descriptors:
        body = {**body, "fds": descriptors}
    return body


def check_answer(message: dict[str, Any]) -> dict[str, Any]:
    """The answer's own keys (and ``ok``), or WireError with its code."""
    if message.get("ok") is True:
        message.pop("id", None)
        return own_keys(message)
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    raise wire_error(code if type(code) is str else "internal")


def close_all(descriptors: Iterable[int]) -> None:
    """Close descriptors that nobody takes."""
    for fd in descriptors:
        with contextlib.suppress(OSError):
            os.close(fd)


class Incoming:
    """What came in on one socket: bytes and descriptors, and the whole frames among them.

    Bounded: one frame and one read of bytes, and the descriptors of one frame that is not complete.
    """

    __slots__ = ("_bytes", "_descriptors", "_max_bytes", "_max_descriptors")

    def __init__(self, *, max_frame_bytes: int = MAX_FRAME_BYTES, max_descriptors: int = MAX_DESCRIPTORS) -> None:
        self._bytes = bytearray()
        self._descriptors: list[int] = []
        self._max_bytes = max_frame_bytes
        self._max_descriptors = min(max_descriptors, MAX_DESCRIPTORS)

    @property
    def partial(self) -> bool:
        """True when the beginning of a frame waits for its rest."""
        return bool(self._bytes)

    def receive(self, sock: socket.socket) -> bool:
        """One read; False at the end of the stream. Raises OSError, and WireError for too many descriptors."""
        if self._max_descriptors == 0:
            data = sock.recv(_READ_BYTES)  # without room for them the kernel closes what was passed
            self._bytes += data
            return bool(data)
        data, ancillary, flags, _ = sock.recvmsg(_READ_BYTES, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                numbers = array.array("i")
                numbers.frombytes(payload[: len(payload) - len(payload) % numbers.itemsize])
                self._descriptors.extend(numbers)
        if flags & socket.MSG_CTRUNC:
            raise wire_error("bad_frame")
        self._bytes += data
        return bool(data)

    def frame(self) -> bytes | None:
        """The next whole frame's JSON text, or None. Raises WireError for a length that no frame has."""
        have = len(self._bytes)
        if have < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._bytes)
        if not 2 <= length <= self._max_bytes:
            raise wire_error("bad_frame")
        if have < 4 + length:
            return None
        data = bytes(self._bytes[4 : 4 + length])
        del self._bytes[: 4 + length]
        return data

    def message(self) -> tuple[dict[str, Any], list[int], int] | None:
        """The next frame's object, its descriptors and its length. Raises WireError for anything that is none.

        The descriptors are the caller's. The kernel joins a read at the byte that carries them, so the first
        ``fds`` that came so far belong to the first frame that claims them.
        """
        data = self.frame()
        if data is None:
            return None
        try:
            message = parse_strict(data)
        except CanonicalError as exc:
            raise wire_error("bad_frame") from exc
        if type(message) is not dict:
            raise wire_error("bad_frame")
        if "fds" not in message:
            return message, [], len(data)
        count = message.pop("fds")
        if type(count) is not int or not 0 < count <= min(self._max_descriptors, len(self._descriptors)):
            raise wire_error("bad_frame")
        taken, self._descriptors = self._descriptors[:count], self._descriptors[count:]
        return message, taken, len(data)

    def settle(self) -> None:
        """After the whole frames of a read: descriptors that no frame claims, or can claim, are a fault."""
        if self._descriptors and (not self._bytes or len(self._descriptors) > self._max_descriptors):
            raise wire_error("bad_frame")

    def close(self) -> None:
        """Let go of everything."""
        self._bytes.clear()
        close_all(self._descriptors)
        self._descriptors.clear()


class Outgoing:
    """Frames on their way out, each with the descriptors that ride on its first byte. Owns those descriptors."""

    __slots__ = ("_frames", "_sent", "waiting_bytes")

    def __init__(self) -> None:
        self._frames: deque[tuple[bytes, list[int]]] = deque()
        self._sent = 0  # of the first frame
        self.waiting_bytes = 0

    def put(self, frame: bytes, descriptors: Iterable[int] = ()) -> None:
        """Queue a whole frame: nothing can come between its bytes, whatever happens to the one who wanted it."""
        self._frames.append((frame, list(descriptors)))
        self.waiting_bytes += len(frame)

    def flush(self, sock: socket.socket) -> bool:
        """Send what the socket takes; True when all is sent. Raises OSError when the peer is gone."""
        while self._frames:
            frame, descriptors = self._frames[0]
            try:
                if descriptors:
                    numbers = array.array("i", descriptors)
                    sent = sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
                    close_all(descriptors)
                    descriptors.clear()
                else:
                    sent = sock.send(memoryview(frame)[self._sent :] if self._sent else frame)
            except (BlockingIOError, InterruptedError):
                return False
            self.waiting_bytes -= sent
            self._sent += sent
            if self._sent == len(frame):
                self._frames.popleft()
                self._sent = 0
        return True

    def close(self) -> None:
        """Drop what was not sent."""
        for _, descriptors in self._frames:
            close_all(descriptors)
        self._frames.clear()
        self.waiting_bytes = 0


def to_memfd(data: bytes) -> int:
    """A sealed memory file with ``data``; the caller closes it, or passes it on."""
    fd = os.memfd_create("sw", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(fd), "wb") as file:
            file.write(data)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd


def from_memfd(fd: int, *, max_bytes: int) -> bytes:
    """The contents of a sealed memory file. Raises WireError when it is not sealed, or too big."""
    try:
        sealed = fcntl.fcntl(fd, fcntl.F_GET_SEALS) & (fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK)
        size = os.fstat(fd).st_size
        if sealed != fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK or size > max_bytes:
            raise wire_error("bad_request")
        data = os.pread(fd, size, 0)
    except OSError as exc:
        raise wire_error("bad_request") from exc
    if len(data) != size:
        raise wire_error("bad_request")
    return data
