"""``safety-wrapper status``: am I protected now, by which layers, what is weaker, what waits for me."""

from __future__ import annotations

from typing import Any

import click

from safety_wrapper.cli import admin, failures


@click.command(epilog="Exit codes: 0 protected, 1 degraded or stopped, 3 the core is not running.")
@admin.json_option
@click.pass_context
def status(ctx: click.Context, *, as_json: bool) -> None:
    """Say whether this machine is protected now.

    \b
    Example:
      safety-wrapper status
      safety-wrapper status --json
    """
    answer = admin.ask("status")
    if as_json:
        admin.print_json(answer)
    else:
        _print(answer)
    ctx.exit(failures.OK if answer["protected"] and not answer["stopped"] else failures.FINDING)


def _print(answer: dict[str, Any]) -> None:
    from safety_wrapper.cli import output

    if answer["stopped"]:
        output.sentence("STOPPED: nothing runs until `safety-wrapper start-agents`.", style="bold red")
    elif answer["protected"]:
        output.sentence("Protected.", style="bold green")
    else:
        output.sentence("DEGRADED: at least one layer does not hold.", style="bold red")
    output.table(
        ("layer", "", "name", "detail"),
        [
            (layer["layer"], "ok" if layer["ok"] else "NOT OK", layer["name"], layer["detail"])
            for layer in answer["layers"]
        ],
    )
    for weaker in answer["weaker"]:
        output.fact("weaker", weaker, style="yellow")
    waiting = answer["waiting"]["approvals"]
    if waiting:
        output.fact("waiting", f"{waiting} to decide: `safety-wrapper approvals list`", style="bold yellow")
    output.fact("policy", _bundle(answer["bundle"]))
    gateway = answer["gateway"]
    output.fact("gateway", _gateway(gateway))
    ledger = answer["ledger"]
    output.fact("ledger", f"record {ledger['seq']}, {'chain holds' if ledger['ok'] else 'DAMAGED'}")
    output.fact("core", f"{answer['core_version']}, up for {output.span(answer['uptime_s'])}")


def _bundle(bundle: dict[str, Any] | None) -> str:
    from safety_wrapper.cli import output

    if bundle is None:
        return "NONE: everything is blocked"
    text = (
        f"{bundle['name']} {bundle['version']} ({bundle['sha256'][:12]}), expires {output.clock(bundle['expires_at'])}"
    )
    return f"{text}; degraded: {bundle['degraded']}" if bundle["degraded"] else text


def _gateway(gateway: dict[str, Any]) -> str:
    if not gateway["connected"]:
        return "not connected"
    ready = "ready" if gateway["ready"] else "NOT READY"
    return f"{gateway['version']}, {gateway['profile']} profile, {ready}"
