"""kill -9, two hundred times: no acknowledged record is lost, the chain verifies, nothing runs twice."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from safety_wrapper.ledger import Ledger, export, verify_all
from stateful.rig import FakeClock, open_ledger

LIVES = 2000 if os.environ.get("SW_LONG") == "1" else 200
SCRIPT = Path(__file__).parent / "crash_writer.py"


def drain(handle: int, text: bytearray, seconds: float, *, until: bytes | None = None) -> None:
    """Collect what the writer says for ``seconds``, or until it has said ``until``."""
    start, end = len(text), time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if not select.select([handle], [], [], left)[0]:
            return
        text += os.read(handle, 65536)
        if until is not None and until in text[start:]:
            return


@dataclass(frozen=True)
class Said:
    """What all writers together said before they were killed."""

    acknowledged: dict[int, str]
    repeated: int
    runs: Counter[str]
    busy: int


def kill_again_and_again(folder: Path, lives: int, *options: str) -> Said:
    chance = random.Random(7)
    said, ack_fd = os.pipe()
    os.set_blocking(said, False)
    text = bytearray()
    busy = 0
    with subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), str(ack_fd), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=(ack_fd,),
    ) as nursery:
        assert nursery.stdin is not None
        assert nursery.stdout is not None
        for _ in range(lives):
            nursery.stdin.write(b"go\n")
            nursery.stdin.flush()
            writer = int(nursery.stdout.readline())
            before = len(text)
            drain(said, text, 20.0, until=b"O\n")
            drain(said, text, chance.uniform(0.005, 0.06))
            os.kill(writer, signal.SIGKILL)
            nursery.stdin.write(b"reap\n")
            nursery.stdin.flush()
            assert int(nursery.stdout.readline()) == signal.SIGKILL, "the writer ended by itself"
            drain(said, text, 0.0005)
            busy += b"A " in text[before:]
        nursery.stdin.close()
    os.close(ack_fd)
    drain(said, text, 0.01)
    os.close(said)
    lines = [line.split(" ") for line in text.decode().splitlines()]
    records = [line for line in lines if line[0] == "A"]
    acknowledged = {int(line[1]): line[2] for line in records}
    runs = Counter(line[1] for line in lines if line[0] == "R")
    return Said(acknowledged, len(records) - len(acknowledged), runs, busy)


def lost(ledger: Ledger, said: Said) -> dict[int, str]:
    with ledger.read() as look:
        found = dict(look.db.execute("SELECT seq, ref FROM audit").fetchall())
    return {seq: ref for seq, ref in said.acknowledged.items() if found.get(seq) != ref}


def test_killed_two_hundred_times(tmp_path: Path) -> None:
    said = kill_again_and_again(tmp_path, LIVES)
    ledger = open_ledger(tmp_path, FakeClock(wall=int(time.time()), boot=99))
    missing = lost(ledger, said)
    with ledger.read() as look:
        executions = Counter(ref for (ref,) in look.db.execute("SELECT ref FROM audit WHERE kind = 'execution'"))
        states = Counter(state for (state,) in look.db.execute("SELECT state FROM approval_request"))
        assert verify_all(look).seq == export.last_seq(look)
    ledger.close()
    assert said.busy > LIVES / 2, "the writer was hardly ever killed at work"
    assert not missing, f"{len(missing)} acknowledged records are lost"
    assert said.repeated == 0, "two records were acknowledged with one number"
    assert max(said.runs.values()) == 1, "a call ran twice"
    assert max(executions.values()) == 1
    assert said.runs.keys() <= executions.keys(), "a call ran without its record"
    assert states["unknown"] > 0, "no kill hit a running call: the test is too tame"
    assert states["executing"] == 0


def test_early_answers_would_be_noticed(tmp_path: Path) -> None:
    """The same with a writer that answers before it commits: the test can tell."""
    said = kill_again_and_again(tmp_path, 10, "lazy")
    ledger = open_ledger(tmp_path, FakeClock(wall=int(time.time()), boot=99))
    missing = lost(ledger, said)
    ledger.close()
    assert missing
