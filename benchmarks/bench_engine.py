"""The engine as a whole, as ratios against peers in the same run. Prints one JSON object.

decision: Engine.judge (normalise, classify, decide) against a cached sorted JSON encoder + SHA-256 of the same params,
the RFC 8785 library beside it · recorded: the same with its durable record against append + fdatasync · bridge: a verb
without a record over agent.sock against a bare asyncio echo that parses and writes the same frames · start-up: from
exec to the first answer · memory: summed PSS of core and runner.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import rfc8785

from safety_wrapper import registry
from safety_wrapper.cli import base_policy
from safety_wrapper.engine import Engine
from safety_wrapper.frames import Client
from safety_wrapper.ledger import Ledger, LedgerKeys, SystemClock
from safety_wrapper.model import CallContext, ToolKind
from safety_wrapper.normalise import Proposal
from safety_wrapper.policy import parse
from safety_wrapper.registry import AllowedPlugin
from safety_wrapper.settle import Limits
from safety_wrapper.standing import Standing
from safety_wrapper.testing.live import Live, running

ROUNDS = 3000
DURABLE_ROUNDS = 400
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "structured": ("sw_write", {"path": "reports/2026-11.md", "content": "Total of the month: 1,204.50\n" * 12}),
    "shell": ("sw_exec", {"command": "cd reports && grep -rn 'total' --include='*.md' . | sort | uniq -c | head -20"}),
    "http": ("sw_http__request", {"method": "POST", "url": "https://orders.example.com/v1/orders", "body": '{"n":20}'}),
}


def quantiles(samples: list[float]) -> dict[str, float]:
    """p50, p99 and p99.9 in microseconds."""
    ordered = sorted(samples)
    pick = lambda q: round(ordered[min(len(ordered) - 1, int(len(ordered) * q))] * 1e6, 2)  # noqa: E731
    return {"p50_us": pick(0.5), "p99_us": pick(0.99), "p999_us": pick(0.999)}


def proposal(tool: str, params: dict[str, Any], number: int) -> Proposal:
    context = CallContext("ten_bench", "main", "agent:main:bench", "run-1")
    return Proposal(f"call_{number}", tool, ToolKind.OWN_TOOL, params, context)


def engine(folder: Path) -> tuple[Engine, Ledger]:
    """An engine with a real ledger, the installed plugins and the base policy."""
    LedgerKeys.create(folder / "ledger.key")
    keys = LedgerKeys.load(folder / "ledger.key")
    ledger = Ledger.open(folder / "ledger.db", keys, tenant="ten_bench", clock=SystemClock())
    allowed = [AllowedPlugin(p.name, p.version, p.sha256) for p in registry.find_installed()]
    plan = registry.load(allowed, dev=True)
    standing = Standing(ledger, folder / "stopped", lambda: int(time.time()))
    standing.take_into_force(parse(base_policy.compiled()))
    nothing: Any = None
    return Engine(ledger, plan, standing, nothing, Limits(0, 0, 10), {"main": "work"}), ledger


def bench_decision(made: Engine) -> dict[str, Any]:
    """Interleaved, call by call."""
    encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    found: dict[str, Any] = {}
    for name, (tool, params) in CALLS.items():
        ours: list[float] = []
        peer: list[float] = []
        library: list[float] = []
        for number in range(ROUNDS):
            # the words differ from call to call, so that no cache of whole commands helps
            given = {
                key: f"{value}{number % 97}" if key in {"command", "path", "url"} else value
                for key, value in params.items()
            }
            one = proposal(tool, given, number)
            start = time.perf_counter()
            made.judge(one)
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            hashlib.sha256(encoder.encode(given).encode()).hexdigest()
            peer.append(time.perf_counter() - start)
            start = time.perf_counter()
            hashlib.sha256(rfc8785.dumps(given)).hexdigest()
            library.append(time.perf_counter() - start)
        found[name] = {
            "decision": quantiles(ours), "json_sha256": quantiles(peer), "rfc8785_sha256": quantiles(library),
            "ratio_p50": round(statistics.median(ours) / statistics.median(peer), 2),
        }  # fmt: skip
    return found


async def bench_recorded(made: Engine, folder: Path) -> dict[str, Any]:
    """One call at a time against append + fdatasync, interleaved; then 16 callers."""
    tool, params = CALLS["structured"]
    floor = os.open(folder / "floor", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    ours: list[float] = []
    peer: list[float] = []
    for number in range(DURABLE_ROUNDS):
        start = time.perf_counter()
        await made.decide(proposal(tool, {**params, "path": f"r{number}.md"}, number))
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        os.write(floor, b"x" * 500)
        os.fdatasync(floor)
        peer.append(time.perf_counter() - start)
    os.close(floor)

    async def caller(base: int) -> None:
        for number in range(200):
            await made.decide(proposal(tool, {**params, "path": f"c{base}-{number}.md"}, number))

    start = time.perf_counter()
    await asyncio.gather(*(caller(n) for n in range(16)))
    took = time.perf_counter() - start
    return {
        "recorded": quantiles(ours), "append_fdatasync": quantiles(peer),
        "ratio_p50": round(statistics.median(ours) / statistics.median(peer), 2),
        "decisions_per_s_16_callers": round(16 * 200 / took),
    }  # fmt: skip


def bench_bridge(live: Live, folder: Path) -> dict[str, Any]:
    """A verb without a record against a bare echo that parses and writes JSON, both over Unix sockets."""
    path = folder / "echo.sock"
    loop = asyncio.new_event_loop()
    threading.Thread(target=_echo, args=(loop, path), daemon=True).start()
    while not path.exists():
        time.sleep(0.01)
    message = {"role": "user", "content": "x" * 200}
    ours: list[float] = []
    peer: list[float] = []
    with live.agent() as agent, Client(path) as echo:
        for _ in range(300):
            agent.call("persist", message=message, context={})
        for _ in range(1500):
            start = time.perf_counter()
            agent.call("persist", message=message, context={})
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            echo.call("persist", message=message, context={})
            peer.append(time.perf_counter() - start)
    relay = _relay_cost(live)
    mine = statistics.median(ours) - relay
    loop.call_soon_threadsafe(loop.stop)
    return {
        "with_relay": quantiles(ours), "relay_p50_us": round(relay * 1e6, 2), "echo": quantiles(peer),
        "ratio_p50": round(mine / statistics.median(peer), 2),
    }  # fmt: skip


def _relay_cost(live: Live) -> float:
    """The other user's relay costs a hop of its own: its own time, measured on admin.sock with and without it."""
    from safety_wrapper import identity
    from safety_wrapper.bridge.peer import Peer

    who = identity.resolve(live.config.users).core
    direct: list[float] = []
    relayed: list[float] = []
    with Client(live.config.paths.admin_socket) as admin, Peer(live.config.paths.admin_socket, who, {}) as peer:
        for _ in range(800):
            start = time.perf_counter()
            admin.call("bundle.state")
            direct.append(time.perf_counter() - start)
            start = time.perf_counter()
            peer.call("bundle.state")
            relayed.append(time.perf_counter() - start)
    return statistics.median(relayed) - statistics.median(direct)


