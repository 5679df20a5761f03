"""One gateway for each module: a start takes 12 to 50 seconds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from integration import toolchain
from integration.fake_core import FakeCore
from integration.gateway import Gateway, Provider, Toolchain, scratch
from safety_wrapper import config as configuration
from safety_wrapper.config import Config

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
    import os

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
