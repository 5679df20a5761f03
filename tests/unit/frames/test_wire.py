"""Frames without a loop: encoding, the buffers, sealed memory, who owns a descriptor."""

import array
import os
import socket

import pytest

from safety_wrapper.errors import WireError
from safety_wrapper.frames import MESSAGES, check_answer, encode, from_memfd, peer_of, to_memfd, wire
from socket_rig import open_descriptors


@pytest.fixture
def pair():
    one, other = socket.socketpair()
    other.setblocking(False)
    with one, other:
        yield one, other


def test_a_frame_is_length_and_json():
    assert encode({"a": 1}) == b'\x00\x00\x00\x07{"a":1}'


NO_FRAMES = [{"a": object()}, {"a": "\ud800"}, {"a": 2**53}, {"a": {1: 2}}, {"a": "x" * 2_000_000}]
NO_ANSWERS = [{}, {"ok": 1}, {"ok": "true"}, {"ok": False}, {"ok": False, "error": "x"}, {"ok": False, "error": {}}]


@pytest.mark.parametrize("message", NO_FRAMES)
def test_what_is_no_frame_is_refused_by_its_sender(message):
    with pytest.raises(WireError) as caught:
        encode(message)
    assert caught.value.code == "internal"


def test_a_verbs_own_id_travels_as_ref():
    sent = wire.request(7, "approvals.get", {"id": "apr_1"})
    assert sent == {"v": 1, "id": 7, "verb": "approvals.get", "ref": "apr_1"}
    assert wire.own_keys({"ref": "apr_1"}) == {"id": "apr_1"}
    assert wire.answer(7, {"id": "own_1"}) == {"ok": True, "id": 7, "ref": "own_1"}
    assert wire.event({"event": "closed", "id": "apr_1"}) == {"event": "closed", "ref": "apr_1"}
    assert check_answer({"ok": True, "id": 7, "ref": "own_1"}) == {"ok": True, "id": "own_1"}


@pytest.mark.parametrize("key", ["v", "verb", "event", "fds", "ref"])
def test_a_body_can_not_set_what_is_the_frames(key):
    with pytest.raises(WireError):
        wire.request(7, "echo", {key: "x"})
    with pytest.raises(WireError):
        wire.answer(7, {key: "x"})
    assert wire.request(7, "echo", {"key": "x"})["key"] == "x"


@pytest.mark.parametrize("code", MESSAGES)
def test_error_answers_have_fixed_text(code):
    answer = wire.error_answer(code)
    assert answer["error"] == {"code": code, "message": MESSAGES[code], "retry_s": 1 if code == "busy" else None}
    with pytest.raises(WireError) as caught:
        check_answer({"id": 1, **answer})
    assert (caught.value.code, caught.value.message) == (code, MESSAGES[code])


@pytest.mark.parametrize("answer", NO_ANSWERS)
def test_an_answer_that_is_none_is_an_error(answer):
    with pytest.raises(WireError) as caught:
        check_answer(answer)
    assert caught.value.code == "internal"


def test_unknown_codes_become_internal():
    assert wire.error_answer("hunter2")["error"]["code"] == "internal"


def test_the_kernel_names_the_peer(pair):
    peer = peer_of(pair[0])
    assert (peer.pid, peer.uid, peer.gid) == (os.getpid(), os.getuid(), os.getgid())


# ── coming in ────────────────────────────────────────────────────────────────────────────────────────────────────


