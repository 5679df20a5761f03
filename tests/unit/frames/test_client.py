"""Both clients, against the real server and against another end that is not to be trusted."""

import asyncio
import contextlib
import math
import os
import socket
import threading

import pytest

from safety_wrapper.errors import WireError
from safety_wrapper.frames import AsyncClient, Client, from_memfd, to_memfd
from socket_rig import frame, open_descriptors, serving, until


def run(test):
    """Run ``test(path, handlers, server)`` beside a server, and see that no descriptor stays open."""

    async def walk():
        async with serving() as (path, handlers, server):
            await asyncio.wait_for(test(path, handlers, server), 30)

    before = open_descriptors()
    asyncio.run(walk())
    assert open_descriptors() == before


def in_thread(test):
    """Run a blocking ``test(path)`` in a thread beside the server."""

    async def walk(path, _handlers, _server):
        await asyncio.to_thread(test, path)

    run(walk)


@contextlib.contextmanager
def other_end(tmp_path, answer):
    """An end that reads whatever comes and sends ``answer``, without ever reading a frame as one."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    listener.settimeout(10)
    taken = []

    def serve():
        with contextlib.suppress(OSError):
            sock, _ = listener.accept()
            taken.append(sock)
            sock.recv(65536)
            answer(sock)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield tmp_path / "s"
    finally:
        thread.join()
        for sock in (*taken, listener):
            sock.close()


# ── blocking ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_call_and_its_answer():
    def test(path):
        with Client(path, hello={"mode": "full"}) as client:
            assert client.greeting["core_version"] == "test"
            assert client.call("echo", x=[1], id="own")["body"] == {"x": [1], "id": "own"}
            assert client.call("named", id="7")["id"] == "own_7"

    in_thread(test)


def test_errors_have_their_code():
    def test(path):
        with Client(path) as client:
            with pytest.raises(WireError) as caught:
                client.call("refuses", code="busy")
            assert caught.value.code == "busy"
            assert client.call("echo")["ok"]
            with pytest.raises(WireError) as caught:
                client.call("no_such")
            assert caught.value.code == "unknown_verb"
            with pytest.raises(ConnectionResetError):
                client.call("echo")

    in_thread(test)


def test_descriptors_go_both_ways():
    def test(path):
        with Client(path) as client:
            handed = [to_memfd(b"one"), to_memfd(b"two")]
            assert client.call("read", _descriptors=handed)["texts"] == ["one", "two"]
            assert handed == []
            (fd,) = client.call("memfd")["_descriptors"]
            assert from_memfd(fd, max_bytes=100) == b"from the server"
            os.close(fd)

    in_thread(test)


def test_events_that_come_before_an_answer_are_kept():
    def test(path):
        with Client(path) as client:
            client.call("push")
            client.call("push")
            assert [client.receive()["id"] for _ in range(2)] == ["apr_1", "apr_1"]
            with pytest.raises(TimeoutError):
                client.receive(timeout_s=0.05)
            client.call("push")
            assert client.receive(timeout_s=math.inf)["text"] == "hi"

    in_thread(test)


def test_a_silent_call_ends_and_its_late_answer_is_dropped():
    async def test(path, handlers, _server):
        client = await asyncio.to_thread(Client, path, timeout_s=0.2)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(client.call, "wait", name="a")
        handlers.gate.set()
        assert (await asyncio.to_thread(client.call, "echo", x=2))["body"] == {"x": 2}
        client.close()

    run(test)


def test_a_socket_that_is_away_is_an_os_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        Client(tmp_path / "away")
    stale = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stale.bind(str(tmp_path / "stale"))
    stale.close()
    with pytest.raises(ConnectionRefusedError):
        Client(tmp_path / "stale")


HOSTILE = {
    "nothing": b"",
    "junk": b"junk" * 100,
    "a frame of 4 GiB": b"\xff\xff\xff\xff",
    "an empty frame": b"\x00\x00\x00\x00",
    "no object": frame([1]),
    "no JSON": frame(b"nope"),
    "an error without code": frame({"id": 1, "ok": False}),
    "descriptors that did not come": frame({"id": 1, "ok": True, "fds": 3}),
    "a claim that is no number": frame({"id": 1, "ok": True, "fds": "x"}),
    "an error for nobody": frame({"id": None, "ok": False, "error": {"code": "not_permitted"}}),
}


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_end_is_an_error_for_the_blocking_client(tmp_path, answer):
    def send(sock):
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_RDWR)

    before = open_descriptors()
    with other_end(tmp_path, send) as path, pytest.raises((WireError, ConnectionResetError)):
        Client(path, timeout_s=5)
    assert open_descriptors() == before


@pytest.mark.parametrize("answer", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_end_is_an_error_for_the_async_client(tmp_path, answer):
    def send(sock):
        sock.sendall(answer)
        sock.shutdown(socket.SHUT_RDWR)

    before = open_descriptors()
    with other_end(tmp_path, send) as path, pytest.raises((WireError, ConnectionResetError)):
        asyncio.run(AsyncClient.connect(path))
    assert open_descriptors() == before


def test_a_silent_end_is_a_timeout(tmp_path):
    done = threading.Event()
    before = open_descriptors()
    with other_end(tmp_path, lambda sock: done.wait(20)) as path:
        with pytest.raises(TimeoutError):
            Client(path, timeout_s=0.1)
        done.set()
    assert open_descriptors() == before


def test_a_silent_end_is_a_timeout_for_the_async_client(tmp_path):
    done = threading.Event()
    before = open_descriptors()
    with other_end(tmp_path, lambda sock: done.wait(20)) as path:
        with pytest.raises(TimeoutError):
            asyncio.run(AsyncClient.connect(path, timeout_s=0.1))
        done.set()
    assert open_descriptors() == before


# ── many at once ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_many_calls_at_once():
    async def test(path, handlers, _server):
        client = await AsyncClient.connect(path)
        waiting = [asyncio.create_task(client.call("wait", name=str(n))) for n in range(10)]
        answers = await asyncio.gather(*(client.call("echo", n=n) for n in range(10)))
        assert [a["body"]["n"] for a in answers] == list(range(10))
        handlers.gate.set()
        assert [a["name"] for a in await asyncio.gather(*waiting)] == [str(n) for n in range(10)]
        client.close()

    run(test)


def test_descriptors_of_the_async_client_go_both_ways():
    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path)
        handed = [to_memfd(b"one")]
        assert (await client.call("read", _descriptors=handed))["texts"] == ["one"]
        assert handed == []
        (fd,) = (await client.call("memfd"))["_descriptors"]
        assert from_memfd(fd, max_bytes=100) == b"from the server"
        os.close(fd)
        client.close()

    run(test)


def test_a_call_that_is_cancelled_while_it_is_sent_leaves_the_stream_whole():
    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path)
        big = "x" * 900_000  # more than the socket takes at once
        for _ in range(3):
            call = asyncio.create_task(client.call("echo", pad=big))
            await asyncio.sleep(0)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
        assert (await client.call("echo", n=1))["body"] == {"n": 1}
        client.close()

    run(test)


def test_the_answer_to_a_cancelled_call_is_dropped_with_its_descriptors():
    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path)
        before = open_descriptors()
        for pause in range(6):
            call = asyncio.create_task(client.call("memfd"))
            for _ in range(pause):
                await asyncio.sleep(0)
            call.cancel()
            for answer in await asyncio.gather(call, return_exceptions=True):
                if isinstance(answer, dict):
                    os.close(answer["_descriptors"][0])
        assert (await client.call("echo", n=1))["ok"]
        assert open_descriptors() == before
        client.close()

    run(test)


def test_a_broken_connection_ends_every_call():
    async def test(path, handlers, server):
        client = await AsyncClient.connect(path)
        call = asyncio.create_task(client.call("wait", name="a"))
        await until(lambda: handlers.started)
        server.close()
        with pytest.raises(ConnectionResetError):
            await call
        assert client.closed
        handed = [to_memfd(b"x")]
        with pytest.raises(ConnectionResetError):
            await client.call("echo", _descriptors=handed)
        client.close()

    run(test)


def test_the_reason_for_a_refused_connection_is_told():
    async def walk():
        async with serving(admit=lambda peer: False) as (path, _handlers, _server):
            with pytest.raises(WireError) as caught:
                await AsyncClient.connect(path)
            assert caught.value.code == "not_permitted"
            with pytest.raises(WireError) as caught:
                await asyncio.to_thread(Client, path)
            assert caught.value.code == "not_permitted"

    asyncio.run(walk())


def test_a_listener_that_fails_loses_no_other_event():
    heard, faults = [], []

    def on_event(message):
        heard.append(message["id"])
        raise RuntimeError

    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path, on_event=on_event, on_fault=faults.append)
        await asyncio.gather(*(client.call("push") for _ in range(3)))
        assert (await client.call("echo"))["ok"]
        client.close()

    run(test)
    assert heard == ["apr_1"] * 3
    assert [type(fault) for fault in faults] == [RuntimeError] * 3


def test_a_request_that_can_not_be_sent_is_said_before_it_is():
    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path)
        before = open_descriptors()
        with pytest.raises(WireError):
            await client.call("echo", x=object(), _descriptors=[to_memfd(b"x")])
        with pytest.raises(WireError):
            await client.call("echo", fds=1)
        assert open_descriptors() == before
        assert (await client.call("echo", n=1))["ok"]
        client.close()

    run(test)
