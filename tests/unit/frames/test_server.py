"""A real server on a real socket: what one peer does costs nobody else anything. Each refusal has its twin."""

import asyncio
import contextlib
import errno
import os
import socket

import pytest

from safety_wrapper.errors import ConfigError
from safety_wrapper.frames import AsyncClient, Limits, Server, to_memfd
from socket_rig import Raw, frame, open_descriptors, serving, until


def run(test, limits=None, **options):
    """Run ``test(path, handlers, server)`` beside a server, and see that no descriptor stays open."""

    async def walk():
        async with serving(limits, **options) as (path, handlers, server):
            await asyncio.wait_for(test(path, handlers, server), 30)

    before = open_descriptors()
    asyncio.run(walk())
    assert open_descriptors() == before


def code(message):
    return message["error"]["code"]


# ── the walk of a request ────────────────────────────────────────────────────────────────────────────────────────


def test_answers_may_come_out_of_order():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait"}) + frame({"v": 1, "id": 2, "verb": "echo", "x": 1}))
            assert (await peer.frame())["id"] == 2
            handlers.gate.set()
            assert (await peer.frame())["id"] == 1

    run(test)


def test_a_verbs_own_id_reaches_the_handler_and_comes_back():
    async def test(path, _handlers, _server):
        client = await AsyncClient.connect(path)
        assert (await client.call("named", id="7"))["id"] == "own_7"
        client.close()

    run(test)


@pytest.mark.parametrize(
    "first",
    [
        {"v": 1, "id": 1, "verb": "echo"},
        {"v": 1, "id": 1, "verb": "no_such"},
    ],
)
def test_the_first_verb_is_hello(first):
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.send(frame(first) + frame({"v": 1, "id": 2, "verb": "hello"}))
            assert [code(m) for m in await peer.rest()] == ["bad_request"]
        assert handlers.seen == []
        async with Raw(path) as peer:
            assert (await peer.hello())["ok"]

    run(test)


def test_what_follows_a_hello_waits_for_it():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.send(frame({"v": 1, "id": 1, "verb": "hello", "slow": True}))
            await peer.send(frame({"v": 1, "id": 2, "verb": "echo"}))
            await asyncio.sleep(0.05)
            assert handlers.seen == []
            handlers.gate.set()
            assert [(await peer.frame())["id"] for _ in range(2)] == [1, 2]

    run(test)


def test_a_refused_hello_ends_the_connection():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.send(frame({"v": 1, "id": 1, "verb": "hello", "refuse": True}))
            await peer.send(frame({"v": 1, "id": 2, "verb": "echo"}))
            assert [code(m) for m in await peer.rest()] == ["not_permitted"]
        assert handlers.seen == []

    run(test)


BAD = {
    "not JSON": b"nonsense",
    "not an object": b"[1]",
    "duplicate keys": b'{"v":1,"id":1,"id":2,"verb":"echo"}',
    "no id": {"v": 1, "verb": "echo"},
    "an id that is text": {"v": 1, "id": "1", "verb": "echo"},
    "an id that is true": {"v": 1, "id": True, "verb": "echo"},
    "another version": {"v": 2, "id": 1, "verb": "echo"},
    "a version that is true": {"v": True, "id": 1, "verb": "echo"},
    "a version that is 1.0": b'{"v":1.0,"id":1,"verb":"echo"}',
    "no version": {"id": 1, "verb": "echo"},
    "a verb that is none": {"v": 1, "id": 1, "verb": ["echo"]},
    "too deep": b'{"v":1,"id":1,"verb":"echo","x":' + b"[" * 70 + b"]" * 70 + b"}",
    "a depth bomb": b'{"v":1,"id":1,"verb":"echo","x":' + b"[" * 900_000,
    "a lone surrogate": b'{"v":1,"id":1,"verb":"echo","x":"\\ud800"}',
    "NaN": b'{"v":1,"id":1,"verb":"echo","x":NaN}',
    "descriptors that did not come": {"v": 1, "id": 1, "verb": "echo", "fds": 1},
    "an unknown verb": {"v": 1, "id": 1, "verb": "no_such"},
    "a private verb": {"v": 1, "id": 1, "verb": "__init__"},
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD.keys())
def test_a_bad_frame_gets_one_error_then_the_end(bad):
    async def test(path, handlers, _server):
        async with Raw(path) as other, Raw(path) as peer:
            await other.hello()
            await peer.hello()
            await peer.send(frame(bad) + frame({"v": 1, "id": 9, "verb": "echo"}))
            answers = await peer.rest()
            assert [code(m) for m in answers] in (["bad_frame"], ["unknown_verb"])
            assert handlers.seen == []
            await other.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await other.frame())["ok"]

    run(test)


