"""``safety-wrapper doctor``: probe the machine itself. Nothing here trusts what the guard wrote about itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.errors import SafetyError

if TYPE_CHECKING:
    from safety_wrapper.cli.probes import Probe


@click.command(
    epilog="Exit codes: 0 nothing found, 1 something does not hold, 3 all holds but the core is not running."
)
@admin.json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Probe this machine for what the guard needs.

    \b
    Example:
      safety-wrapper doctor
      safety-wrapper doctor --json
    """
    from safety_wrapper.cli import output, probes

    config = admin.settings()
    found = probes.all_of(config)
    running = True
    try:
        with admin.connect(config) as client:
            found += [
                probes.Probe(f"core: {check['name']}", ok=check["ok"], detail=check["detail"], weaker=check["weaker"])
                for check in client.call("health")["checks"]
            ]
    except (failures.Failure, SafetyError, OSError) as exc:
        shown = failures.explain(exc)
        running = shown.exit_code != failures.NOT_RUNNING
        found.append(probes.Probe("core", ok=not running, detail=shown.message, do=shown.do))
    if as_json:
        admin.print_json({"running": running, "checks": [admin.plain(probe) for probe in found]})
    else:
        output.table(("", "check", "detail"), [(_mark(probe), probe.name, probe.detail) for probe in found])
        for probe in found:
            if not probe.ok and probe.do:
                output.sentence(f"{probe.name}: {probe.do}")
    broken = any(not probe.ok for probe in found)
    ctx.exit(failures.FINDING if broken else failures.OK if running else failures.NOT_RUNNING)


def _mark(probe: Probe) -> str:
    if not probe.ok:
        return "NOT OK"
    return "weaker" if probe.weaker else "ok"
