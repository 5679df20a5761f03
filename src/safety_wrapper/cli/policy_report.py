"""What the policy commands show: a bundle's facts, a judgement, what its source lacks; and the plan they judge by."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import output
from safety_wrapper.cli.escape import exact

if TYPE_CHECKING:
    from safety_wrapper.dispatch import Plan
    from safety_wrapper.policy import Bundle
    from safety_wrapper.settle import Judgement

#: From here on a bundle's end is worth a word to its author.
_SOON_S: Final = 30 * 24 * 3600


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """What people are told of a bundle."""
    return {
        "name": bundle.name,
        "version": bundle.version,
        "sha256": bundle.sha256,
        "min_wrapper": bundle.min_wrapper,
        "expires_at": bundle.expires_at,
        "tools": len(bundle.tools),
        "rules": len(bundle.rules),
        "cases": len(bundle.suite),
    }


def show_bundle(facts: dict[str, Any]) -> None:
    """A bundle's facts as lines, from here or from the core."""
    output.fact("Bundle", f"{facts['name']} version {facts['version']}")
    output.fact("Digest", facts["sha256"])
    output.fact("Good until", f"{output.clock(facts['expires_at'])} UTC")
    output.fact("Holds", ", ".join(f"{facts[name]} {name}" for name in ("tools", "rules", "cases") if name in facts))


def explanation(key: str, judged: Judgement, plugins: list[str]) -> dict[str, Any]:
    """A judgement as JSON's own types."""
    found = judged.classification
    return {
        "tool": key,
        "outcome": judged.outcome.wire,
        "class": found.safety_class.name,
        "external": found.external,
        "opaque": found.opaque,
        "rules": list(found.rules),
        "effects": [{"kind": e.kind, "resource": e.resource, "value": e.value} for e in found.effects],
        "level": int(judged.level),
        "gate": judged.gate.value,
        "reason": found.reason,
        "instead": found.instead,
        "call_digest": judged.call.digest,
        "plugins": plugins,
    }


def show_explanation(facts: dict[str, Any]) -> None:
    """A judgement as lines."""
    output.fact("Outcome", facts["outcome"].replace("_", " "), style="bold")
    external = ", external" if facts["external"] else ""
    output.fact("Class", facts["class"] + external + (", opaque" if facts["opaque"] else ""))
    output.fact("At", f"level {facts['level']}, gate {facts['gate']}")
    output.fact("Rules", ", ".join(facts["rules"]) or "none")
    for effect in facts["effects"]:
        output.fact("Effect", f"{effect['kind']} {effect['resource']} {exact(effect['value'])}")
    output.fact("Reason", facts["reason"])
    if facts["instead"]:
        output.fact("Instead", facts["instead"])


def installed_plan(*, quiet: bool) -> tuple[Plan, list[str]]:
    """The plan of all installed plugins, as the core would freeze it, and their names with versions."""
    from safety_wrapper import registry

    found = registry.find_installed()
    allowed = [registry.AllowedPlugin(plugin.name, plugin.version, plugin.sha256) for plugin in found]
    used = [f"{plugin.name} {plugin.version}" for plugin in found]
    if not quiet:
        click.echo(f"note: judged by all installed plugins, listed or not: {', '.join(used) or 'none'}", err=True)
    return registry.load(allowed, dev=True), used


def gaps_of(bundle: Bundle) -> list[dict[str, Any]]:
    """What compiles and still should not be released."""
    gaps = []
    tried = {case["tool"] for case in bundle.suite}
    gaps += [f"no case tries the tool {key}" for key, entry in sorted(bundle.tools.items()) if entry.name not in tried]
    if not any("expect" in case for case in bundle.suite):
        gaps.append("the suite has no case beside the rules' own examples")
    if bundle.expires_at < time.time() + _SOON_S:
        gaps.append("it expires within 30 days")
    return [{"file": None, "line": None, "rule": None, "message": gap} for gap in gaps]
