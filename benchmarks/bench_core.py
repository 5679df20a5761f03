"""The core's own costs beside their peers, interleaved in one run; prints one JSON object.

    python benchmarks/bench_core.py [ROUNDS]

`plan`: one classification by one and by three plugins, through the frozen plan and through pluggy. `digest`: canonical
form and SHA-256 of a usual call's parameters, beside a cached sorted JSON encoder and the RFC 8785 library. `parse`:
strict parsing beside the plain parser. `frames`: a trivial verb there and back, beside a bare asyncio stream that
parses and serialises the same JSON. Times in microseconds; a ratio is ours / peer of the medians.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pluggy
import rfc8785

from safety_wrapper import dispatch, hookspecs
from safety_wrapper.canonical import canonical_json, digest_bytes, parse_strict
from safety_wrapper.frames import AsyncClient, Limits, Request, Server
from safety_wrapper.model import Classification, SafetyClass, ToolCall
from safety_wrapper.policy import Policy
from safety_wrapper.registry import vet
from safety_wrapper.testing import make_call, make_policy

PARAMS: dict[str, Any] = {
    "command": "git -C /work/app log --since=yesterday --format='%h %s' | grep -v wip && ls -la /work/app/src",
    "timeout_s": 60,
    "background": False,
    "note": "see what changed since yesterday, without the work in progress; " * 3,
    "labels": ["read", "git", "list"],
}
BODY: dict[str, Any] = {"tool": "sw_exec", "params": PARAMS, "context": {"agent": "main", "session": "agent:main:g1"}}
_BATCH = 200


def per_call(function: Callable[[], Any]) -> float:
    """Microseconds for one call, over a batch."""
    started = time.perf_counter_ns()
    for _ in range(_BATCH):
        function()
    return (time.perf_counter_ns() - started) / _BATCH / 1000


def figures(samples: list[float]) -> dict[str, float]:
    ordered = sorted(samples)
    return {
        "p50_us": round(statistics.median(ordered), 2),
        "p99_us": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], 2),
    }


def compare(rounds: int, **candidates: Callable[[], Any]) -> dict[str, Any]:
    """Each candidate in turn, ``rounds`` times; the first is ours, the others its peers."""
    samples: dict[str, list[float]] = {name: [] for name in candidates}
    for function in candidates.values():
        per_call(function)
    for _ in range(rounds):
        for name, function in candidates.items():
            samples[name].append(per_call(function))
    return with_ratios({name: figures(values) for name, values in samples.items()})


def with_ratios(found: dict[str, Any]) -> dict[str, Any]:
    ours, *peers = found
    if not peers:
        return found
    ratios = {peer: round(found[ours]["p50_us"] / found[peer]["p50_us"], 2) for peer in peers}
    return {**found, "ratio": ratios}


class Trivial:
    """A classifier that costs nothing, so that what is measured is the calling."""

    def __init__(self, safety_class: SafetyClass) -> None:
        self._answer = Classification(safety_class, rules=("bench.rule",), reason="for a benchmark")

    @hookspecs.hookimpl
    def classify_tool_call(self, call: ToolCall, policy: Policy) -> Classification:
        return self._answer


def bench_plan(rounds: int) -> dict[str, Any]:
    found = {}
    call, policy = make_call("exec", PARAMS), make_policy()
    for count in (1, 3):
        plugins = {f"p{i}": Trivial(safety_class) for i, safety_class in enumerate(list(SafetyClass)[:count])}
        plan = vet(plugins)
        manager = pluggy.PluginManager(hookspecs.PROJECT)
        manager.add_hookspecs(hookspecs)
        for name, plugin in plugins.items():
            manager.register(plugin, name=name)
        found[f"{count}_plugins"] = {
            "calls_only": compare(
                rounds,
                plan=partial(_ask, plan.classifiers, call, policy),
                pluggy=partial(manager.hook.classify_tool_call, call=call, policy=policy),
            ),
            "with_checks_and_combining": compare(rounds, plan=partial(dispatch.classify, plan, call, policy)),
        }
    return found


def _ask(functions: tuple[Callable[..., Any], ...], call: ToolCall, policy: Policy) -> list[Any]:
    return [function(call, policy) for function in functions]


def bench_digest(rounds: int) -> dict[str, Any]:
    encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode
    return {
        "bytes": len(canonical_json(PARAMS)),
        **compare(
            rounds,
            ours=lambda: digest_bytes("sw/call/v1", canonical_json(PARAMS)),
            cached_json_encoder=lambda: hashlib.sha256(encode(PARAMS).encode()).hexdigest(),
            rfc8785_library=lambda: hashlib.sha256(rfc8785.dumps(PARAMS)).hexdigest(),
        ),
    }


def bench_parse(rounds: int) -> dict[str, Any]:
    plain = canonical_json(BODY)
    escaped = plain.replace(b"'", b"\\u0027")
    return {
        "without_escapes": compare(rounds, ours=lambda: parse_strict(plain), json_loads=lambda: json.loads(plain)),
        "with_escapes": compare(rounds, ours=lambda: parse_strict(escaped), json_loads=lambda: json.loads(escaped)),
    }


async def _hello(_request: Request) -> dict[str, Any]:
    return {}


async def _echo(request: Request) -> dict[str, Any]:
    return {"x": request.body["x"]}


async def _bare(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            message = json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))
            data = json.dumps(message).encode()
            writer.write(len(data).to_bytes(4, "big") + data)
            await writer.drain()
    except asyncio.IncompleteReadError:
        writer.close()


async def bench_frames(rounds: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="sw-bench-") as folder:
        ours_at, bare_at = Path(folder) / "ours", Path(folder) / "bare"
        server = Server({"hello": _hello, "echo": _echo}, admit=lambda peer: True, limits=Limits())
        server.listen(ours_at)
        client = await AsyncClient.connect(ours_at)
        other = await asyncio.start_unix_server(_bare, str(bare_at))
        reader, writer = await asyncio.open_unix_connection(str(bare_at))

        async def ours() -> None:
            await client.call("echo", x=BODY)

        async def bare() -> None:
            data = json.dumps({"v": 1, "id": 1, "verb": "echo", "x": BODY}).encode()
            writer.write(len(data).to_bytes(4, "big") + data)
            await writer.drain()
            json.loads(await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big")))

        samples: dict[str, list[float]] = {"frames": [], "bare_stream_echo": []}
        for number in range(rounds + 1):
            for name, trip in (("frames", ours), ("bare_stream_echo", bare)):
                for _ in range(_BATCH):
                    started = time.perf_counter_ns()
                    await trip()
                    if number:  # the first round warms up
                        samples[name].append((time.perf_counter_ns() - started) / 1000)
        client.close()
        server.close()
        writer.close()
        other.close()
        await other.wait_closed()
    return with_ratios({name: figures(values) for name, values in samples.items()})


def main(rounds: int) -> dict[str, Any]:
    return {
        "benchmark": "core",
        "rounds": rounds,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "plan": bench_plan(rounds),
        "digest": bench_digest(rounds),
        "parse": bench_parse(rounds),
        "frames": asyncio.run(bench_frames(rounds)),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else 50), indent=1))
