"""``safety-wrapper openclaw``: put the guard into the gateway, take it out, look whether it is what it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.errors import ConfigError, SafetyError

if TYPE_CHECKING:
    from safety_wrapper.config import Config

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group()
def openclaw() -> None:
    """Install, remove and examine the guard inside the gateway."""


@openclaw.command()
@click.option("--from", "source", type=_FILE, help="The gateway's present openclaw.json; models and channels are kept.")
@click.option("--tools", "tools_file", type=_FILE, help="A JSON list of tools; default: what the bundle offers.")
@click.option("--node", type=_FILE, help="The node program; default: the one on PATH.")
@click.option("--program", type=_FILE, help="The gateway's openclaw.mjs; default: the openclaw on PATH.")
@click.option("--port", type=click.IntRange(1, 65535), default=18789, show_default=True, help="The gateway's port.")
@click.option("--dry-run", is_flag=True, help="Show what would change and write nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@admin.json_option
def install(
    *,
    source: Path | None,
    tools_file: Path | None,
    node: Path | None,
    program: Path | None,
    port: int,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Write the shim, the gateway's configuration, its environment and its unit.

    Shows how the configuration changes, with credentials hidden. An owner's file given with --from is kept for
    `uninstall`. Start the gateway anew afterwards.

    \b
    Example:
      safety-wrapper openclaw install --from openclaw.json --dry-run
    """
    from safety_wrapper.bridge import openclaw as bridge

    config = admin.settings()
    layout = bridge.layout_of(config)
    present = source or (layout.config if layout.config.exists() else None)
    raw = present.read_bytes() if present else b"{}"
    plan = bridge.plan(
        config,
        _tools(config, tools_file),
        existing=_json_object(raw, present),
        node=_program("node", node),
        program=_program("openclaw", program),
        port=port,
    )
    if not as_json:
        _show(plan.difference or "The gateway's configuration stays as it is.")
        if not dry_run and not yes:
            click.confirm("Install this?", abort=True)
    if not dry_run:
        bridge.apply(plan, config, existing=raw if source else None)
    files = {str(layout.folder / name): digest for name, digest in sorted(plan.digests.items())}
    if as_json:
        admin.print_json({"installed": not dry_run, "files": files, "difference": plan.difference})
        return
    click.echo(f"{len(files)} files {'would be written' if dry_run else 'written'} below {layout.folder}")
    if not dry_run:
        click.echo(f"Next: link {layout.unit} into systemd and restart the gateway.")


@openclaw.command()
@click.option("--restore", type=_FILE, help="Where the configuration of before shall go.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@admin.json_option
def uninstall(*, restore: Path | None, yes: bool, as_json: bool) -> None:
    """Remove what `install` wrote; the gateway's own data stays.

    The gateway runs unguarded, or not at all, afterwards.

    \b
    Example:
      safety-wrapper openclaw uninstall --restore openclaw.json --yes
    """
    from safety_wrapper.bridge import openclaw as bridge

    layout = bridge.layout_of(admin.settings())
    if not yes:
        click.confirm("Remove the guard from the gateway?", abort=True)
    kept = bridge.uninstall(layout, restore)
    place = None if not kept else str(restore or layout.backup)
    if as_json:
        admin.print_json({"removed": True, "former_configuration": place})
        return
    click.echo("Removed." + (f" The configuration of before is in {place}." if place else ""))


@openclaw.command(epilog="Exit codes: 0 as installed, 1 a finding.")
@admin.json_option
@click.pass_context
def doctor(ctx: click.Context, *, as_json: bool) -> None:
    """Compare what lies on the disk and what runs with what was installed.

    \b
    Example:
      safety-wrapper openclaw doctor
    """
    from safety_wrapper.bridge import openclaw_doctor

    config = admin.settings()
    findings = openclaw_doctor.examine(config)
    try:
        findings.append(openclaw_doctor.running(admin.ask("status")))
    except (failures.Failure, SafetyError, OSError):
        findings.append(openclaw_doctor.Finding("gateway", ok=False, detail="the core is not running: start it first"))
    ok = all(finding.ok for finding in findings)
    if as_json:
        admin.print_json({"ok": ok, "checks": [admin.plain(finding) for finding in findings]})
    else:
        from safety_wrapper.cli import output

        shown = [(f.name, "weaker" if f.weaker else "ok" if f.ok else "NOT OK", f.detail) for f in findings]
        output.table(("check", "", "detail"), shown)
    ctx.exit(failures.OK if ok else failures.FINDING)


def _tools(config: Config, file: Path | None) -> list[dict[str, Any]]:
    """The tools to offer. Raises BundleError for a bundle that can't be read, ConfigError for a list that is none."""
    from safety_wrapper import policy
    from safety_wrapper.bridge import openclaw as bridge

    if file is None:
        return bridge.offered_tools(policy.parse((config.paths.bundle / "current" / "bundle.json").read_bytes()))
    try:
        tools = json.loads(file.read_bytes())
    except ValueError as exc:
        raise ConfigError(f"{file}: not JSON") from exc
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise ConfigError(f"{file}: must be a list of objects")
    return tools


def _json_object(raw: bytes, origin: Path | None) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError as exc:
        raise ConfigError(f"{origin}: not plain JSON", do="remove its comments and trailing commas first") from exc
    if not isinstance(value, dict):
        raise ConfigError(f"{origin}: must be one object")
    return value


def _program(name: str, given: Path | None) -> Path:
    found = str(given) if given else shutil.which(name)
    if found is None or not Path(found).exists():
        raise failures.Failure(
            f"{name} was not found", do=f"install it, or name it with --{'node' if name == 'node' else 'program'}"
        )
    return Path(found).resolve()


def _show(text: str) -> None:
    from safety_wrapper.cli.escape import prose

    for line in text.splitlines():
        click.echo(prose(line))
