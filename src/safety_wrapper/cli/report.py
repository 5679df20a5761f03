"""The day report: one pass over a day's audit records, as sentences that an owner reads in a minute."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from safety_wrapper.cli.escape import exact, prose
from safety_wrapper.cli.output import clock

#: How many of a long list are told.
TOP: Final = 5
#: Longer values of rare records are cut; `audit search` has them whole.
LONGEST: Final = 200


@dataclass(slots=True)
class Day:
    """What one day's records say. Counters by name; ``notable`` are alarms and other rare records, in order."""

    day: str
    records: int = 0
    first_seq: int | None = None
    last_seq: int | None = None
    decisions: Counter[str] = field(default_factory=Counter)
    classes: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    refused_by: Counter[str] = field(default_factory=Counter)
    approvals: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    results: Counter[str] = field(default_factory=Counter)
    owner: list[dict[str, Any]] = field(default_factory=list)
    notable: list[dict[str, Any]] = field(default_factory=list)


def tell(day: str, records: Iterable[dict[str, Any]]) -> Day:
    """Sum up ``records`` (of one day, in order). O(records), keeping only counts and the rare ones."""
    told = Day(day)
    for record in records:
        told.records += 1
        told.first_seq = told.first_seq or record["seq"]
        told.last_seq = record["seq"]
        body = record["body"]
        match record["kind"]:
            case "decision":
                outcome = str(body.get("outcome"))
                told.decisions[outcome] += 1
                told.classes[str(body.get("class"))] += 1
                told.agents[record.get("agent") or "unknown"] += 1
                if outcome != "allow":
                    told.refused_by.update(map(str, body.get("rules") or ["none"]))
            case "approval":
                told.approvals[str(body.get("event"))] += 1
            case "execution":
                told.runs += 1
            case "result":
                told.results["failed" if body.get("ok") is False or body.get("is_error") is True else "ended well"] += 1
            case "owner":
                told.owner.append(record)
            case "alarm" | "clock" | "overflow" | "drop" | "start" | "stop" | "bundle" | "plan":
                told.notable.append(record)
    return told


def as_json(told: Day) -> dict[str, Any]:
    """The same as one object."""
    return {
        "day": told.day,
        "records": {"count": told.records, "first_seq": told.first_seq, "last_seq": told.last_seq},
        "decisions": dict(told.decisions),
        "classes": dict(told.classes),
        "agents": dict(told.agents),
        "refused_by": dict(told.refused_by),
        "approvals": dict(told.approvals),
        "runs_after_approval": told.runs,
        "results": dict(told.results),
        "owner": told.owner,
        "notable": told.notable,
    }


def lines(told: Day) -> list[str]:
    """The same as text."""
    if not told.records:
        return [f"{told.day}: nothing was recorded."]
    total = told.decisions.total()
    allowed, held, refused = (told.decisions[outcome] for outcome in ("allow", "require_approval", "block"))
    out = [
        f"{told.day} (UTC), records {told.first_seq} to {told.last_seq}",
        "",
        f"Calls: {total}. Allowed {allowed}, held for a yes {held}, refused {refused}.",
    ]
    if told.classes:
        out.append("By class: " + _counts(told.classes) + ".")
    if told.agents:
        out.append("By agent: " + _counts(told.agents) + ".")
    if told.refused_by:
        out.append("Held or refused by: " + _counts(told.refused_by) + ".")
    if told.approvals:
        out.append("Requests: " + _counts(told.approvals) + ".")
    if told.runs:
        out.append(f"Run after a yes: {told.runs}.")
    if told.results:
        out.append("Results: " + _counts(told.results) + ".")
    for heading, records in (("What the owner set:", told.owner), ("Worth a look:", told.notable)):
        if records:
            out += ["", heading, *(f"  {_rare(record)}" for record in records)]
    return out


def _counts(counter: Counter[str]) -> str:
    shown = ", ".join(f"{exact(name)} {count}" for name, count in counter.most_common(TOP))
    return shown + (f" and {len(counter) - TOP} more" if len(counter) > TOP else "")


def _rare(record: dict[str, Any]) -> str:
    body = record["body"]
    words = [clock(record["at"])[11:], record["kind"]]
    words += [f"{prose(str(key))}={exact(_short(value))}" for key, value in sorted(body.items()) if value is not None]
    return "  ".join(words)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= LONGEST else text[:LONGEST] + "…"
