"""The decision table: class × level × gate → outcome. One pure, total function.

tests/reference.py is its specification: slow, obvious, importing nothing of ours; both run on the same inputs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from safety_wrapper.model import AutonomyLevel, Outcome, SafetyClass

_A, _R = Outcome.ALLOW, Outcome.REQUIRE_APPROVAL

#: Outcome by class and level, before the external gate is asked.
TABLE: Final[dict[SafetyClass, tuple[Outcome, Outcome, Outcome]]] = {
    SafetyClass.GREEN: (_A, _A, _A),
    SafetyClass.YELLOW: (_R, _A, _A),
    SafetyClass.YELLOW_EXTERNAL: (_R, _A, _A),
    SafetyClass.RED: (_R, _R, _A),
    SafetyClass.CRITICAL_RED: (_R, _R, _R),
}


def effective_class(safety_class: SafetyClass, *, external: bool) -> SafetyClass:
    """GREEN or YELLOW that leaves the tenant is YELLOW_EXTERNAL; anything stricter keeps its class."""
    return max(safety_class, SafetyClass.YELLOW_EXTERNAL) if external else safety_class


def decide(
    safety_class: SafetyClass,
    *,
    external: bool,
    level: AutonomyLevel,
    gate_passes: bool,
    objections: Iterable[Outcome] = (),
    fault: bool = False,
) -> Outcome:
    """The outcome of one call.

    ``fault`` stands for whatever kept the call from being judged (unlisted, malformed, no bundle, a stage that
    failed): block; so does a level that is none. ``objections`` can only make the answer stricter.
    Total; O(objections). Its specification is tests/reference.py.
    """
    if fault or not AutonomyLevel.TRAINING_WHEELS <= level <= AutonomyLevel.FULL_AUTONOMY:
        return Outcome.BLOCK  # 0 would index the last column of the table, which is the freest
    final = effective_class(safety_class, external=external)
    outcome = TABLE[final][level - 1]
    leaves = external or final is SafetyClass.YELLOW_EXTERNAL
    if leaves and not gate_passes:
        outcome = max(outcome, Outcome.REQUIRE_APPROVAL)
    return max((outcome, *objections))
