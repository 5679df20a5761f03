"""Tells agents that a request of theirs was decided: admin.sock says who, the gateway's WebSocket wakes them.

Waking carries no authority: the message holds an id and nothing else, and what the id gives is judged in the core when
the agent calls ``sw_resume``. The gateway's token lets its bearer ask for any scope, so it is read before the root
rights are given up, from a file that nobody else may read, and kept in this process alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from safety_wrapper import identity
from safety_wrapper.config import Config
from safety_wrapper.errors import AdapterError, ConfigError, SafetyError
from safety_wrapper.frames import AsyncClient

RPC_S: Final = 30.0
PAUSES_S: Final = (0.2, 1.0, 5.0, 15.0)
PROVENANCE: Final = {"kind": "internal_system", "sourceTool": "safety-wrapper"}
#: In a session key: the part before the peer's id, where the session belongs to a channel.
_CHANNEL_KINDS: Final = frozenset({"direct", "dm", "group", "channel", "thread"})


class GatewayClient:
    """One WebSocket connection to the gateway, as an operator. An async context manager.

    ``call`` raises AdapterError for an error answer or a broken connection, TimeoutError when there is none in time.
    """

    def __init__(self, url: str, token: str, scopes: tuple[str, ...] = ("operator.write",)) -> None:
        self._url, self._token, self._scopes = url, token, scopes
        self._next = 0
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._challenged: asyncio.Future[None]
        self._socket: ClientConnection
        self._reader: asyncio.Task[None]
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue(maxsize=1000)

    async def __aenter__(self) -> Self:
        self._challenged = asyncio.get_running_loop().create_future()
        try:
            # No proxy of the environment: the gateway is on this machine.
            self._socket = await connect(self._url, proxy=None, max_size=32 * 1024 * 1024)
        except (OSError, WebSocketException, TimeoutError) as exc:
            raise AdapterError("the gateway does not answer") from exc
        self._reader = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout(RPC_S):
                await self._challenged
            await self.call(
                "connect",
                minProtocol=4,
                maxProtocol=4,
                client={"id": "gateway-client", "version": "0.1.0", "platform": "linux", "mode": "backend"},
                role="operator",
                scopes=list(self._scopes),
                caps=[],
                auth={"token": self._token},
            )
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def call(self, method: str, **params: Any) -> Any:
        """One request; the answer's payload. Its text is not passed on: it may hold what the agent wrote."""
        if self._reader.done():
            raise AdapterError("the gateway closed the connection")
        self._next += 1
        number = str(self._next)
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        try:
            await self._socket.send(json.dumps({"type": "req", "id": number, "method": method, "params": params}))
            async with asyncio.timeout(RPC_S):
                frame = await answer
        except WebSocketException as exc:
            raise AdapterError("the gateway closed the connection") from exc
        finally:
            self._waiting.pop(number, None)
        if frame.get("ok") is not True:
            raise GatewayRefusedError(method, str((frame.get("error") or {}).get("message", ""))[:300])
        return frame.get("payload")

    async def _read(self) -> None:
        try:
            async for text in self._socket:
                self._take(json.loads(text))
        except (WebSocketException, ValueError, AttributeError):
            pass
        finally:
            gone = AdapterError("the gateway closed the connection")
            if not self._challenged.done():
                self._challenged.set_exception(gone)
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(gone)

    def _take(self, frame: dict[str, Any]) -> None:
        if frame.get("type") == "res":
            waiting = self._waiting.get(str(frame.get("id")))
            if waiting is not None and not waiting.done():
                waiting.set_result(frame)
        elif frame.get("event") == "connect.challenge":
            if not self._challenged.done():
                self._challenged.set_result(None)
        elif not self.events.full():
            self.events.put_nowait(frame)

    async def _close(self) -> None:
        await self._socket.close()
        self._reader.cancel()
        await asyncio.gather(self._reader, return_exceptions=True)
        if self._challenged.done() and not self._challenged.cancelled():
            self._challenged.exception()


class GatewayRefusedError(AdapterError):
    """The gateway answered with an error. ``said`` is its own text: for this process, never for a log."""

    def __init__(self, method: str, said: str) -> None:
        super().__init__(f"the gateway refused {method}")
        self.said = said


def has_channel(session: str) -> bool:
    """True when a session key names a channel, so that the answer can be delivered there."""
    parts = session.split(":")
    return len(parts) >= 5 and not _CHANNEL_KINDS.isdisjoint(parts[3:-1])


async def wake(gateway: GatewayClient, request_id: str, session: str, text: str) -> None:
    """Start one turn in ``session``. The same id wakes once: the gateway answers a repeat with the first result."""
    turn = {
        "sessionKey": session,
        "message": text,
        "idempotencyKey": request_id,
        "inputProvenance": dict(PROVENANCE),
    }
    if has_channel(session):
        with contextlib.suppress(GatewayRefusedError):  # no channel after all: the answer goes to the session's history
            await gateway.call("agent", **turn, deliver=True)
            return
    await gateway.call("agent", **turn)


def read_token(path: Path) -> str:
    """The gateway's token. Raises ConfigError when the file is missing or others may read it."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            token = file.read(4096).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigError("gateway.token_file can't be read", do="run `safety-wrapper openclaw install`") from exc
    if mode & 0o077:
        raise ConfigError("gateway.token_file can be read by others", do="chmod 400, then change the token")
    if len(token) < 16:
        raise ConfigError("gateway.token_file holds no token", do="run `safety-wrapper openclaw install`")
    return token


def main(config: Config) -> None:
    """Read the token, give up root, wake until the process is ended. Raises ConfigError at the start."""
    if config.gateway.token_file is None:
        raise ConfigError("gateway.token_file is not set", do="set it beside gateway.url")
    token = read_token(config.gateway.token_file)
    identity.become(identity.resolve(config.users).core)
    asyncio.run(run(config, token))


async def run(config: Config, token: str | None = None) -> None:
    """Wake for ever; every fault means: wait a little, connect anew. The core repeats what was not done."""
    if config.gateway.url is None:
        raise ConfigError("gateway.url is not set", do="set it to the gateway's address, ws://127.0.0.1:18789")
    if token is None:
        if config.gateway.token_file is None:
            raise ConfigError("gateway.token_file is not set", do="set it beside gateway.url")
        token = read_token(config.gateway.token_file)
    faults = 0
    while True:
        try:
            await _wake_while_connected(config, config.gateway.url, token)
        except (OSError, SafetyError, TimeoutError):
            await asyncio.sleep(PAUSES_S[min(faults, len(PAUSES_S) - 1)])
            faults += 1
        else:
            faults = 0


async def _wake_while_connected(config: Config, url: str, token: str) -> None:
    """Until the core's connection breaks. The gateway is connected to only when there is somebody to wake."""
    events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    core = await AsyncClient.connect(config.paths.admin_socket, on_event=events.put_nowait)
    try:
        await core.call("wake.watch")
        done: set[str] = set()
        while True:
            try:
                async with asyncio.timeout(5.0):
                    event = await events.get()
            except TimeoutError:
                await core.call("health")  # finds a connection that broke in silence
                continue
            if event.get("event") != "wake" or event["id"] in done:
                continue
            async with GatewayClient(url, token) as gateway:
                await wake(gateway, event["id"], event["session"], event["text"])
            await core.call("wake.done", id=event["id"])
            done.add(event["id"])
    finally:
        core.close()
