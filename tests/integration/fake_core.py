"""A core that does what a test says, on a real socket with real frames: for faults that the real core does not have."""

from __future__ import annotations

import asyncio
import hashlib
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from safety_wrapper.canonical import parse_strict
from safety_wrapper.frames import encode

#: What a handler gives: the answer's keys, an error code, raw bytes instead of a frame, or None for silence.
type Given = dict[str, Any] | str | bytes | None

DECISION: Final = {"id": "dec_01", "outcome": "allow", "class": "GREEN", "reason": "Allowed."}


def held(request: str = "apr_01") -> dict[str, Any]:
    """The answer of a call that waits for the owner."""
    reason = f"Held: ask the owner to approve {request}."
    decision = {**DECISION, "outcome": "require_approval", "class": "RED", "request": request, "reason": reason}
    return {"decision": {**decision, "expires_in_s": 86400}}


def refused(reason: str = "Refused: not on the list.") -> dict[str, Any]:
    """The answer of a call that is refused."""
    return {"decision": {**DECISION, "outcome": "block", "class": "CRITICAL_RED", "reason": reason}}


def ran(text: str, *, is_error: bool = False) -> dict[str, Any]:
    """The answer of an own tool that ran."""
    clean = {"sha256": hashlib.sha256(text.encode()).hexdigest(), "registry": 1}
    content = [{"type": "text", "text": text}]
    return {
        "decision": DECISION,
        "result": {"content": content, "is_error": is_error, "clean": clean, "truncated_bytes": 0},
    }


class FakeCore:
    """Listens in a thread. ``answers`` maps a verb to ``f(body) -> Given``; ``seen`` holds every request."""

    def __init__(self, path: Path, *, profile: str = "recommended", mode: int = 0o666) -> None:
        self.path = path
        self.mode = mode
        self.seen: list[tuple[str, dict[str, Any]]] = []
        self.connections = 0
        self.answers: dict[str, Callable[[dict[str, Any]], Given]] = {
            "hello": lambda body: {"core_version": "0", "profile": profile, "ready": True, "complaint": None},
            "execute": lambda body: ran(f"ran {body['tool']} {body['params']}"),
            "decide": lambda body: {"decision": DECISION, "params": body["params"]},
            "result": lambda body: {"content": body["content"]},
            "persist": lambda body: {"message": body["message"]},
            "send": lambda body: {"content": body["content"]},
            "observe": lambda body: {},
            "cancel": lambda body: {},
        }
        self._loop = asyncio.new_event_loop()
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> FakeCore:
        """Begin to listen, the first time or again after ``stop``."""
        if not self._thread.is_alive():
            self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        return self

    def stop(self) -> None:
        """Close the socket and every connection, as a killed core would."""
        asyncio.run_coroutine_threadsafe(self._unlisten(), self._loop).result(5)

    def close(self) -> None:
        """Stop for good."""
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def push(self, data: bytes) -> None:
        """Send raw bytes on every connection."""
        self._loop.call_soon_threadsafe(lambda: [writer.write(data) for writer in self._writers])

    def of(self, verb: str) -> list[dict[str, Any]]:
        """The requests with this verb so far."""
        return [body for name, body in self.seen if name == verb]

    async def _listen(self) -> None:
        self.path.unlink(missing_ok=True)
        self._server = await asyncio.start_unix_server(self._serve, self.path)
        self.path.chmod(self.mode)

    async def _unlisten(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in self._writers:
            writer.transport.abort()
        self.path.unlink(missing_ok=True)
        await asyncio.sleep(0.05)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        try:
            while True:
                (length,) = struct.unpack(">I", await reader.readexactly(4))
                message = parse_strict(await reader.readexactly(length))
                request_id, verb = message.pop("id"), message.pop("verb")
                assert message.pop("v") == 1
                self.seen.append((verb, message))
                given = self.answers[verb](message)
                if isinstance(given, dict):
                    writer.write(encode({"id": request_id, "ok": True, **given}))
                elif isinstance(given, str):
                    error = {"code": given, "message": given, "retry_s": None}
                    writer.write(encode({"id": request_id, "ok": False, "error": error}))
                elif isinstance(given, bytes):
                    writer.write(given)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()
