"""The waker between a core's admin socket and a gateway's WebSocket, both real, both scripted."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from safety_wrapper import config as configuration
from safety_wrapper.bridge import waker
from safety_wrapper.config import Config
from safety_wrapper.errors import AdapterError, ConfigError
from safety_wrapper.frames import Request, Server

TOKEN = "gateway-token-" + "x" * 32
REQUEST = "apr_01JD000000000000000000000A"
WEBCHAT = "agent:main:main"
TELEGRAM = "agent:main:telegram:direct:555"


@dataclass
class FakeGateway:
    """A WebSocket server that speaks the gateway's handshake. ``refuse``: which calls get an error."""

    refuse: Callable[[str, dict[str, Any]], str | None] = lambda method, params: None
    seen: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    port: int = 0

    async def handle(self, socket: ServerConnection) -> None:
        await socket.send(json.dumps({"type": "event", "event": "connect.challenge", "payload": {"nonce": "n"}}))
        async for text in socket:
            frame = json.loads(text)
            method, params = frame["method"], frame["params"]
            self.seen.append((method, params))
            error = self.refuse(method, params)
            if method == "connect" and params["auth"] != {"token": TOKEN}:
                error = "unauthorized"
            answer = (
                {"ok": False, "error": {"message": error}} if error else {"ok": True, "payload": {"runId": "run_1"}}
            )
            await socket.send(json.dumps({"type": "res", "id": frame["id"], **answer}))

    @property
    def turns(self) -> list[dict[str, Any]]:
        return [params for method, params in self.seen if method == "agent"]


@dataclass
class FakeAdmin:
    """An admin socket with requests that wait for a wake; pushed again until they are done."""

    waiting: list[tuple[str, str]]
    done: list[str] = field(default_factory=list)

    def verbs(self) -> dict[str, Any]:
        async def watch(request: Request) -> dict[str, Any]:
            for request_id, session in self.waiting:
                text = f"Request {request_id} has an answer. Call sw_resume with this id."
                request.connection.push(
                    {"event": "wake", "id": request_id, "agent": "main", "session": session, "text": text}
                )
            return {}

        async def finished(request: Request) -> dict[str, Any]:
            self.done.append(request.body["id"])
            return {}

        async def nothing(request: Request) -> dict[str, Any]:
            return {}

        return {"hello": nothing, "health": nothing, "wake.watch": watch, "wake.done": finished}


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sw-wake-") as name:
        yield Path(name)


@contextlib.asynccontextmanager
async def world(folder: Path, admin: FakeAdmin, gateway: FakeGateway) -> AsyncIterator[Config]:
    """Both servers, and the configuration that leads to them."""
    (folder / "admin").mkdir()
    core = Server(admin.verbs(), admit=lambda peer: True)
    core.listen(folder / "admin" / "admin.sock")
    async with serve(gateway.handle, "127.0.0.1", 0) as server:
        gateway.port = next(iter(server.sockets)).getsockname()[1]
        yield configured(folder, gateway.port)
    core.close()


def configured(folder: Path, port: int) -> Config:
    token_file = folder / "token"
    if not token_file.exists():
        token_file.write_text(TOKEN + "\n")
        token_file.chmod(0o400)
    paths = {"state": str(folder / "state"), "run": str(folder), "bundle": str(folder / "bundle")}
    gateway = {"url": f"ws://127.0.0.1:{port}", "token_file": str(token_file)}
    return configuration.parse({"paths": paths, "gateway": gateway}, {})


def woken(folder: Path, admin: FakeAdmin, gateway: FakeGateway, until: Callable[[], bool]) -> None:
    """Run the waker until something is true."""

    async def go() -> None:
        async with world(folder, admin, gateway) as config:
            running = asyncio.create_task(waker.run(config))
            async with asyncio.timeout(10):
                while not until():  # noqa: ASYNC110  (several servers, one condition)
                    await asyncio.sleep(0.01)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(go())


def test_a_session_is_woken_with_the_id_and_marked_as_ours(folder: Path) -> None:
    admin, gateway = FakeAdmin([(REQUEST, WEBCHAT)]), FakeGateway()
    woken(folder, admin, gateway, lambda: admin.done == [REQUEST])
    assert gateway.turns == [
        {
            "sessionKey": WEBCHAT,
            "message": f"Request {REQUEST} has an answer. Call sw_resume with this id.",
            "idempotencyKey": REQUEST,
            "inputProvenance": {"kind": "internal_system", "sourceTool": "safety-wrapper"},
        }
    ]
    connect = gateway.seen[0][1]
    assert connect["scopes"] == ["operator.write"]
    assert connect["role"] == "operator"


def test_a_session_of_a_channel_gets_the_answer_delivered(folder: Path) -> None:
    admin, gateway = FakeAdmin([(REQUEST, TELEGRAM)]), FakeGateway()
    woken(folder, admin, gateway, lambda: admin.done == [REQUEST])
    assert [turn["deliver"] for turn in gateway.turns] == [True]