def test_one_id_is_in_flight_once():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait", "name": "a"}) * 2)
            assert [code(m) for m in await peer.rest()] == ["bad_frame"]
            assert handlers.started == ["a"]
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "echo"}) * 2)
            assert [(await peer.frame())["id"] for _ in range(2)] == [1, 1]

    run(test)


# ── handlers that fail ───────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("verb", ["raises", "cancels"])
def test_a_handler_that_fails_is_an_internal_error_without_its_text(verb):
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": verb}))
            answer = await peer.frame()
            assert code(answer) == "internal"
            assert "hunter2" not in str(answer)
            await peer.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await peer.frame())["ok"]
        assert [type(f) for f in handlers.faults] == ([RuntimeError] if verb == "raises" else [])

    run(test)


@pytest.mark.parametrize(("given", "told"), [("busy", "busy"), ("hunter2", "internal")])
def test_a_refusal_has_the_codes_fixed_text(given, told):
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "refuses", "code": given}))
            answer = await peer.frame()
            assert code(answer) == told
            assert "hunter2" not in str(answer)

    run(test)


@pytest.mark.parametrize("kind", ["object", "nan", "surrogate", "none", "list", "reserved", "long", "descriptors"])
def test_an_answer_that_can_not_be_sent_is_an_internal_error(kind):
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "odd", "kind": kind}))
            assert code(await peer.frame()) == "internal"
            assert len(handlers.faults) == 1
            await peer.send(frame({"v": 1, "id": 2, "verb": "echo"}))
            assert (await peer.frame())["ok"]

    run(test)


def test_a_listener_for_faults_that_fails_changes_nothing():
    def fails(_exc):
        raise RuntimeError

    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "raises"}))
            assert code(await peer.frame()) == "internal"

    run(test, on_fault=fails)


# ── time ─────────────────────────────────────────────────────────────────────────────────────────────────────────

QUICK = Limits(hello_s=0.6, frame_s=0.6)


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x00\x00\x0a{"])
def test_who_does_not_say_hello_in_time_is_cut_off(data):
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.send(data)
            assert [code(m) for m in await peer.rest()] == ["deadline"]

    run(test, QUICK)


def test_who_said_hello_may_be_silent():
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await asyncio.sleep(1.0)
            await peer.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await peer.frame())["ok"]

    run(test, QUICK)


def test_a_dripped_frame_is_cut_off_however_steadily_it_drips():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            data = frame({"v": 1, "id": 1, "verb": "echo", "pad": "x" * 1000})
            with contextlib.suppress(ConnectionResetError, BrokenPipeError):
                for byte in data:
                    await peer.send(bytes([byte]))
                    await asyncio.sleep(0.02)
            assert [code(m) for m in await peer.rest()] == ["deadline"]
            assert handlers.seen == []

    run(test, QUICK)


def test_frames_in_pieces_pass_when_each_is_in_time():
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            data = frame({"v": 1, "id": 1, "verb": "echo"})
            for _ in range(5):  # in all longer than the deadline of one
                await peer.send(data[:10])
                await asyncio.sleep(0.15)
                await peer.send(data[10:])
                assert (await peer.frame())["ok"]

    run(test, QUICK)


