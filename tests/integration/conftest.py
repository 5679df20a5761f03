"""One gateway for each module: a start takes 12 to 50 seconds."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from integration import toolchain
from integration.fake_core import FakeCore
from integration.gateway import Gateway, Provider, Toolchain, free_port, scratch
from safety_wrapper import config as configuration
from safety_wrapper import installation
from safety_wrapper.bridge import openclaw
from safety_wrapper.cli import demo_origin
from safety_wrapper.cli.demo import changes_for
from safety_wrapper.cli.demo_origin import Origin
from safety_wrapper.config import Config
from safety_wrapper.testing import live
from safety_wrapper.testing.live import Live

TOOLS: list[dict[str, Any]] = [
    {
        "name": "sw_exec",
        "description": "Run a command.",
        "parameters": {
            "type": "object",
            "additionalProperties": False,
            "required": ["command"],
            "properties": {"command": {"type": "string", "maxLength": 65536}, "timeout_s": {"type": "integer"}},
        },
    }
]
#: Uids without a login, as a throw-away installation has them.
USERS = {"core": 64101, "vault": 64102, "runner": 64103, "gateway": 64104, "firewall": 64105}


@pytest.fixture(scope="session")
def chain() -> Toolchain:
    return toolchain.openclaw()


def settings(root: Path, profile: str = "recommended") -> Config:
    """A configuration below ``root``; each process has a uid of its own where root runs the tests."""
    return configuration.parse(
        {
            "paths": {"state": str(root / "state"), "run": str(root / "run"), "bundle": str(root / "bundle")},
            "users": USERS if os.getuid() == 0 else {},
            "gateway": {
                "profile": profile,
                "home": str(root / "home"),
                "config": str(root / "openclaw" / "openclaw.json"),
                "token_file": str(root / "token"),
            },
            "limits": {"execute_s": 5.0},
        },
        {},
    )


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    started = Provider(scratch("sw-provider-"))
    yield started
    started.close()


@pytest.fixture(scope="module")
def core() -> Iterator[FakeCore]:
    """A scripted core beside the gateway of this module."""
    root = scratch("sw-gateway-")
    config = settings(root)
    config.paths.agent_socket.parent.mkdir(parents=True)
    fake = FakeCore(config.paths.agent_socket).start()
    yield fake
    fake.close()


@pytest.fixture(scope="module")
def gateway(core: FakeCore, provider: Provider, chain: Toolchain) -> Iterator[Gateway]:
    """The gateway with the scripted core."""
    root = core.path.parents[2]
    started = Gateway(root, settings(root), TOOLS, chain, provider)
    try:
        started.start()
        yield started
    finally:
        started.close()


@dataclass(slots=True)
class Guarded:
    """A whole installation that runs, with the real gateway before it and somebody else's service behind it."""

    live: Live
    gateway: Gateway
    origin: Origin

    def owner(self, verb: str, **body: Any) -> dict[str, Any]:
        """One step of the owner."""
        return self.live.ask(verb, **body)

    def approve(self, request: str) -> None:
        """The owner's yes, after reading what is shown."""
        shown = self.owner("approvals.get", id=request)["request"]
        self.owner("approvals.decide", id=request, decision="approve", shown_digest=shown["digest"])

    def state(self, request: str) -> str:
        return str(self.owner("approvals.get", id=request)["request"]["state"])

    def decisions(self, session: str) -> list[dict[str, Any]]:
        """The bodies of the decisions that were recorded for a session, oldest first."""
        found = self.owner("audit.search", where={"kind": "decision", "session": session}, limit=100)["records"]
        return [record["body"] for record in sorted(found, key=lambda record: record["seq"])]


@contextlib.contextmanager
def guarded(
    profile: str, base_bundle: bytes, chain: Toolchain, provider: Provider, **gateway: Any
) -> Iterator[Guarded]:
    """Install everything into one folder, start everything, and take it away afterwards."""
    root = scratch("sw-guarded-")
    origin = demo_origin.start(root)
    changes = changes_for(origin)
    changes["gateway"] = {
        "profile": profile,
        "home": str(root / "home"),
        "config": str(root / "openclaw" / "openclaw.json"),
        "token_file": str(root / "token"),
        "url": f"ws://127.0.0.1:{free_port()}",
        **gateway,
    }
    made = installation.create(root, base_bundle, changes=changes)
    tools = openclaw.offered_tools(made.bundle)
    door = Gateway(root, made.config, tools, chain, provider)
    try:
        running = live.start(made)
        try:
            door.start()
            yield Guarded(running, door, origin)
        finally:
            door.stop()
            running.stop()
    finally:
        os.kill(origin.pid, signal.SIGKILL)
        os.waitpid(origin.pid, 0)
        door.close()


@pytest.fixture(scope="module")
def recommended(base_bundle: bytes, chain: Toolchain, provider: Provider) -> Iterator[Guarded]:
    with guarded("recommended", base_bundle, chain, provider) as started:
        yield started


@pytest.fixture(scope="module")
def builtin(base_bundle: bytes, chain: Toolchain) -> Iterator[Guarded]:
    provider = Provider(scratch("sw-provider-"), lenient=True)  # the gateway's own tools use doubtful keywords
    try:
        with guarded("builtin", base_bundle, chain, provider, spawn={"max_depth": 1, "child_calls": 2}) as started:
            yield started
    finally:
        provider.close()