def test_where_nothing_can_be_delivered_it_is_woken_without(folder: Path) -> None:
    refuse = lambda method, params: "Channel is required" if params.get("deliver") else None  # noqa: E731
    admin, gateway = FakeAdmin([(REQUEST, TELEGRAM)]), FakeGateway(refuse)
    woken(folder, admin, gateway, lambda: admin.done == [REQUEST])
    assert [turn.get("deliver") for turn in gateway.turns] == [True, None]


def test_a_wake_that_the_gateway_refuses_is_not_done_and_tried_again(folder: Path) -> None:
    failures = iter(["busy", "busy"])
    refuse = lambda method, params: next(failures, None) if method == "agent" else None  # noqa: E731
    admin, gateway = FakeAdmin([(REQUEST, WEBCHAT)]), FakeGateway(refuse)
    woken(folder, admin, gateway, lambda: admin.done == [REQUEST])
    assert len(gateway.turns) == 3


def test_each_request_wakes_once_for_one_connection(folder: Path) -> None:
    second = REQUEST[:-1] + "B"
    admin, gateway = FakeAdmin([(REQUEST, WEBCHAT), (REQUEST, WEBCHAT), (second, WEBCHAT)]), FakeGateway()
    woken(folder, admin, gateway, lambda: admin.done == [REQUEST, second])
    assert [turn["idempotencyKey"] for turn in gateway.turns] == [REQUEST, second]


@pytest.mark.parametrize(
    ("session", "channel"),
    [
        ("agent:main:main", False),
        ("agent:main:g1", False),
        ("agent:main:subagent:85d3d6ed", False),
        ("agent:main:telegram:direct:555", True),
        ("agent:main:telegram:default:direct:555", True),
        ("agent:main:telegram:group:-100", True),
        ("agent:main:discord:channel:1", True),
        ("", False),
        ("agent:main:x:y:direct", False),
    ],
)
def test_the_session_tells_whether_there_is_a_channel(session: str, channel: bool) -> None:
    assert waker.has_channel(session) is channel


# ── the token ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_token_is_read_from_a_file_that_nobody_else_may_read(folder: Path) -> None:
    file = folder / "token"
    file.write_text(TOKEN + "\n")
    file.chmod(0o400)
    assert waker.read_token(file) == TOKEN
    for mode in (0o440, 0o404, 0o444, 0o420):
        file.chmod(mode)
        with pytest.raises(ConfigError, match="others"):
            waker.read_token(file)


@pytest.mark.parametrize("content", [b"", b"short", b"\xff\xfe" * 20])
def test_a_file_without_a_token_is_refused(folder: Path, content: bytes) -> None:
    file = folder / "token"
    file.write_bytes(content)
    file.chmod(0o400)
    with pytest.raises(ConfigError):
        waker.read_token(file)
    with pytest.raises(ConfigError):
        waker.read_token(folder / "missing")


def test_without_an_address_or_a_token_it_does_not_start(folder: Path) -> None:
    config = configured(folder, 1)
    for missing in ("url", "token_file"):
        gateway = config.gateway.model_copy(update={missing: None})
        with pytest.raises(ConfigError, match=missing):
            asyncio.run(waker.run(config.model_copy(update={"gateway": gateway})))


# ── the gateway's client ─────────────────────────────────────────────────────────────────────────────────────────


def against(handle: Callable[[ServerConnection], Coroutine[Any, Any, None]], token: str = TOKEN) -> None:
    """Connect once and call once."""

    async def go() -> None:
        async with serve(handle, "127.0.0.1", 0) as server:
            port = next(iter(server.sockets)).getsockname()[1]
            async with waker.GatewayClient(f"ws://127.0.0.1:{port}", token) as client:
                await client.call("agent", sessionKey=WEBCHAT)

    asyncio.run(go())


def test_a_good_gateway_answers() -> None:
    against(FakeGateway().handle)


def test_a_wrong_token_is_refused_and_its_text_stays_here() -> None:
    with pytest.raises(waker.GatewayRefusedError) as refused:
        against(FakeGateway().handle, "wrong")
    assert "unauthorized" not in str(refused.value)
    assert refused.value.said == "unauthorized"


async def _closes(socket: ServerConnection) -> None:
    await socket.close()


async def _garbage(socket: ServerConnection) -> None:
    await socket.send("no json")


async def _array(socket: ServerConnection) -> None:
    await socket.send("[1]")


@pytest.mark.parametrize("handle", [_closes, _garbage, _array])
def test_a_gateway_that_is_none_is_a_typed_error(handle: Any) -> None:
    with pytest.raises(AdapterError):
        against(handle)


def test_nobody_there_is_a_typed_error() -> None:
    async def go() -> None:
        async with waker.GatewayClient("ws://127.0.0.1:1", TOKEN):
            pass

    with pytest.raises(AdapterError):
        asyncio.run(go())
