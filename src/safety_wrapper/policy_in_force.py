"""Takes a bundle into force: judged by signature and freshness, checked by its own suite, recorded, then used.

Any failure leaves the last-known-good one in force; at a start without a good one everything is blocked.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_wrapper import dispatch
from safety_wrapper.canonical import canonical_json
from safety_wrapper.config import Config
from safety_wrapper.decide import decide, effective_class
from safety_wrapper.engine import Engine
from safety_wrapper.errors import BundleError, BundleFormatError, RefusedError
from safety_wrapper.ledger import Ledger, floor
from safety_wrapper.model import AutonomyLevel, CallContext, CallId, Classification, ToolCall, ToolKind
from safety_wrapper.naming import offered_name
from safety_wrapper.normalise import Catalogue, NotACallError, Proposal, normalise
from safety_wrapper.policy import Bundle, Policy, activation, suite
from safety_wrapper.standing import Standing


@dataclass(slots=True)
class PolicyInForce:
    """The path by which a bundle comes into force, at start and later."""

    config: Config
    engine: Engine
    ledger: Ledger
    standing: Standing

    async def start(self) -> None:
        """Load the installed bundle. A start trusts the digest that was activated; a first start checks the suite."""
        with self.ledger.read() as reader:
            known = floor.get(reader)
        trust = self.config.trust
        try:
            loaded = activation.load_installed(self.config.paths.bundle, trust, known, int(time.time()))
            if known is None:
                self._check(loaded.bundle)
                await self._record(loaded.bundle)
        except BundleError as exc:
            self.standing.without_bundle(f"no policy bundle is in force: {exc.message}")
            reason = exc.message
            await self.ledger.write(lambda txn: txn.audit("alarm", body={"what": "no bundle", "why": reason}))
            return
        self.standing.take_into_force(loaded.bundle, loaded.degraded)

    async def activate(self, source: Path) -> Bundle:
        """Take the signed bundle in ``source`` into force. Raises RefusedError; then the one in force stays."""
        with self.ledger.read() as reader:
            known = floor.get(reader)
        now = int(time.time())
        try:
            bundle = await asyncio.to_thread(activation.judge_folder, source, self.config.trust, known, now)
            self._check(bundle)
            await asyncio.to_thread(activation.install, source, self.config.paths.bundle, bundle)
        except BundleError as exc:
            reason = exc.message
            await self.ledger.write(lambda txn: txn.audit("alarm", body={"what": "bundle refused", "why": reason}))
            raise RefusedError(f"the bundle was refused: {exc.message}", do=exc.do) from exc
        await self._record(bundle)
        self.standing.take_into_force(bundle)
        return bundle

    async def _record(self, bundle: Bundle) -> None:
        def change(txn: Any) -> None:
            floor.raise_to(txn, bundle.version, bundle.sha256)
            txn.audit("bundle", body={"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256})

        await self.ledger.write(change)

    def _check(self, bundle: Bundle) -> None:
        failures = suite.check(bundle, lambda case: verdict_of(self.engine.plan, bundle, case))
        if failures:
            raise BundleFormatError(f"{len(failures)} of its own examples fail, first: {failures[0].id}")


def verdict_of(plan: dispatch.Plan, bundle: Bundle, case: Mapping[str, Any]) -> suite.Verdict:
    """Judge one example by the very path of the hook: normalise, classify, decide."""
    raise NotImplementedError


_ = (canonical_json, decide, effective_class, AutonomyLevel, CallContext, CallId, Classification, ToolCall, ToolKind)
_2 = (offered_name, Catalogue, NotACallError, Proposal, normalise, Policy)
