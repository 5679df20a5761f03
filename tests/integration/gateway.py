"""The real gateway as a process of its own user, a stand-in provider beside it, and turns of its agent."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from safety_wrapper.bridge import openclaw, openclaw_unit
from safety_wrapper.bridge.waker import GatewayClient
from safety_wrapper.config import Config
from safety_wrapper.identity import resolve

from .toolchain import Toolchain

REPOSITORY: Final = Path(__file__).parents[2]
PROVIDER: Final = REPOSITORY / "examples" / "providers" / "chat_completions.py"
KEY: Final = "sk-local-stand-in"
READY_S: Final = 120.0


def scratch(prefix: str) -> Path:
    """A new folder that other users may enter; pytest's own are closed to them."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    return folder


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Provider:
    """The stand-in provider as a process."""

    def __init__(self, folder: Path, *, lenient: bool = False) -> None:
        self.log = folder / "requests.jsonl"
        self.log.touch()
        command = [sys.executable, str(PROVIDER), "--key", KEY, "--log", str(self.log)]
        command += ["--lenient"] if lenient else []
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def requests(self) -> list[dict[str, Any]]:
        """Every request so far: ``{at, path, body, error}``."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        if self.log.parent.name.startswith("sw-provider-"):
            shutil.rmtree(self.log.parent, ignore_errors=True)

    @property
    def models(self) -> dict[str, Any]:
        """The gateway's configuration of this provider."""
        model = {
            "id": "stand-in-1", "name": "Stand-in", "reasoning": False, "input": ["text"],
            "cost": {"input": 1, "output": 2, "cacheRead": 0.1, "cacheWrite": 1.25},
            "contextWindow": 128000, "maxTokens": 4096, "compat": {"supportsUsageInStreaming": True},
        }  # fmt: skip
        base = f"http://127.0.0.1:{self.port}/v1"
        provider = {"baseUrl": base, "apiKey": KEY, "api": "openai-completions", "models": [model]}
        return {"mode": "replace", "providers": {"stand-in": provider}}


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the agent. ``offered``: tool names in its first request; ``results``: what the model read back."""

    status: str
    reply: str
    offered: list[str]
    results: list[str]
    errors: list[str]
    raw: dict[str, Any]


class Gateway:
    """Installed by the real installer into ``root``, started as its own user where that is possible."""

    def __init__(
        self, root: Path, config: Config, tools: list[dict[str, Any]], chain: Toolchain, provider: Provider
    ) -> None:
        self.root, self.config, self.provider = root, config, provider
        self.chain = chain
        self.layout = openclaw.layout_of(config)
        url = config.gateway.url
        self.port = int(url.rsplit(":", 1)[1]) if url else free_port()
        self.process: subprocess.Popen[bytes] | None = None
        existing = {
            "models": provider.models,
            "agents": {"defaults": {"model": {"primary": "stand-in/stand-in-1"}}},
            "logging": {"file": str(self.layout.home / "gateway.log")},
        }
        plan = openclaw.plan(config, tools, existing=existing, node=chain.node, program=chain.openclaw, port=self.port)
        openclaw.apply(plan, config)

    @property
    def token(self) -> str:
        return str(json.loads(self.layout.config.read_bytes())["gateway"]["auth"]["token"])

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def start(self, extra: Mapping[str, str] | None = None) -> None:
        """Start and wait until it is ready (12 to 50 s)."""
        environment = openclaw_unit.environment(self.layout.home, self.layout.config) | dict(extra or {})
        identity: dict[str, Any] = {}
        if os.getuid() == 0:
            who = resolve(self.config.users).gateway
            identity = {"user": who.uid, "group": who.gid, "extra_groups": []}
        with (self.root / "gateway.out").open("ab") as out:
            self.process = subprocess.Popen(
                [str(self.chain.node), str(self.chain.openclaw), "gateway", "run"],
                stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=environment, cwd=self.layout.folder,
                start_new_session=True, umask=0o077, **identity,
            )  # fmt: skip
        end_s = time.monotonic() + READY_S
        while time.monotonic() < end_s:
            if self.process.poll() is not None:
                break
            if self._is_ready():
                return
            time.sleep(0.25)
        raise RuntimeError(f"the gateway did not become ready:\n{self.output()[-3000:]}")

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=2) as answer:
                return json.load(answer).get("ready") is True
        except (OSError, ValueError):
            return False

    def output(self) -> str:
        """What the gateway printed so far."""
        return (self.root / "gateway.out").read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End it with its whole process group; its own way takes minutes."""
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def turn(self, steps: list[dict[str, Any]], *, session: str | None = None, timeout_s: float = 60.0) -> Turn:
        """One turn in which the model does ``steps``; a session of its own unless one is named."""
        return asyncio.run(self.turn_async(steps, session=session, timeout_s=timeout_s))

    async def turn_async(
        self, steps: list[dict[str, Any]], *, session: str | None = None, timeout_s: float = 60.0
    ) -> Turn:
        session = session or f"agent:main:{uuid.uuid4().hex[:8]}"
        mark = uuid.uuid4().hex
        before = len(self.provider.requests())
        message = f"please go {mark} SCRIPT:{json.dumps(steps)}"
        async with GatewayClient(self.url, self.token) as client:
            begun = await client.call("agent", sessionKey=session, message=message, idempotencyKey=mark)
            ended = await client.call("agent.wait", runId=begun["runId"], timeoutMs=int(timeout_s * 1000))
        return self._turn(ended, mark, before)

    def _turn(self, ended: dict[str, Any], mark: str, before: int) -> Turn:
        entries = [entry for entry in self.provider.requests()[before:] if mark in json.dumps(entry["body"])]
        offered = [tool["function"]["name"] for tool in entries[0]["body"].get("tools", [])] if entries else []
        last = entries[-1]["body"]["messages"] if entries else []
        start = max((i for i, m in enumerate(last) if m["role"] == "user" and mark in json.dumps(m)), default=0)
        results = [_text(m["content"]) for m in last[start:] if m["role"] == "tool"]
        errors = [entry["error"] for entry in entries if entry["error"]]
        return Turn(str(ended.get("status")), json.dumps(ended), sorted(offered), results, errors, ended)

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.root, ignore_errors=True)
        uid = resolve(self.config.users).gateway.uid
        for left in Path("/tmp").glob(f"openclaw-state-locks-{uid}"):  # the one place outside its home that it uses
            shutil.rmtree(left, ignore_errors=True)


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
