"""A full disk: what has begun is finished in reserved space, what is new is refused, and it passes by itself."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_wrapper.errors import LedgerFullError
from safety_wrapper.ledger import Txn, approvals, verify_all
from stateful.rig import new_request, open_ledger


def note(txn: Txn) -> int:
    return txn.audit("decision", ref="dec_1", body={"filling": "x" * 400})


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one mebibyte. Needs root, as CI has it."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0700", "none", str(place)], check=True)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def fill(place: Path) -> Path:
    """Take all that is left, to the last block."""
    filler = place / "filler"
    with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(4096))
    return filler


def test_full_disk_refuses_finishes_and_recovers(small_disk: Path) -> None:
    ledger = open_ledger(small_disk, ballast_bytes=128 * 1024)
    try:
        opened = ledger.write_blocking(lambda txn: approvals.open_request(txn, new_request()))
        digest = new_request().call_digest
        request = opened.id or ""
        ledger.write_blocking(
            lambda txn: approvals.decide(txn, request, decision="approve", by="local_root", shown_digest=digest)
        )
        ledger.write_blocking(lambda txn: approvals.begin_execution(txn, request))
        filler = fill(small_disk)
        acknowledged = []
        with contextlib.suppress(LedgerFullError):
            for _ in range(2000):
                acknowledged.append(ledger.write_blocking(note))  # noqa: PERF401 - what came before counts
        assert ledger.is_full
        assert ledger.fault is None
        with pytest.raises(LedgerFullError):
            ledger.write_blocking(note)
        # What had begun is finished in the space that was kept back, and reading goes on.
        ledger.write_blocking(
            lambda txn: approvals.finish_execution(txn, request, ok=True, text="done", facts={}), finish=True
        )
        with ledger.read() as look:
            assert approvals.result_for(look, request, agent="main", session="agent:main:main") == ("done", "done")
            assert acknowledged[-1:] <= [row[0] for row in look.db.execute("SELECT seq FROM audit ORDER BY seq DESC")]
            verify_all(look)
        with pytest.raises(LedgerFullError):
            ledger.write_blocking(note)
        filler.unlink()
        ledger.write_blocking(note)
        assert not ledger.is_full
        assert (small_disk / "ledger.db.ballast").stat().st_size == 128 * 1024
    finally:
        ledger.close()
    reopened = open_ledger(small_disk, ballast_bytes=128 * 1024)
    with reopened.read() as look:
        found = {row[0] for row in look.db.execute("SELECT seq FROM audit WHERE kind = 'decision'")}
    reopened.close()
    assert set(acknowledged) <= found


def test_full_disk_at_start_recovers_in_reserved_space(small_disk: Path) -> None:
    open_ledger(small_disk, ballast_bytes=128 * 1024).close()
    filler = fill(small_disk)
    ledger = open_ledger(small_disk, ballast_bytes=128 * 1024)
    assert ledger.is_full
    with pytest.raises(LedgerFullError):
        ledger.write_blocking(note)
    filler.unlink()
    ledger.write_blocking(note)
    ledger.close()


def test_no_room_for_a_new_ledger(small_disk: Path) -> None:
    filler = fill(small_disk)
    with pytest.raises(LedgerFullError):
        open_ledger(small_disk)
    filler.unlink()
    open_ledger(small_disk).close()
