"""What both sockets and the gateway adapters share: the engine and what the core knows of its gateway."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from safety_wrapper import dispatch
from safety_wrapper.bridge.wire import Claims
from safety_wrapper.config import Config
from safety_wrapper.engine import Engine
from safety_wrapper.errors import StageError, where
from safety_wrapper.held import Held
from safety_wrapper.model import CallContext
from safety_wrapper.rate import Buckets


@dataclass(slots=True)
class GatewayState:
    """What the gateway's shim said at hello."""

    connections: Callable[[], int] = lambda: 0
    version: str | None = None
    complaint: str | None = "no gateway has said hello"


@dataclass(slots=True)
class Core:
    """One per core process; handed to every handler."""

    config: Config
    engine: Engine
    held: Held
    buckets: Buckets
    expected_shim_sha256: str | None
    observing: Buckets = field(default_factory=lambda: Buckets(rate_per_s=50.0, burst=200))
    gateway: GatewayState = field(default_factory=GatewayState)
    on_opened: Callable[[str], None] = lambda request: None
    started_s: float = field(default_factory=time.monotonic)

    def context(self, claims: Claims) -> CallContext:
        """Claims of the gateway as a context. An agent that the configuration does not know is no agent."""
        agent = claims.agent if claims.agent in self.config.gateway.agents else None
        return CallContext(
            self.config.tenant, agent, claims.session, claims.run, claims.depth, claims.channel, claims.trigger
        )

    def withhold(self, hook: str, **arguments: Any) -> bool:
        """True when somebody objects to a text, or can't say."""
        try:
            return bool(dispatch.object_to(self.engine.plan, hook, **arguments))
        except StageError:
            return True

    async def alarm(self, what: str, **details: Any) -> None:
        """Put an alarm into the audit log."""
        await self.engine.ledger.write(lambda txn: txn.audit("alarm", body={"what": what, **details}))

    def report_fault(self, exc: BaseException) -> None:
        """An unexpected exception of a verb: to the process's own log, without its text."""
        sys.stderr.write(f"safety-wrapper core: {where(exc)}\n")
        sys.stderr.flush()

    async def observed(self, hook: str, **arguments: Any) -> None:
        """Call every observer of a hook; those that fail are recorded."""
        for plugin in dispatch.observe(self.engine.plan, hook, **arguments):
            await self.alarm(f"{hook} failed", plugin=plugin)