def _echo(loop: asyncio.AbstractEventLoop, path: Path) -> None:
    asyncio.set_event_loop(loop)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionResetError):
            while True:
                length = int.from_bytes(await reader.readexactly(4), "big")
                message = json.loads(await reader.readexactly(length))
                data = json.dumps({"id": message["id"], "ok": True, "message": message.get("message")}).encode()
                writer.write(len(data).to_bytes(4, "big") + data)
                await writer.drain()
        writer.close()

    start: Callable[[], Awaitable[Any]] = lambda: asyncio.start_unix_server(serve, path)  # noqa: E731
    loop.run_until_complete(start())
    loop.run_forever()


def bench_memory(live: Live) -> dict[str, Any]:
    """PSS in MB, after a few calls."""
    with live.agent() as agent:
        for number in range(20):
            live.execute(agent, "sw_exec", {"command": f"echo {number}"}, session=f"agent:main:m{number}")
    sizes = {name: _pss(live.pid(name)) for name in ("core", "runner")}
    return {**sizes, "sum_mb": round(sum(sizes.values()), 1)}


def _pss(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else 0.0


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="swb-", dir="/tmp"))
    folder.chmod(0o755)
    try:
        made, ledger = engine(folder)
        result: dict[str, Any] = {"python": sys.version.split()[0], "decision": bench_decision(made)}
        result["record"] = asyncio.run(bench_recorded(made, folder))
        ledger.close()
        start = time.perf_counter()
        with running(folder, base_policy.compiled()) as live:
            result["start_up_s"] = round(time.perf_counter() - start, 2)
            result["bridge"] = bench_bridge(live, folder)
            result["memory"] = bench_memory(live)
        print(json.dumps(result, indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
