"""Power loss at any moment loses no acknowledged record; with synchronous=NORMAL it would, and this test sees it."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from pathlib import Path

from safety_wrapper.errors import LedgerError
from safety_wrapper.ledger import verify_all
from stateful.power import Disk, Event, trace
from stateful.rig import FAST_FOLDER, FakeClock, open_ledger

POINTS = 3000 if os.environ.get("SW_LONG") == "1" else 360
SCRIPT = Path(__file__).parent / "power_writer.py"
#: SQLite makes it anew at each first opening; the ballast is only space.
NOT_KEPT = frozenset({"ledger.db-shm", "ledger.db.ballast", "acks"})


def traced_run(folder: Path, synchronous: str) -> list[Event]:
    run = folder / "run"
    run.mkdir()
    command = [sys.executable, str(SCRIPT), str(run), synchronous, "40"]
    return trace(command, run, folder / "trace")


def lost_after_power_loss(disk: Disk, chance: random.Random) -> list[str]:
    """What is missing on one of the disks that may be left now. The ledger must open and verify on it."""
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as name:
        disk.lose_power(chance, Path(name), NOT_KEPT)
        ledger = open_ledger(Path(name), FakeClock(wall=int(time.time()), boot=99))
        try:
            with ledger.read() as look:
                verify_all(look)
                found = dict(look.db.execute("SELECT seq, ref FROM audit").fetchall())
                begun = {ref for (ref,) in look.db.execute("SELECT ref FROM audit WHERE kind = 'execution'")}
                running = look.db.execute("SELECT count(*) FROM approval_request WHERE state = 'executing'").fetchone()[
                    0
                ]
        finally:
            ledger.close()
    assert running == 0
    missing = []
    for ack in disk.acks:
        word = ack.decode().split()
        if (word[0] == "A" and found.get(int(word[1])) != word[2]) or (word[0] == "R" and word[1] not in begun):
            missing.append(ack.decode())
    return missing


def replay(events: list[Event], chance: random.Random, points: int) -> list[list[str] | LedgerError]:
    """Losses at ``points`` moments spread over the run."""
    moments = sorted(chance.choices(range(1, len(events) + 1), k=points))
    disk, done, losses = Disk(), 0, list[list[str] | LedgerError]()
    for moment in moments:
        for event in events[done:moment]:
            disk.step(event)
        done = moment
        try:
            losses.append(lost_after_power_loss(disk, chance))
        except LedgerError as exc:
            losses.append(exc)
    return losses


def test_power_loss_loses_nothing_acknowledged(tmp_path: Path) -> None:
    events = traced_run(tmp_path, "FULL")
    acks = sum(event.kind == "ack" for event in events)
    assert acks > 200, "the traced run was too short"
    assert any(event.kind == "write" and event.name == "ledger.db" and event.offset for event in events), (
        "no checkpoint into the main file lies in the run"
    )
    faults = [each for each in replay(events, random.Random(11), POINTS) if each]
    assert not faults, f"{len(faults)} of {POINTS} disks lost something: {faults[0]}"


def test_weaker_setting_would_be_noticed(tmp_path: Path) -> None:
    """The same run with synchronous=NORMAL loses acknowledged records: the test can tell."""
    losses = replay(traced_run(tmp_path, "NORMAL"), random.Random(11), 60)
    assert sum(bool(each) for each in losses) > 5