def test_the_end_of_one_frame_and_the_start_of_the_next_have_deadlines_of_their_own():
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            data = frame({"v": 1, "id": 1, "verb": "echo"})
            await peer.send(data[:10])
            for _ in range(4):
                await asyncio.sleep(0.2)
                await peer.send(data[10:] + data[:10])
                assert (await peer.frame())["ok"]
            assert [code(m) for m in await peer.rest()] == ["deadline"]

    run(test, QUICK)


# ── amounts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_too_many_in_flight_are_busy_and_the_rest_goes_on():
    async def test(path, handlers, _server):
        async with Raw(path) as peer, Raw(path) as other:
            await peer.hello()
            await other.hello()
            for number in range(1, 5):
                await peer.send(frame({"v": 1, "id": number, "verb": "wait", "name": str(number)}))
            answers = [await peer.frame(), await peer.frame()]
            assert {(a["id"], code(a)) for a in answers} == {(3, "busy"), (4, "busy")}
            await other.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await other.frame())["ok"]
            handlers.gate.set()
            assert {(await peer.frame())["id"] for _ in range(2)} == {1, 2}
            await peer.send(frame({"v": 1, "id": 5, "verb": "echo"}))
            assert (await peer.frame())["ok"]

    run(test, Limits(max_in_flight=2))


def test_too_many_bytes_in_flight_are_busy():
    async def test(path, handlers, _server):
        big = {"v": 1, "verb": "wait", "pad": "x" * 60_000}
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({**big, "id": 1}) + frame({**big, "id": 2}))
            answer = await peer.frame()
            assert (answer["id"], code(answer), answer["error"]["retry_s"]) == (2, "busy", 1)
            handlers.gate.set()
            assert (await peer.frame())["id"] == 1
            await peer.send(frame({**big, "id": 3}))
            assert (await peer.frame())["ok"]

    run(test, Limits(max_bytes_in_flight=100_000))


def test_a_uid_has_only_so_many_connections_and_gets_them_back():
    async def test(path, _handlers, server):
        async with Raw(path) as one, Raw(path) as two:
            await one.hello()
            await two.hello()
            async with Raw(path) as three:
                assert [code(m) for m in await three.rest()] == ["busy"]
            await one.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await one.frame())["ok"]
        await until(lambda: not server.connections)
        async with Raw(path) as again:
            assert (await again.hello())["ok"]

    run(test, Limits(max_connections_per_uid=2))


