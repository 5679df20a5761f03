"""The specification of the decision: slow, obvious, and importing nothing of ours.

Written from the design's tables, in words. The engine is compared with this on the same inputs: by whole tables in
tests/differential, by generated values in tests/properties. Read it as the answer to "what should happen?".
"""

from __future__ import annotations

CLASSES = ["GREEN", "YELLOW", "YELLOW_EXTERNAL", "RED", "CRITICAL_RED"]  # from harmless to worst
OUTCOMES = ["allow", "require_approval", "block"]  # from free to strict
LEVELS = [1, 2, 3]  # Training Wheels, Trusted Assistant, Full Autonomy

# One row for each class, as it stands in the design: level 1, level 2, level 3. External ones have two rows.
INSIDE = {
    "GREEN": ["allow", "allow", "allow"],
    "YELLOW": ["require_approval", "allow", "allow"],
    "RED": ["require_approval", "require_approval", "allow"],
    "CRITICAL_RED": ["require_approval", "require_approval", "require_approval"],
}
OUTSIDE_AND_THE_GATE_PASSES_IT = {
    "YELLOW_EXTERNAL": ["require_approval", "allow", "allow"],
    "RED": ["require_approval", "require_approval", "allow"],
    "CRITICAL_RED": ["require_approval", "require_approval", "require_approval"],
}
OUTSIDE_AND_THE_GATE_HOLDS_IT = {
    "YELLOW_EXTERNAL": ["require_approval", "require_approval", "require_approval"],
    "RED": ["require_approval", "require_approval", "require_approval"],
    "CRITICAL_RED": ["require_approval", "require_approval", "require_approval"],
}


def stricter(one: str, other: str) -> str:
    """The stricter of two outcomes."""
    if OUTCOMES.index(one) > OUTCOMES.index(other):
        return one
    return other


def worse(one: str, other: str) -> str:
    """The worse of two classes."""
    if CLASSES.index(one) > CLASSES.index(other):
        return one
    return other


def final_class(name: str, external: bool) -> str:
    """What leaves the tenant is at least YELLOW_EXTERNAL."""
    if external and name in ("GREEN", "YELLOW"):
        return "YELLOW_EXTERNAL"
    return name


def decide(name: str, external: bool, level: int, gate_passes: bool, objections: list[str], fault: bool) -> str:
    """The outcome of one call that was classified as ``name``.

    ``fault``: something kept the call from being judged (unlisted, malformed, no bundle, expired, a failure).
    """
    if fault:
        return "block"
    if level not in LEVELS:
        return "block"
    name = final_class(name, external)
    leaves = external or name == "YELLOW_EXTERNAL"
    if not leaves:
        row = INSIDE[name]
    elif gate_passes:
        row = OUTSIDE_AND_THE_GATE_PASSES_IT[name]
    else:
        row = OUTSIDE_AND_THE_GATE_HOLDS_IT[name]
    answer = row[level - 1]
    for objection in objections:
        answer = stricter(answer, objection)
    return answer


def combined(answers: list[dict]) -> dict | None:
    """What several plugins' answers are together: {"class", "external", "opaque", "effects", "rules"}.

    None = nobody has an opinion, which blocks.
    """
    if not answers:
        return None
    total = {"class": "GREEN", "external": False, "opaque": False, "effects": set(), "rules": set()}
    for answer in answers:
        total["class"] = worse(total["class"], answer["class"])
        if answer["external"] or answer["class"] == "YELLOW_EXTERNAL":
            total["external"] = True
        if answer["opaque"]:
            total["opaque"] = True
        for effect in answer["effects"]:
            total["effects"].add(effect)
        for rule in answer["rules"]:
            total["rules"].add(rule)
    return total


def judge(answers: list[dict], level: int, gate_passes: bool, objections: list[str]) -> str:
    """From every plugin's answer to the outcome."""
    total = combined(answers)
    if total is None:
        return decide("CRITICAL_RED", True, level, gate_passes, objections, fault=True)
    return decide(total["class"], total["external"], level, gate_passes, objections, fault=False)


def level_for(agent: str | None, stated: dict[str, int]) -> int:
    """The level of an agent, from the owner's statements by name; ``*`` is everybody.

    Who an agent is, only its gateway says. So a name can only make it stricter than everybody, and no name at all is
    the strictest that was stated.
    """
    everybody = stated.get("*", 2)
    if agent is None:
        strictest = everybody
        for level in stated.values():
            strictest = min(strictest, level)
        return strictest
    own = stated.get(agent, everybody)
    return min(everybody, own)
