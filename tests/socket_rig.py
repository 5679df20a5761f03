"""A running frames server for tests, and a peer that sends whatever bytes it likes."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from safety_wrapper.errors import WireError
from safety_wrapper.frames import Limits, Request, Server, to_memfd


class Raw:
    """A peer of raw bytes. ``frames()`` reads until the other end closes."""

    def __init__(self, path: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.setblocking(False)
        self.path = path
        self.buffer = bytearray()

    async def __aenter__(self) -> Raw:
        await asyncio.get_running_loop().sock_connect(self.sock, str(self.path))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.sock.close()

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def hello(self) -> dict[str, Any]:
        await self.send(frame({"v": 1, "id": 0, "verb": "hello"}))
        return await self.frame()

    async def frame(self) -> dict[str, Any]:
        """The next frame; ConnectionResetError at the end."""
        while True:
            if len(self.buffer) >= 4:
                length = int.from_bytes(self.buffer[:4], "big")
                if len(self.buffer) >= 4 + length:
                    data = bytes(self.buffer[4 : 4 + length])
                    del self.buffer[: 4 + length]
                    return json.loads(data)
            try:
                data = await asyncio.get_running_loop().sock_recv(self.sock, 65536)
            except ConnectionResetError:
                data = b""
            if not data:
                raise ConnectionResetError
            self.buffer += data

    async def rest(self) -> list[dict[str, Any]]:
        """Every frame until the other end closes."""
        found = []
        while True:
            try:
                found.append(await self.frame())
            except ConnectionResetError:
                return found


def frame(message: Any) -> bytes:
    data = message if isinstance(message, bytes) else json.dumps(message).encode()
    return len(data).to_bytes(4, "big") + data


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(holds: Callable[[], object]) -> None:
    """Wait for something that no event tells of. Whoever waits bounds it."""
    while not holds():  # noqa: ASYNC110 - it looks at the inside of what is tested
        await asyncio.sleep(0.01)


class Handlers:
    """Verbs of the test server, and what they saw."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.cancelled: list[str] = []
        self.faults: list[BaseException] = []
        self.gate = asyncio.Event()
        self.seen: list[Request] = []

    def verbs(self) -> dict[str, Any]:
        return {name.removeprefix("do_"): getattr(self, name) for name in dir(self) if name.startswith("do_")}

    async def do_hello(self, request: Request) -> dict[str, Any]:
        if request.body.get("refuse"):
            raise WireError("not_permitted", "x")
        if request.body.get("slow"):
            await self.gate.wait()
        return {"core_version": "test"}

    async def do_echo(self, request: Request) -> dict[str, Any]:
        self.seen.append(request)
        return {"body": request.body}

    async def do_named(self, request: Request) -> dict[str, Any]:
        return {"id": f"own_{request.body['id']}"}

    async def do_wait(self, request: Request) -> dict[str, Any]:
        name = str(request.body.get("name"))
        self.started.append(name)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled.append(name)
            raise
        return {"name": name}

    async def do_big(self, request: Request) -> dict[str, Any]:
        return {"text": "x" * request.body["bytes"]}

    async def do_memfd(self, request: Request) -> dict[str, Any]:
        return {"text": {"fd": 0}, "_descriptors": [to_memfd(b"from the server")]}

    async def do_read(self, request: Request) -> dict[str, Any]:
        self.seen.append(request)
        return {"texts": [os.pread(fd, 1000, 0).decode() for fd in request.descriptors]}

    async def do_keep(self, request: Request) -> dict[str, Any]:
        request.connection.state["kept"] = request.descriptors.pop()
        return {}

    async def do_push(self, request: Request) -> dict[str, Any]:
        request.connection.push({"event": "note", "id": "apr_1", "text": "hi"})
        return {}

    async def do_raises(self, request: Request) -> dict[str, Any]:
        raise RuntimeError("hunter2")

    async def do_refuses(self, request: Request) -> dict[str, Any]:
        raise WireError(request.body["code"], "hunter2")

    async def do_cancels(self, request: Request) -> dict[str, Any]:
        raise asyncio.CancelledError

    async def do_odd(self, request: Request) -> Any:
        kind = request.body["kind"]
        if kind == "descriptors":
            return {"x": object(), "_descriptors": [to_memfd(b"x")]}
        odd = {
            "object": {"x": object()},
            "nan": {"x": 2**60},
            "surrogate": {"x": "\ud800"},
            "none": None,
            "list": [1],
            "reserved": {"verb": "x"},
            "long": {"x": "y" * 2_000_000},
        }
        return odd[kind]

    async def do_close(self, request: Request) -> dict[str, Any]:
        request.connection.close()
        await asyncio.sleep(0)
        return {"never": "sent"}


@asynccontextmanager
async def serving(limits: Limits | None = None, **options: Any) -> AsyncIterator[tuple[Path, Handlers, Server]]:
    """A server on a socket of its own folder."""
    handlers = Handlers()
    with tempfile.TemporaryDirectory(prefix="sw-frames-") as folder:
        path = Path(folder) / "s"
        options = {"admit": lambda peer: peer.uid == os.getuid(), "on_fault": handlers.faults.append, **options}
        server = Server(handlers.verbs(), limits=limits, **options)
        server.listen(path)
        try:
            yield path, handlers, server
        finally:
            server.close()
            await asyncio.sleep(0)