def test_a_peer_that_does_not_read_is_not_read_from_and_loses_nothing():
    """300 answers of 20 KB are more than may wait; asked one by one behind each other, all arrive."""

    async def test(path, _handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            asked = b"".join(frame({"v": 1, "id": n, "verb": "big", "bytes": 20_000}) for n in range(300))
            sending = asyncio.create_task(peer.send(asked))
            await asyncio.sleep(0.2)
            (connection,) = server.connections
            assert connection._out.waiting_bytes < 2 * 1024 * 1024
            assert [(await peer.frame())["id"] for _ in range(300)] == list(range(300))
            await sending

    run(test, Limits(max_unread_bytes=2 * 1024 * 1024))


def test_a_peer_that_never_reads_is_cut_off():
    async def test(path, _handlers, server):
        async with Raw(path) as peer, Raw(path) as other:
            await peer.hello()
            await peer.send(b"".join(frame({"v": 1, "id": n, "verb": "big", "bytes": 100_000}) for n in range(40)))
            await other.hello()
            await until(lambda: len(server.connections) == 1)
            await other.send(frame({"v": 1, "id": 1, "verb": "echo"}))
            assert (await other.frame())["ok"]

    run(test, Limits(unread_s=0.2))


def test_answers_that_would_not_fit_cut_the_peer_off():
    async def test(path, handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            for number in range(20):
                await peer.send(frame({"v": 1, "id": number, "verb": "wait", "name": "x" * 90_000}))
            handlers.gate.set()
            await until(lambda: not server.connections)

    run(test, Limits(max_unread_bytes=500_000))


def test_a_flood_of_small_requests_leaves_others_served():
    async def test(path, _handlers, _server):
        async with Raw(path) as flooder, Raw(path) as other:
            await flooder.hello()
            await other.hello()
            flood = asyncio.create_task(flooder.send(frame({"v": 1, "id": 1, "verb": "echo"}) * 20_000))
            for number in range(20):
                await other.send(frame({"v": 1, "id": number, "verb": "echo"}))
                assert (await asyncio.wait_for(other.frame(), 5))["ok"]
            flood.cancel()

    run(test)


# ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_who_goes_away_takes_its_running_requests_along():
    async def test(path, handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait", "name": "a"}))
            await until(lambda: handlers.started)
        await until(lambda: handlers.cancelled)
        assert (handlers.cancelled, server.connections) == (["a"], set())

    run(test)


def test_a_bad_frame_cancels_what_runs_and_its_answers_are_not_sent():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait", "name": "a"}) + frame(b"junk"))
            assert [code(m) for m in await peer.rest()] == ["bad_frame"]
            assert handlers.cancelled == ["a"]

    run(test)


def test_a_handler_may_close_its_connection():
    async def test(path, _handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "close"}))
            assert await peer.rest() == []
        assert server.connections == set()

    run(test)


def test_a_closed_server_answers_nobody():
    async def test(path, handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait", "name": "a"}))
            await until(lambda: handlers.started)
            server.close()
            server.close()
            assert await peer.rest() == []
            with pytest.raises(OSError, match="refused"):
                await AsyncClient.connect(path)

    run(test)


def test_events_reach_the_peer_and_none_after_the_end():
    async def test(path, _handlers, server):
        async with Raw(path) as peer:
            await peer.hello()
            (connection,) = server.connections
            connection.push({"event": "note", "id": "apr_1"})
            assert await peer.frame() == {"event": "note", "ref": "apr_1"}
            connection.close()
            connection.push({"event": "note"})
            assert connection.closed
            assert await peer.rest() == []

    run(test)


# ── descriptors ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_descriptors_are_closed_after_the_handler_unless_it_takes_them():
    async def test(path, _handlers, server):
        before = open_descriptors()
        client = await AsyncClient.connect(path)
        (connection,) = server.connections
        assert (await client.call("read", _descriptors=[to_memfd(b"one"), to_memfd(b"two")]))["texts"] == ["one", "two"]
        assert open_descriptors() == before + 2
        await client.call("keep", _descriptors=[to_memfd(b"kept")])
        kept = connection.state["kept"]
        assert os.pread(kept, 10, 0) == b"kept"
        os.close(kept)
        client.close()

    run(test)


@pytest.mark.parametrize("verb", ["raises", "cancels", "refuses", "no_such"])
def test_descriptors_of_a_request_that_fails_are_closed(verb):
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            before = open_descriptors()
            fd = to_memfd(b"x")
            data = frame({"v": 1, "id": 1, "verb": verb, "code": "busy", "fds": 1})
            socket.send_fds(peer.sock, [data], [fd])
            os.close(fd)
            await peer.frame()
            assert open_descriptors() <= before

    run(test)


def test_descriptors_of_a_busy_answer_are_closed_and_do_not_move_to_another_frame():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            await peer.send(frame({"v": 1, "id": 1, "verb": "wait"}))
            secret, public = to_memfd(b"secret"), to_memfd(b"public")
            socket.send_fds(peer.sock, [frame({"v": 1, "id": 2, "verb": "read", "fds": 1})], [secret])
            assert code(await peer.frame()) == "busy"
            handlers.gate.set()
            await peer.frame()
            socket.send_fds(peer.sock, [frame({"v": 1, "id": 3, "verb": "read", "fds": 1})], [public])
            assert (await peer.frame())["texts"] == ["public"]
            os.close(secret)
            os.close(public)

    run(test, Limits(max_in_flight=1))


def test_a_hoard_of_descriptors_is_refused():
    async def test(path, _handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            fd = to_memfd(b"x")
            before = open_descriptors()
            for _ in range(50):
                try:
                    socket.send_fds(peer.sock, [b"\x00"], [fd, fd, fd])
                except OSError:
                    break
                await asyncio.sleep(0)
            assert [code(m) for m in await peer.rest()] == ["bad_frame"]
            assert open_descriptors() < before + 5
            os.close(fd)

    run(test)


def test_descriptors_in_flight_are_bounded_for_a_uid():
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            await peer.hello()
            fd = to_memfd(b"x")
            for number in range(1, 9):
                asked = frame({"v": 1, "id": number, "verb": "wait", "fds": 4})
                socket.send_fds(peer.sock, [asked], [fd] * 4)
            os.close(fd)
            refused = [await peer.frame() for _ in range(5)]
            assert {code(m) for m in refused} == {"busy"}
            handlers.gate.set()
            assert sorted([(await peer.frame())["id"] for _ in range(3)]) == [1, 2, 3]

    run(test, Limits(max_bytes_in_flight=1_000_000))


# ── who may connect, and where ───────────────────────────────────────────────────────────────────────────────────


def raises(_peer):
    raise RuntimeError


@pytest.mark.parametrize(
    ("admit", "told"),
    [(lambda peer: False, "not_permitted"), (lambda peer: None, "not_permitted"), (raises, "internal")],
)
def test_who_is_not_admitted_hears_so_and_no_more(admit, told):
    async def test(path, handlers, _server):
        async with Raw(path) as peer:
            assert [code(m) for m in await peer.rest()] == [told]
        assert handlers.seen == []

    run(test, admit=admit)


def test_a_socket_is_made_with_its_mode_and_a_stale_one_is_replaced(tmp_path):
    async def walk():
        path = tmp_path / "s"
        for _ in range(2):
            server = Server({}, admit=lambda peer: True)
            server.listen(path, mode=0o600, gid=os.getgid())
            assert path.stat().st_mode & 0o777 == 0o600
            server.close()
        assert path.is_socket()

    asyncio.run(walk())


def test_what_is_no_socket_is_not_deleted(tmp_path):
    async def walk():
        path = tmp_path / "config.json"
        path.write_text("{}")
        with pytest.raises(ConfigError, match="no socket"):
            Server({}, admit=lambda peer: True).listen(path)
        assert path.read_text() == "{}"

    asyncio.run(walk())


def test_a_path_that_is_too_long_is_said(tmp_path):
    async def walk():
        with pytest.raises(ConfigError, match="too long"):
            Server({}, admit=lambda peer: True).listen(tmp_path / ("x" * 120))

    asyncio.run(walk())


def test_no_descriptor_left_to_accept_with_is_no_busy_loop(monkeypatch):
    """The listener is left alone for a moment, then everybody who waited is served."""

    class Full:
        def __init__(self, listener):
            self.listener, self.calls = listener, 0

        def accept(self):
            self.calls += 1
            if self.calls == 1:
                raise OSError(errno.EMFILE, "too many open files")
            return self.listener.accept()

        def fileno(self):
            return self.listener.fileno()

        def close(self):
            self.listener.close()

    async def test(path, handlers, server):
        full = Full(server._listener)
        monkeypatch.setattr(server, "_listener", full)
        async with Raw(path) as peer:
            assert (await peer.hello())["ok"]
        assert full.calls == 2
        assert [f.errno for f in handlers.faults] == [errno.EMFILE]

    run(test)
