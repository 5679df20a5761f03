"""Faults of processes, sockets, disks and files, injected into a running installation.

No cell ends in an allow, a hang or a lost record. Each has a twin: the same call before, and again after the cause is
gone.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from safety_wrapper import installation
from safety_wrapper.bridge.peer import Peer
from safety_wrapper.errors import WireError
from safety_wrapper.identity import become, resolve
from safety_wrapper.policy import signing
from safety_wrapper.testing.live import Live, refused, running, start


@pytest.fixture
def live(room: Path, base_bundle: bytes) -> Iterator[Live]:
    with running(room, base_bundle) as made:
        yield made


def green(live: Live, peer: Peer) -> dict[str, Any]:
    return live.execute(peer, "sw_list", {"path": "/work"})


def assert_runs(live: Live, peer: Peer) -> None:
    answer = green(live, peer)
    assert answer["decision"]["outcome"] == "allow", answer
    assert answer["result"]["is_error"] is False, answer


def assert_blocked(answer: dict[str, Any], rule: str) -> None:
    assert refused(answer), answer
    assert answer["decision"]["outcome"] == "block"
    assert rule in answer["decision"]["rules"]


def eventually_runs(live: Live, peer: Peer, within_s: float = 20.0) -> None:
    end_s = time.monotonic() + within_s
    while True:
        try:
            answer = green(live, peer)
        except OSError:
            answer = {}
        if answer.get("result", {}).get("is_error") is False:
            return
        assert time.monotonic() < end_s, f"never recovered: {answer}"
        time.sleep(0.1)


def test_core_killed(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        live.kill("core")
        with pytest.raises(ConnectionError):
            green(live, peer)
        eventually_runs(live, peer)


def test_runner_killed(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        live.kill("runner")
        answer = live.execute(peer, "sw_exec", {"command": "echo ran"})
        assert answer["result"]["is_error"] is True
        assert "ran" not in answer["result"]["content"][0]["text"].split()
        eventually_runs(live, peer)


def test_core_frozen_answers_nobody_and_allows_nothing(live: Live) -> None:
    """SIGSTOP: whoever asks gets no answer; the shim's own deadline refuses (tested with the shim)."""
    with live.agent() as peer:
        assert_runs(live, peer)
        live.kill("core", signal.SIGSTOP)
        try:
            raw = _raw(live)
            raw.settimeout(1.5)
            raw.sendall(_frame({"v": 1, "id": 1, "verb": "hello"}))
            with pytest.raises(TimeoutError):
                raw.recv(1)
            raw.close()
        finally:
            live.kill("core", signal.SIGCONT)
        eventually_runs(live, peer)


