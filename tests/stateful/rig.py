"""A ledger on a clock of the test's own, and short ways to the things that tests do again and again."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safety_wrapper.ledger import ClockReading, Ledger, LedgerKeys, approvals

TENANT = "ten_test"
START = 1_790_000_000
BUNDLE = "ab" * 32
#: Memory where there is some: these tests are about states, not about the disk.
FAST_FOLDER = "/dev/shm" if Path("/dev/shm").is_dir() and os.access("/dev/shm", os.W_OK) else None


@dataclass
class FakeClock:
    """What the machine's clocks show; the test moves them."""

    wall: int = START
    up: float = 5.0
    boot: int = 1
    synchronised: bool = True

    def reading(self) -> ClockReading:
        return ClockReading(self.wall, self.up, f"boot-{self.boot}", self.synchronised)

    def pass_time(self, seconds: float) -> None:
        self.wall += int(seconds)
        self.up += seconds

    def reboot(self, down: int, *, synchronised: bool = True) -> None:
        self.boot += 1
        self.up = 1.0
        self.wall += down
        self.synchronised = synchronised


def make_keys() -> LedgerKeys:
    return LedgerKeys(bytes(range(32)))


def open_ledger(folder: Path, clock: FakeClock | None = None, **options: Any) -> Ledger:
    options = {"ballast_bytes": 64 * 1024, "sync_wait_s": 0.0, **options}
    return Ledger.open(folder / "ledger.db", make_keys(), tenant=TENANT, clock=clock or FakeClock(), **options)


def digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def new_request(call: str = "rm -r /srv/app", **changes: Any) -> approvals.NewRequest:
    """A held call of an own tool; ``call`` decides digest and stored bytes."""
    base = approvals.NewRequest(
        agent="main",
        session="agent:main:main",
        call_digest=digest_of(call),
        stored_call=call.encode(),
        tool="exec",
        safety_class="RED",
        external=False,
        rules=("files.delete.recursive",),
        title="Delete a whole folder",
        lines=(("path", "/srv/app"),),
        reason="this deletes a whole folder",
        own_tool=True,
        bundle_sha256=BUNDLE,
        max_pending=10,
    )
    return replace(base, **changes)