def feed(pair, data, descriptors=()):
    sent = pair[0].sendmsg(
        [data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    )
    assert sent == len(data)


def test_frames_come_out_whole_however_they_are_cut(pair):
    incoming = wire.Incoming()
    data = encode({"a": 1}) + encode({"b": 2})
    for byte in data[:-1]:
        feed(pair, bytes([byte]))
        incoming.receive(pair[1])
    assert incoming.message()[0] == {"a": 1}
    assert incoming.message() is None
    assert incoming.partial
    feed(pair, data[-1:])
    incoming.receive(pair[1])
    assert incoming.message()[0] == {"b": 2}
    assert not incoming.partial


@pytest.mark.parametrize("length", [0, 1, 1024 * 1024 + 1, 2**31, 2**32 - 1])
def test_a_length_that_no_frame_has_is_refused_before_its_bytes_come(pair, length):
    incoming = wire.Incoming()
    feed(pair, length.to_bytes(4, "big"))
    incoming.receive(pair[1])
    with pytest.raises(WireError):
        incoming.message()


def test_the_end_of_the_stream_is_said(pair):
    pair[0].close()
    assert wire.Incoming().receive(pair[1]) is False


def test_descriptors_go_to_the_frames_that_claim_them(pair):
    incoming = wire.Incoming()
    one, two, three = (to_memfd(text) for text in (b"one", b"two", b"three"))
    feed(pair, encode({"n": 1, "fds": 2}), [one, two])
    feed(pair, encode({"n": 2}))
    feed(pair, encode({"n": 3, "fds": 1}), [three])
    for fd in (one, two, three):
        os.close(fd)
    texts = {}
    for _ in range(3):
        incoming.receive(pair[1])
        while (item := incoming.message()) is not None:
            texts[item[0]["n"]] = [from_memfd(fd, max_bytes=10) for fd in item[1]]
            wire.close_all(item[1])
        incoming.settle()
        if len(texts) == 3:
            break
    assert texts == {1: [b"one", b"two"], 2: [], 3: [b"three"]}


@pytest.mark.parametrize("claim", [1, 2, 0, -1, True, "1", None, 1.0, [1]])
def test_a_claim_of_descriptors_that_did_not_come_is_refused(pair, claim):
    incoming = wire.Incoming()
    feed(pair, encode({"fds": claim}))
    incoming.receive(pair[1])
    with pytest.raises(WireError):
        incoming.message()


def test_descriptors_that_nobody_claims_are_refused_and_closed(pair):
    before = open_descriptors()
    incoming = wire.Incoming()
    fd = to_memfd(b"x")
    feed(pair, encode({"n": 1}), [fd])
    os.close(fd)
    incoming.receive(pair[1])
    assert incoming.message()[1] == []
    with pytest.raises(WireError):
        incoming.settle()
    incoming.close()
    assert open_descriptors() == before


def test_more_descriptors_than_a_frame_may_have_are_refused(pair):
    before = open_descriptors()
    incoming = wire.Incoming()
    fds = [to_memfd(b"x") for _ in range(5)]
    feed(pair, encode({"fds": 5}), fds)
    wire.close_all(fds)
    with pytest.raises(WireError):
        incoming.receive(pair[1])
    incoming.close()
    assert open_descriptors() == before


def test_a_socket_that_takes_no_descriptors_drops_them(pair):
    before = open_descriptors()
    incoming = wire.Incoming(max_descriptors=0)
    fd = to_memfd(b"x")
    feed(pair, encode({"n": 1}), [fd])
    os.close(fd)
    assert incoming.receive(pair[1])
    assert incoming.message()[0] == {"n": 1}
    assert open_descriptors() == before


# ── going out ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_frames_with_descriptors_keep_them_when_the_socket_is_full(pair):
    """Two frames with descriptors, one after the other, through a socket that takes little at a time."""
    before = open_descriptors()
    outgoing, incoming = wire.Outgoing(), wire.Incoming()
    pair[0].setblocking(False)
    pair[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for number in range(4):
        outgoing.put(encode({"n": number, "fds": 1, "pad": "x" * 100_000}), [to_memfd(str(number).encode())])
    found = []
    for _ in range(1000):
        done = outgoing.flush(pair[0])
        try:
            incoming.receive(pair[1])
        except BlockingIOError:
            if done:
                break
        while (item := incoming.message()) is not None:
            found.append((item[0]["n"], [from_memfd(fd, max_bytes=10) for fd in item[1]]))
            wire.close_all(item[1])
    assert found == [(n, [str(n).encode()]) for n in range(4)]
    assert (outgoing.waiting_bytes, open_descriptors()) == (0, before)


def test_what_is_not_sent_is_closed():
    before = open_descriptors()
    outgoing = wire.Outgoing()
    outgoing.put(encode({"fds": 1}), [to_memfd(b"x")])
    outgoing.close()
    assert (outgoing.waiting_bytes, open_descriptors()) == (0, before)


# ── memory files ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_memory_file_is_sealed():
    fd = to_memfd(b"text")
    try:
        assert from_memfd(fd, max_bytes=4) == b"text"
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(WireError):
            from_memfd(fd, max_bytes=3)
    finally:
        os.close(fd)


def test_only_sealed_memory_files_are_read(tmp_path):
    (tmp_path / "file").write_bytes(b"text")
    ordinary = os.open(tmp_path / "file", os.O_RDONLY)
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    ends = os.pipe()
    try:
        for fd in (ordinary, unsealed, ends[0], 10_000):
            with pytest.raises(WireError) as caught:
                from_memfd(fd, max_bytes=100)
            assert caught.value.code == "bad_request"
    finally:
        wire.close_all([ordinary, unsealed, *ends])
