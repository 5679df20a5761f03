"""A whole installation, running: real processes, real sockets, real sandboxes, in a folder of its own.

For tests, benchmarks and attacks. As root, every process has its own uid and :meth:`Live.agent` speaks as the
gateway's; otherwise all is one user, as on a laptop.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from safety_wrapper import identity, installation
from safety_wrapper.bridge import openclaw
from safety_wrapper.bridge.gateway.gateway_start import PINNED_VERSION
from safety_wrapper.bridge.peer import Peer
from safety_wrapper.config import Config
from safety_wrapper.errors import SafetyError
from safety_wrapper.frames import Client
from safety_wrapper.installation import Installation
from safety_wrapper.policy import Bundle

READY_S: Final = 30.0
SESSION: Final = "agent:main:test"


@dataclass(slots=True)
class Live:
    """One running installation. ``lines`` is what the supervisor said so far."""

    made: Installation
    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    _ids: Iterator[int] = field(default_factory=itertools.count)

    @property
    def config(self) -> Config:
        """The configuration that it runs by."""
        return self.made.config

    def admin(self) -> Client:
        """A connection to admin.sock as the present user. The caller closes it."""
        return Client(self.config.paths.admin_socket, timeout_s=30.0)

    def ask(self, verb: str, **body: Any) -> dict[str, Any]:
        """One request on admin.sock."""
        with self.admin() as client:
            return client.call(verb, **body)

    def agent(self) -> Peer:
        """A connection to agent.sock as the gateway's user, after a hello that is right. The caller closes it."""
        return Peer(
            self.config.paths.agent_socket, identity.resolve(self.config.users).gateway, hello(self.made.bundle)
        )

    def execute(
        self, peer: Peer, tool: str, params: Mapping[str, Any], *, session: str = SESSION, **claims: Any
    ) -> dict[str, Any]:
        """One call of one of our own tools, as the shim makes it."""
        context = {"agent": installation.AGENT, "session": session, "run": "run-1", **claims}
        return peer.call(
            "execute",
            tool_call_id=f"call_{next(self._ids)}",
            tool=tool,
            params=dict(params),
            context={key: value for key, value in context.items() if value is not None},
        )

    def pid(self, name: str) -> int:
        """The pid of a process, as the supervisor last said. Raises LookupError."""
        for line in reversed(self._said()):
            if found := re.fullmatch(rf"{name} started \(pid (\d+)\)", line):
                return int(found[1])
        raise LookupError(name)

    def kill(self, name: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to one process."""
        os.kill(self.pid(name), number)

    def wait_ready(self) -> None:
        """Wait until the core answers again. Raises TimeoutError."""
        end_s = time.monotonic() + READY_S
        while time.monotonic() < end_s:
            with contextlib.suppress(OSError, SafetyError):
                self.ask("bundle.state")
                return
            time.sleep(0.05)
        raise TimeoutError("\n".join(self._said()))

    def stop(self) -> None:
        """Stop everything and wait for it."""
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said()
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _said(self) -> list[str]:
        stream = self.process.stdout
        if stream is not None and not stream.closed:
            os.set_blocking(stream.fileno(), False)
            with contextlib.suppress(OSError):
                while chunk := os.read(stream.fileno(), 65536):
                    self.lines.extend(chunk.decode(errors="replace").splitlines())
        return self.lines


def hello(bundle: Bundle, **changes: Any) -> dict[str, Any]:
    """What the installed shim says at hello."""
    return {
        "gateway_version": PINNED_VERSION,
        "shim_sha256": openclaw.shim_sha256(),
        "tools_sha256": openclaw.tools_sha256(openclaw.offered_tools(bundle)),
        "mode": "full",
        **changes,
    }


def start(made: Installation, *, env: Mapping[str, str] | None = None) -> Live:
    """Start all processes of an installation. Raises TimeoutError when they don't come up."""
    process = subprocess.Popen(
        [sys.executable, "-m", "safety_wrapper", "--config", str(made.config_path), "up"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(env or {})},
    )
    live = Live(made, process)
    try:
        live.wait_ready()
    except TimeoutError:
        live.stop()
        raise
    return live


@contextlib.contextmanager
def running(
    root: Path,
    compiled_bundle: bytes,
    *,
    changes: Mapping[str, Any] | None = None,
    env: Mapping[str, str] | None = None,
) -> Iterator[Live]:
    """Make an installation below ``root`` and run it for the length of a block."""
    root.chmod(0o755)
    live = start(installation.create(root, compiled_bundle, changes=changes), env=env)
    try:
        yield live
    finally:
        live.stop()


def refused(answer: Mapping[str, Any]) -> bool:
    """True when nothing ran: the decision is no allow and there is no result."""
    decision = answer.get("decision")
    outcome = decision.get("outcome") if isinstance(decision, dict) else None
    return outcome in {"block", "require_approval"} and "result" not in answer and "job" not in answer


def text_of(answer: Mapping[str, Any]) -> str:
    """The text that the model would read: a result's, or a refusal's reason."""
    if "result" in answer:
        return "".join(part["text"] for part in answer["result"]["content"])
    return str(json.dumps(answer.get("decision", {}).get("reason", "")))
