"""The stop button. It is a file that the core looks at before each run, so it works without core, ledger or Hub."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import click

from safety_wrapper.cli import admin, failures
from safety_wrapper.errors import ConfigError, WireError


@click.command()
@admin.json_option
def stop(*, as_json: bool) -> None:
    """Press the stop button: from now on nothing runs.

    Works while the core is away or its ledger is full. Calls that run already are ended by the core.

    \b
    Example:
      safety-wrapper stop
    """
    path, told = _stop_file(), False
    try:
        _press(path)
    except PermissionError:
        # An administrator who is not root may not write there, but may ask the core to.
        told = _tell("stop", scope="all")
        if not told:
            raise
    told = told or _tell("stop", scope="all")
    if as_json:
        admin.print_json({"stopped": True, "core_told": told})
    else:
        click.echo("Stopped: nothing runs until `safety-wrapper start-agents`.")
        if not told:
            click.echo("The core did not answer; it will see the button before its next run.")


@click.command(name="start-agents")
@admin.json_option
@click.pass_context
def start_agents(ctx: click.Context, *, as_json: bool) -> None:
    """Release the stop button.

    \b
    Example:
      safety-wrapper start-agents
    """
    path, told = _stop_file(), False
    try:
        path.unlink(missing_ok=True)
    except PermissionError:
        told = _tell("start_agents")
        if not told:
            raise
    told = told or _tell("start_agents")
    if as_json:
        admin.print_json({"stopped": False, "core_told": told})
    elif told:
        click.echo("Released: agents may work again, within the policy in force.")
    else:
        click.echo("Released, but the core is not running: agents wait until `safety-wrapper up`.")
    ctx.exit(failures.OK if told else failures.NOT_RUNNING)


def _press(path: Path) -> None:
    """Create the file durably: a power cut right after must not release the button."""
    content = json.dumps({"at": int(time.time()), "uid": os.getuid()}).encode()
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(descriptor, content)
        if os.getuid() == 0:  # the core must be able to release what root pressed
            owner = path.parent.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _tell(verb: str, **body: str) -> bool:
    """Tell the core, if it is there. The file alone decides; this only makes it quicker."""
    try:
        admin.ask(verb, **body)
    except (failures.Failure, WireError, ConfigError, OSError):
        return False
    return True


def _stop_file() -> Path:
    """The button's place, also from a configuration that is no longer valid as a whole."""
    try:
        return admin.settings().paths.stop_file
    except ConfigError as exc:
        from safety_wrapper import config

        given = click.get_current_context().find_root().obj
        try:
            state = json.loads(Path(given or config.DEFAULT_PATH).read_bytes())["paths"]["state"]
            return config.Paths(state=state).stop_file
        except (OSError, ValueError, LookupError, TypeError):
            raise failures.Failure(
                f"the stop button's place is not known: {exc.message}",
                do="create the file stop/stopped in the state folder by hand, or stop the gateway's service",
                exit_code=failures.USAGE,
                code="config",
            ) from exc