def test_agent_socket_removed(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        live.config.paths.agent_socket.unlink()
        with live.agent() as other, pytest.raises(ConnectionError):
            green(live, other)
        live.kill("core")
        eventually_runs(live, peer)


def test_runner_socket_removed(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        live.config.paths.runner_socket.unlink()
        live.kill("runner")
        eventually_runs(live, peer)


def _raw(live: Live) -> socket.socket:
    """A raw connection to agent.sock as the gateway's user."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        become(resolve(live.config.users).gateway)
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(live.config.paths.agent_socket))
        socket.send_fds(theirs, [b"x"], [sock.fileno()])
        os._exit(0)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    os.waitpid(pid, 0)
    ours.close()
    theirs.close()
    return socket.socket(fileno=fds[0])


def _frame(message: dict[str, Any]) -> bytes:
    data = json.dumps(message).encode()
    return struct.pack(">I", len(data)) + data


def _text(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


GARBAGE = {
    "duplicate keys": _text(b'{"v":1,"id":1,"verb":"hello","verb":"execute"}'),
    "surrogate": _text(b'{"v":1,"id":1,"verb":"hello","x":"\\ud800"}'),
    "garbage": os.urandom(4096),
    "oversized": struct.pack(">I", 2**31) + b"x" * 100,
    "empty": struct.pack(">I", 0),
    "not json": struct.pack(">I", 5) + b"hello",
    "not an object": struct.pack(">I", 2) + b"[]",
    "deep": struct.pack(">I", 200_000) + b"[" * 200_000,
    "no hello": _frame({"v": 1, "id": 1, "verb": "execute", "tool_call_id": "c", "tool": "sw_list", "params": {}}),
    "unknown verb": _frame({"v": 1, "id": 1, "verb": "approvals.decide"}),
}


@pytest.mark.parametrize("name", sorted(GARBAGE))
def test_a_frame_that_is_none_closes_only_its_own_connection(shared: Live, name: str) -> None:
    with shared.agent() as peer:
        assert_runs(shared, peer)
        raw = _raw(shared)
        raw.settimeout(10)
        raw.sendall(GARBAGE[name])
        heard = b""
        while chunk := raw.recv(65536):
            heard += chunk
        raw.close()
        assert b'"allow"' not in heard
        assert b"result" not in heard
        assert_runs(shared, peer)


def test_a_slow_frame_is_cut_off(shared: Live) -> None:
    with shared.agent() as peer:
        raw = _raw(shared)
        raw.settimeout(10)
        raw.sendall(struct.pack(">I", 1000) + b"{")
        started_s = time.monotonic()
        while raw.recv(65536):
            pass
        assert time.monotonic() - started_s < 9
        raw.close()
        assert_runs(shared, peer)


@pytest.fixture(scope="module")
def shared(module_room: Path, base_bundle: bytes) -> Iterator[Live]:
    changes = {"limits": {"calls_per_s": 1000, "burst": 1000}}
    with running(module_room, base_bundle, changes=changes) as made:
        yield made


def test_ledger_deleted_under_the_running_core(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        kept = live.config.paths.ledger.with_suffix(".kept")
        live.config.paths.ledger.rename(kept)
        assert_blocked(green(live, peer), "sw.fault")
        kept.rename(live.config.paths.ledger)
        live.kill("core")
        eventually_runs(live, peer)


def test_ledger_replaced_under_the_running_core(live: Live) -> None:
    with live.agent() as peer:
        assert_runs(live, peer)
        path = live.config.paths.ledger
        shutil.copyfile(path, path.with_suffix(".copy"))
        path.with_suffix(".copy").replace(path)
        assert_blocked(green(live, peer), "sw.fault")


def test_ledger_disk_full(room: Path, base_bundle: bytes) -> None:
    """The state lies on a small disk that is filled to the last byte; nothing runs until there is space again."""
    disk = room / "state"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m,mode=755", "sw-test", str(disk)], check=True)
    try:
        with running(room, base_bundle) as live, live.agent() as peer:
            assert_runs(live, peer)
            before = live.ask("audit.tail", after_seq=0, limit=500)["records"]
            _fill(disk / "filler")
            answer = {}
            for _ in range(400):
                answer = green(live, peer)
                if answer["decision"]["outcome"] != "allow":
                    break
            assert_blocked(answer, "sw.fault")
            (disk / "filler").unlink()
            eventually_runs(live, peer)
            after = live.ask("audit.tail", after_seq=0, limit=500)["records"]
            assert after[: len(before)] == before, "an acknowledged record was lost"
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 65536)
        except OSError:
            pass
        try:
            while True:
                file.write(b"\0" * 512)
        except OSError:
            return


@pytest.mark.parametrize("how", ["missing", "tampered", "truncated", "unsigned"])
def test_without_a_good_bundle_everything_is_blocked(room: Path, base_bundle: bytes, how: str) -> None:
    made = installation.create(room, base_bundle)
    folder = (made.config.paths.bundle / "current").resolve()
    data, signature = folder / "bundle.json", folder / "bundle.sig"
    good = data.read_bytes(), signature.read_bytes()
    if how == "missing":
        (made.config.paths.bundle / "current").rename(made.config.paths.bundle / "away")
    elif how == "tampered":
        data.write_bytes(good[0].replace(b'"RED"', b'"GREEN"', 1))
    elif how == "truncated":
        data.write_bytes(good[0][: len(good[0]) // 2])
    else:
        signature.write_bytes(b"[]")
    live = start(made)
    try:
        with live.agent() as peer:
            assert_blocked(green(live, peer), "sw.no_bundle")
            assert live.ask("status")["protected"] is False
            if how == "missing":
                (made.config.paths.bundle / "away").rename(made.config.paths.bundle / "current")
            data.write_bytes(good[0])
            signature.write_bytes(good[1])
            live.kill("core")
            eventually_runs(live, peer)
    finally:
        live.stop()


def test_a_refused_activation_leaves_the_last_known_good_in_force(live: Live, base_bundle: bytes, room: Path) -> None:
    incoming = room / "candidate"
    incoming.mkdir()
    bundle = json.loads(base_bundle)

    def offer(version: int, *, sign: bool = True) -> dict[str, Any]:
        data = json.dumps(
            {**bundle, "version": version}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
        ).encode()
        (incoming / "bundle.json").write_bytes(data)
        key = live.made.bundle_key if sign else signing.generate_key(room / f"stranger{version}.pem")
        signatures = signing.signatures_json([signing.sign(data, installation.BUNDLE_KID, key)])
        (incoming / "bundle.sig").write_bytes(signatures)
        return live.ask("bundle.activate", path=str(incoming))

    with live.agent() as peer:
        first = live.ask("bundle.state")["bundle"]["sha256"]
        assert "refused" in offer(bundle["version"] + 1, sign=False)
        assert live.ask("bundle.state")["bundle"]["sha256"] == first
        assert_runs(live, peer)
        assert "bundle" in offer(bundle["version"] + 1)
        second = live.ask("bundle.state")["bundle"]["sha256"]
        assert second != first
        assert "refused" in offer(bundle["version"])
        assert live.ask("bundle.state")["bundle"]["sha256"] == second
        live.kill("core")
        live.wait_ready()
        assert live.ask("bundle.state")["bundle"]["sha256"] == second
        eventually_runs(live, peer)


def test_no_admin_verb_answers_on_the_agent_socket(shared: Live) -> None:
    with shared.agent() as peer:
        for verb in ("approvals.decide", "own.set", "stop", "bundle.activate", "audit.tail"):
            with pytest.raises((WireError, ConnectionError)):
                peer.call(verb)
