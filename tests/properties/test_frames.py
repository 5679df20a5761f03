"""Whatever bytes a peer sends, it gets answers, errors or the end; and everybody else stays served."""

import asyncio
import contextlib
import json
import os
import socket

from hypothesis import given, settings
from hypothesis import strategies as st

from generators import examples, json_values
from safety_wrapper.frames import MESSAGES, Limits, to_memfd
from socket_rig import Raw, frame, open_descriptors, serving

LIMITS = Limits(hello_s=5.0, frame_s=5.0, max_frame_bytes=20_000)
HELLO = frame({"v": 1, "id": 0, "verb": "hello"})

verbs = st.sampled_from(["hello", "echo", "big", "memfd", "raises", "refuses", "cancels", "push", "no_such", ""])
requests = st.fixed_dictionaries(
    {"v": st.sampled_from([1, 1, 1, 2, True, "1"]), "id": st.integers(0, 3) | json_values, "verb": verbs | json_values},
    optional={
        "fds": json_values,
        "ref": json_values,
        "kind": json_values,
        "bytes": st.integers(-5, 30_000),
        "code": st.text(),
    },
)
lengths = st.integers(0, 2**32 - 1).map(lambda n: n.to_bytes(4, "big"))
pieces = st.one_of(
    st.binary(max_size=60),
    lengths,
    requests.map(lambda r: frame(json.dumps(r).encode())),
    json_values.map(lambda v: frame(json.dumps(v).encode())),
    st.binary(max_size=60).map(frame),
    st.just(frame(b"[" * 5000)),
    st.just(frame({"v": 1, "id": 1, "verb": "echo", "pad": "x" * 10_000})),
)
streams = st.tuples(st.booleans(), st.lists(pieces, max_size=6)).map(
    lambda p: (HELLO if p[0] else b"") + b"".join(p[1])
)


def is_answer(message):
    """A frame that the contract knows: an answer, an error with fixed text, or an event."""
    if "event" in message:
        return "id" not in message
    if message.get("ok") is True:
        return isinstance(message["id"], int)
    error = message["error"]
    return set(error) == {"code", "message", "retry_s"} and MESSAGES[error["code"]] == error["message"]


async def feed(path, stream, cuts, *, descriptors=0):
    """Send ``stream`` in pieces, then the end; every frame that came back."""
    async with Raw(path) as peer:
        reading = asyncio.create_task(peer.rest())
        with contextlib.suppress(OSError):
            start = 0
            for cut in [*sorted(cuts), len(stream)]:
                part = stream[start : max(start, cut)]
                start = max(start, cut)
                if part and descriptors:
                    fds = [to_memfd(b"x") for _ in range(descriptors)]
                    try:
                        sent = socket.send_fds(peer.sock, [part], fds)
                        await peer.send(part[sent:])
                    finally:
                        for fd in fds:
                            os.close(fd)
                elif part:
                    await peer.send(part)
                await asyncio.sleep(0)
            peer.sock.shutdown(socket.SHUT_WR)
        return await asyncio.wait_for(reading, 20)


def walk(stream, cuts, descriptors=0):
    async def both():
        async with serving(LIMITS) as (path, _handlers, _server), Raw(path) as other:
            await other.hello()
            for message in await feed(path, stream, cuts, descriptors=descriptors):
                assert is_answer(message), message
            await other.send(frame({"v": 1, "id": 1, "verb": "echo", "x": 1}))
            assert (await asyncio.wait_for(other.frame(), 20))["body"] == {"x": 1}

    before = open_descriptors()
    asyncio.run(both())
    assert open_descriptors() == before


@settings(max_examples=examples(400))
@given(streams, st.lists(st.integers(0, 400), max_size=4))
def test_no_bytes_get_anything_but_an_answer_an_error_or_the_end(stream, cuts):
    walk(stream, cuts)


@settings(max_examples=examples(150))
@given(streams, st.lists(st.integers(0, 400), max_size=3), st.integers(1, 6))
def test_nor_do_bytes_with_descriptors(stream, cuts, descriptors):
    walk(stream, cuts, descriptors)


@settings(max_examples=examples(40))
@given(st.lists(st.integers(1, 60), max_size=12))
def test_good_frames_are_answered_however_they_are_cut(cuts):
    messages = [{"v": 1, "id": n, "verb": "echo", "n": n} for n in range(1, 5)]
    stream = HELLO + b"".join(frame(m) for m in messages)

    async def both():
        async with serving(LIMITS) as (path, _handlers, _server), Raw(path) as peer:
            start = 0
            for cut in [*cuts, len(stream)]:
                await peer.send(stream[start : start + cut])
                start += cut
                await asyncio.sleep(0)
            assert [(await asyncio.wait_for(peer.frame(), 20))["id"] for _ in range(5)] == [0, 1, 2, 3, 4]

    asyncio.run(both())
