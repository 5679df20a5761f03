"""The ledger's cost, as ratios measured in one run: python benchmarks/bench_ledger.py [--rounds N] [--folder DIR]

Disks differ and drift, so each durable operation is interleaved round by round with its floor: append 256 bytes and
fdatasync. Prints one JSON object. Times in milliseconds; targets stand beside the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from safety_wrapper.ledger import Ledger, LedgerKeys, SystemClock, Txn, approvals

DECISION = {
    "outcome": "allow",
    "class": "GREEN",
    "external": False,
    "call_digest": "9f" * 32,
    "rules": ["files.read"],
    "level": 2,
    "gate": "locked",
    "bundle_sha256": "ab" * 32,
    "plan_sha256": "cd" * 32,
}


def record(txn: Txn) -> int:
    """What the engine writes for one allowed call."""
    return txn.audit("decision", agent="main", session="agent:main:main", ref="dec_01M89DC1FDCQGT2NBA", body=DECISION)


async def measure(operations: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """Each operation once a round, in turn, on one loop that does nothing else; milliseconds."""
    times: dict[str, list[float]] = {name: [] for name in operations}
    for number in range(rounds):
        for name, operation in operations.items():
            start = time.perf_counter()
            answer = operation(number)
            if isinstance(answer, Awaitable):
                await answer
            times[name].append((time.perf_counter() - start) * 1000)
    return times


def mint(ledger: Ledger, rounds: int) -> None:
    """``rounds`` live grants, each for a call of its own."""

    def change(txn: Txn) -> None:
        for number in range(rounds):
            digest = f"{number:064x}"
            new = approvals.NewRequest(
                agent="main",
                session="agent:main:main",
                call_digest=digest,
                stored_call=b"{}",
                tool="builtin:exec",
                safety_class="RED",
                external=False,
                rules=("files.delete",),
                title="Delete a folder",
                lines=(("path", "/srv/app"),),
                reason="this deletes a whole folder",
                own_tool=False,
                bundle_sha256="ab" * 32,
                max_pending=rounds + 1,
            )
            opened = approvals.open_request(txn, new)
            approvals.decide(txn, opened.id or "", decision="approve", by="local_root", shown_digest=digest)

    ledger.write_blocking(change)


def durable(ledger: Ledger, folder: Path, rounds: int) -> dict[str, list[float]]:
    """Single durable operations against the floor; and plain SQLite, to see what is ours."""
    floor = os.open(folder / "floor", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    plain = sqlite3.connect(folder / "plain.db", isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    plain.execute("CREATE TABLE t(a, b)")
    mint(ledger, rounds)

    def append(_: int) -> None:
        os.write(floor, b"x" * 256)
        os.fdatasync(floor)

    def spend(number: int) -> None:
        def change(txn: Txn) -> None:
            got = approvals.spend_grant(
                txn,
                call_digest=f"{number:064x}",
                agent="main",
                session="agent:main:main",
                tool_call_id=f"call_{number}",
            )
            if got is None:
                raise RuntimeError("no grant")

        ledger.write_blocking(change)

    times = asyncio.run(
        measure(
            {
                "floor": append,
                "plain_sqlite": lambda number: plain.execute("INSERT INTO t VALUES (?, ?)", (number, "x" * 256)),
                "record_blocking": lambda _: ledger.write_blocking(record),
                "record_async": lambda _: ledger.write(record),
                "consume_grant": spend,
            },
            rounds,
        )
    )
    plain.close()
    os.close(floor)
    return times


async def rows_per_second(ledger: Ledger, callers: int, total: int) -> float:
    """Audit rows a second with so many tasks, each waiting for its own record."""

    async def caller() -> None:
        for _ in range(total // callers):
            await ledger.write(record)

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(callers)))
    return total / (time.perf_counter() - start)


def summary(times: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """p50 and p99, and both as multiples of the floor's."""
    points = {name: statistics.quantiles(values, n=100) for name, values in times.items()}
    floor = points["floor"]
    return {
        name: {
            "p50_ms": round(each[49], 4),
            "p99_ms": round(each[98], 4),
            "x_floor_p50": round(each[49] / floor[49], 2),
            "x_floor_p99": round(each[98] / floor[98], 2),
        }
        for name, each in points.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured; default: temporary")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        keys = LedgerKeys.create(folder / "ledger.key")
        ledger = Ledger.open(folder / "ledger.db", keys, tenant="ten_bench", clock=SystemClock())
        try:
            times = durable(ledger, folder, options.rounds)
            rates = {}
            for callers in (1, 4, 16, 64):
                best = max(asyncio.run(rows_per_second(ledger, callers, 500 * min(callers, 16))) for _ in range(3))
                rates[str(callers)] = round(best)
        finally:
            ledger.close()
    print(
        json.dumps(
            {
                "benchmark": "ledger",
                "python": platform.python_version(),
                "sqlite": sqlite3.sqlite_version,
                "cores": os.cpu_count(),
                "rounds": options.rounds,
                "durable": summary(times),
                "audit_rows_per_s": rates,
                "targets": {"record_x_floor_p50": 2.2, "consume_grant_x_floor_p50": 2.2, "rows_per_s_16": 15000},
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()
