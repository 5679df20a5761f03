"""Takes a bundle into force: judged by signature and freshness, checked by its own suite, recorded, then used.

Any failure leaves the last-known-good one in force; at a start without a good one everything is blocked.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from safety_wrapper.config import Config
from safety_wrapper.dispatch import Plan
from safety_wrapper.errors import BundleError, BundleFormatError, RefusedError
from safety_wrapper.ledger import Ledger, Txn, floor
from safety_wrapper.policy import Bundle, activation, suite
from safety_wrapper.standing import Standing
from safety_wrapper.trial import Trial


@dataclass(slots=True)
class PolicyInForce:
    """The path by which a bundle comes into force, at start and later."""

    config: Config
    plan: Plan
    ledger: Ledger
    standing: Standing

    async def start(self) -> None:
        """Load the installed bundle. A start trusts the digest that was activated; a first start checks the suite."""
        known, now = self._known()
        try:
            loaded = activation.load_installed(self.config.paths.bundle, self.config.trust, known, now)
            if known is None:
                self._check(loaded.bundle)
                await self._record(loaded.bundle)
        except BundleError as exc:
            self.standing.without_bundle(f"no policy bundle is in force: {exc.message}")
            await self._alarm("no bundle is in force", exc.message)
            return
        self.standing.take_into_force(loaded.bundle)

    async def activate(self, source: Path) -> Bundle:
        """Take the signed bundle in ``source`` into force. Raises RefusedError; then the one in force stays.

        The ledger's floor is raised last, and a start loads the floor's bundle: a crash at any point leaves one that
        loads.
        """
        known, now = self._known()
        try:
            bundle = await asyncio.to_thread(activation.judge_folder, source, self.config.trust, known, now)
            self._check(bundle)
            await asyncio.to_thread(activation.install, source, self.config.paths.bundle, bundle, self.config.trust)
        except BundleError as exc:
            await self._alarm("bundle refused", exc.message)
            raise RefusedError(f"the bundle was refused: {exc.message}", do=exc.do) from exc
        await self._record(bundle)
        self.standing.take_into_force(bundle)
        return bundle

    def _known(self) -> tuple[activation.Floor | None, int]:
        """The version floor, and the ledger's own time: a clock that is set back revives nothing."""
        with self.ledger.read() as reader:
            return floor.get(reader), reader.now

    def _check(self, bundle: Bundle) -> None:
        failures = suite.check(bundle, Trial(self.plan, bundle).verdict)
        if failures:
            raise BundleFormatError(f"{len(failures)} of its own cases fail, first {failures[0].id}")

    async def _record(self, bundle: Bundle) -> None:
        def change(txn: Txn) -> None:
            floor.raise_to(txn, bundle.version, bundle.sha256)
            txn.audit("bundle", body={"name": bundle.name, "version": bundle.version, "sha256": bundle.sha256})

        await self.ledger.write(change)

    async def _alarm(self, what: str, why: str) -> None:
        await self.ledger.write(lambda txn: txn.audit("alarm", body={"what": what, "why": why}))
