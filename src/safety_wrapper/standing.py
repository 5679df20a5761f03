"""What a judgement is made by, at one moment: the bundle in force, the owner's statements, the stop button."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safety_wrapper.errors import BundleExpiredError, LedgerError
from safety_wrapper.ledger import Ledger, owner
from safety_wrapper.ledger.owner import OwnerView
from safety_wrapper.model import SW_EXPIRED, SW_FAULT, SW_NO_BUNDLE, SW_STOPPED
from safety_wrapper.normalise import Catalogue
from safety_wrapper.policy import Bundle, Policy, TenantFacts
from safety_wrapper.policy.activation import freshness

NO_BUNDLE: Final = "0" * 64


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why nothing at all may run: a reserved rule and what to tell."""

    rule: str
    reason: str


@dataclass(frozen=True, slots=True)
class InForce:
    """One consistent view: equal view, equal call, equal history → equal answer."""

    policy: Policy
    catalogue: Catalogue
    owner: OwnerView


class Standing:
    """Holds what is in force. Changed only by an activation, an owner's statement or the stop button."""

    def __init__(self, ledger: Ledger, stop_file: Path, now: Callable[[], int]) -> None:
        self._ledger = ledger
        self._stop_file = stop_file
        self._now = now
        self._catalogue: Catalogue | None = None
        self._why_none = "no policy bundle is in force"
        self._current: InForce | None = None

    @property
    def bundle(self) -> Bundle | None:
        """The bundle in force, if any."""
        return self._catalogue.bundle if self._catalogue else None

    @property
    def stopped(self) -> bool:
        """True while the stop button is pressed. A state that can't be read counts as pressed."""
        try:
            self._stop_file.lstat()
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True

    @property
    def degraded(self) -> str | None:
        """Why the bundle in force is weaker than it should be, or None."""
        if self._catalogue is None or self._too_old():
            return None
        return freshness(self._catalogue.bundle, self._now())

    def take_into_force(self, bundle: Bundle) -> None:
        """Put a bundle, already judged and checked, into force."""
        self._catalogue = Catalogue.of(bundle)
        self._current = None

    def _too_old(self) -> bool:
        """Past expiry and the grace after it."""
        try:
            if self._catalogue is not None:
                freshness(self._catalogue.bundle, self._now())
        except BundleExpiredError:
            return True
        return False

    def without_bundle(self, why: str) -> None:
        """Start without a bundle: everything is blocked."""
        self._catalogue, self._current, self._why_none = None, None, why

    def forget_owner(self) -> None:
        """The owner's statements changed: read them again before the next judgement."""
        self._current = None

    def now_in_force(self) -> InForce | Refusal:
        """What to judge by, or why nothing may run."""
        if self.stopped:
            return Refusal(SW_STOPPED, "the owner has stopped all agents. Nothing runs until they are started again")
        if self._catalogue is None:
            return Refusal(SW_NO_BUNDLE, self._why_none)
        if self._now() >= self._catalogue.bundle.expires_at and self._too_old():
            return Refusal(SW_EXPIRED, "the policy bundle expired too long ago. The owner must install a new one")
        if self._current is None:
            try:
                with self._ledger.read() as reader:
                    view = owner.view(reader)
            except LedgerError:
                return Refusal(SW_FAULT, "the owner's statements can't be read")
            hosts = tuple(service.host for service in view.internal_services)
            facts = TenantFacts(tuple(view.domains), hosts)
            self._current = InForce(Policy(self._catalogue.bundle, facts), self._catalogue, view)
        return self._current
