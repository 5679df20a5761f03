"""``safety-wrapper config``: people write config.yaml; daemons read the config.json that is made from it here."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.errors import ConfigError

if TYPE_CHECKING:
    from safety_wrapper.config import Config
    from safety_wrapper.registry import InstalledPlugin

DEFAULT_SOURCE: Final = Path("/etc/safety-wrapper/config.yaml")
_source_option = click.option(
    "--file",
    "source",
    type=click.Path(dir_okay=False, path_type=Path),
    help="config.yaml; default: beside config.json.",
)


@click.group()
def config_group() -> None:
    """Check the configuration and put it into force."""


@config_group.command()
@_source_option
@admin.json_option
def apply(*, source: Path | None, as_json: bool) -> None:
    """Check config.yaml and write config.json beside it.

    Nothing is written when a check fails. Daemons read the new file when they start.

    \b
    Example:
      safety-wrapper config apply --file config.yaml
    """
    source = _source(source)
    config = _checked(_read(source), source)
    warnings = _warnings(config, source)
    target = source.with_suffix(".json")
    changed = _write(target, config)
    if as_json:
        admin.print_json({"file": str(target), "changed": changed, "warnings": warnings})
        return
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    click.echo(f"{target}: " + ("written; restart the processes to take it up" if changed else "unchanged"))


@config_group.command()
@admin.json_option
def show(*, as_json: bool) -> None:
    """Show the configuration in force, with what the environment overrides.

    \b
    Example:
      safety-wrapper config show
    """
    from safety_wrapper import config

    text = config.dump(admin.settings())
    if as_json:
        admin.print_json(json.loads(text))
    else:
        click.echo(text, nl=False)


@config_group.command()
@admin.json_option
def prepare(*, as_json: bool) -> None:
    """Make the installation's folders with their owners, and the ledger's key if there is none.

    The units do this at each start of the machine, as root. Safe to repeat.

    \b
    Example:
      safety-wrapper config prepare
    """
    from safety_wrapper import identity, installation

    config = admin.settings()
    installation.lay_out(config, identity.resolve(config.users))
    if as_json:
        admin.print_json({"state": str(config.paths.state), "run": str(config.paths.run)})
    else:
        click.echo(f"{config.paths.state} and {config.paths.run} are in place.")


@config_group.command()
@click.argument("names", nargs=-1)
@click.option("--write", is_flag=True, help="Put them on the allow list, as they are now.")
@_source_option
@admin.json_option
@click.pass_context
def plugins(ctx: click.Context, *, names: tuple[str, ...], write: bool, source: Path | None, as_json: bool) -> None:
    """Compare the installed plugins with the allow list.

    With --write the list in config.yaml is made to fit: of the plugins NAMES, or of all that are installed. Look at
    what you installed first: a plugin on the list is trusted code. Without --write: exit code 1 if they differ.

    \b
    Example:
      safety-wrapper config plugins --write --file config.yaml
      safety-wrapper config plugins --file config.yaml
    """
    from safety_wrapper import registry

    source = _source(source)
    data = _read(source)
    listed = {entry.name: entry for entry in _checked(data, source).plugins}
    installed = {plugin.name: plugin for plugin in registry.find_installed()}
    if unknown := sorted(set(names) - set(installed)):
        raise click.UsageError(f"not installed: {', '.join(unknown)}")
    if write:
        wanted = names or tuple(installed)
        entries = [_entry(installed[name], data) for name in sorted(wanted)]
        entries += [entry for entry in data.get("plugins", []) if names and entry["name"] not in names]
        _write_source(source, data, sorted(entries, key=lambda entry: str(entry["name"])))
        config = _checked(_read(source), source)
        _write(source.with_suffix(".json"), config)
        listed = {entry.name: entry for entry in config.plugins}
    rows = [
        {
            "name": name,
            "version": installed[name].version if name in installed else listed[name].version,
            "sha256": installed[name].sha256 if name in installed else listed[name].sha256,
            "editable": name in installed and installed[name].editable,
            "state": _state(installed.get(name), listed.get(name)),
        }
        for name in sorted(installed.keys() | listed.keys())
    ]
    if as_json:
        admin.print_json({"plugins": rows})
    else:
        for row in rows:
            note = "  (editable: needs dev_plugins)" if row["editable"] else ""
            click.echo(f"{row['name']} {row['version']} {row['sha256']} {row['state']}{note}")
    ctx.exit(failures.FINDING if any(row["state"] in {"differs", "not installed"} for row in rows) else failures.OK)


def _state(installed: InstalledPlugin | None, listed: Any) -> str:
    if installed is None:
        return "not installed"
    if listed is None:
        return "not listed"
    same = (installed.version, installed.sha256) == (listed.version, listed.sha256)
    return "listed" if same else "differs"


def _entry(plugin: InstalledPlugin, data: dict[str, Any]) -> dict[str, Any]:
    entry = {"name": plugin.name, "version": plugin.version, "sha256": plugin.sha256}
    settings = next((old.get("settings") for old in data.get("plugins", []) if old["name"] == plugin.name), None)
    return {**entry, "settings": settings} if settings else entry


def _source(given: Path | None) -> Path:
    if given is not None:
        return given
    path = click.get_current_context().find_root().obj
    return Path(path).with_suffix(".yaml") if path else DEFAULT_SOURCE


def _read(source: Path) -> dict[str, Any]:
    from safety_wrapper.cli import policy_yaml

    try:
        data = policy_yaml.parse_yaml(source.read_bytes()).value
    except FileNotFoundError as exc:
        raise ConfigError(f"{source}: no such file", do="write it first: docs/reference/configuration.md") from exc
    except policy_yaml.YamlRefusedError as exc:
        raise ConfigError(f"{source}: line {exc.line}: {exc.message}", do="correct the file") from exc
    if not isinstance(data, dict):
        raise ConfigError(f"{source}: must be one mapping", do="correct the file")
    return data


def _checked(data: dict[str, Any], source: Path) -> Config:
    """The environment of this shell must not get into the file, so it is left out here."""
    from safety_wrapper import config

    return config.parse(json.loads(json.dumps(data)), {}, origin=str(source))


def _warnings(config: Config, source: Path) -> list[str]:
    """What is allowed and still worth a word."""
    warnings = []
    if stat.S_IMODE(source.stat().st_mode) & 0o022:
        warnings.append(f"{source} can be written by others than its owner")
    for role, user in config.users.model_dump().items():
        if role != "admin_group" and isinstance(user, str) and not _exists(user):
            warnings.append(f"users.{role}: there is no such user on this machine")
    if all(user is None for user in (config.users.core, config.users.runner, config.users.gateway)):
        warnings.append("users: all processes run as one user; a sandbox's escape would reach the ledger")
    if not config.plugins:
        warnings.append("plugins: none is listed, so every call is blocked")
    if not config.trust.bundle_keys:
        warnings.append("trust.bundle_keys: none, so no policy can be taken into force and every call is blocked")
    if config.dev_plugins:
        warnings.append("dev_plugins: editable plugins are admitted; not for production")
    return warnings


def _exists(user: str) -> bool:
    with contextlib.suppress(KeyError):
        pwd.getpwnam(user)
        return True
    return False


def _write(target: Path, config: Config) -> bool:
    """Replace config.json in one step, readable by every process and writable by its owner; False if unchanged."""
    from safety_wrapper import config as settings

    text = settings.dump(config)
    with contextlib.suppress(FileNotFoundError):
        if target.read_text() == text:
            return False
    _replace(target, text, 0o644)
    return True


def _write_source(source: Path, data: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    """Put ``entries`` in place of the top-level ``plugins`` of the file; every other line stays as it is."""
    from safety_wrapper.cli import policy_yaml

    block = ["plugins:" if entries else "plugins: []"]
    block += ["  - " + json.dumps(entry) for entry in entries]
    lines, out, inside, done = source.read_text().splitlines(), [], False, False
    for line in lines:
        if re.match(r"plugins\s*:", line):
            inside, done = True, True
            out += block
        elif inside and (not line or line[0] in " -#\t"):
            if line.startswith("#"):
                inside = False
                out.append(line)
        else:
            inside = False
            out.append(line)
    if not done:
        out += block
    text = "\n".join(out) + "\n"
    if policy_yaml.parse_yaml(text.encode()).value != {**data, "plugins": entries}:
        raise ConfigError(
            f"{source}: its plugins section can't be replaced by itself", do="write that section anew by hand"
        )
    _replace(source, text, stat.S_IMODE(source.stat().st_mode))


def _replace(target: Path, text: str, mode: int) -> None:
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(descriptor, "w") as stream:
            stream.write(text)
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            os.fsync(stream.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
