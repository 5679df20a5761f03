"""The command line: one click group, one file per noun, loaded when its command is used.

Importing this module imports click and nothing else, so that ``safety-wrapper --help`` answers at once. What each
command means stands in its own file; how failures are shown and which exit code they give, in ``failures``.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final, NoReturn

import click

#: Command → (module:object, its one line of purpose). A test compares the lines with the commands' own.
COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "approvals": ("approvals:approvals", "See and decide the calls that wait for an owner's yes."),
    "audit": ("audit:audit", "Read, search, check and export the audit log."),
    "config": ("config_cmd:config_group", "Check the configuration and put it into force."),
    "demo": ("demo:demo", "Show a guarded agent in a temporary folder, with nothing to set up."),
    "doctor": ("doctor:doctor", "Probe this machine for what the guard needs."),
    "gate": ("owner:gate", "See and set what may leave the tenant unasked."),
    "level": ("owner:level", "See and set how far an agent may go without asking."),
    "openclaw": ("openclaw:openclaw", "Install, remove and examine the guard inside the gateway."),
    "policy": ("policy:policy", "Write, check, sign and install policy bundles."),
    "runner": ("serve:runner", "The process that runs commands."),
    "serve": ("serve:serve", "Run the core: decide, record, ask."),
    "start-agents": ("control:start_agents", "Release the stop button."),
    "status": ("status:status", "Say whether this machine is protected now."),
    "stop": ("control:stop", "Press the stop button: from now on nothing runs."),
    "tenant": ("owner:tenant", "See and set what belongs to the tenant."),
    "up": ("serve:up", "Start all processes and watch them."),
    "waker": ("serve:waker", "Wake agents whose request was decided."),
}


class LazyGroup(click.Group):
    """The main group. Sub-commands are imported when they are used; every failure ends in one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # click's own signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, name = entry[0].partition(":")
        command = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        if not isinstance(command, click.Command):
            raise TypeError(f"{entry[0]} is no command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, purpose) for name, (_, purpose) in COMMANDS.items()])

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002  # click's own signature
        **extra: Any,
    ) -> Any:
        given = list(sys.argv[1:] if args is None else args)
        try:
            code = super().main(given, prog_name, complete_var, standalone_mode=False, **extra)
        except (Exception, KeyboardInterrupt) as exc:  # the one place where every failure ends
            if not standalone_mode:
                raise
            _fail(exc, as_json="--json" in given)
        if not standalone_mode:
            return code
        sys.exit(code if type(code) is int else 0)


def _fail(exc: BaseException, *, as_json: bool) -> NoReturn:
    from safety_wrapper.cli import failures

    sys.exit(failures.show(exc, as_json=as_json))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done or protected, 1 a finding, 2 wrong usage, 3 not running, 4 not permitted, "
    "5 damaged data, 6 waits for approval, 124 deadline, 130 interrupted.",
)
@click.option("--config", "config_path", metavar="FILE", envvar="SAFETY_WRAPPER_CONFIG", help="config.json to use.")
@click.version_option(package_name="safety-wrapper")
@click.pass_context
def main(ctx: click.Context, config_path: str | None) -> None:
    """A guard between an AI agent and everything it can touch."""
    ctx.obj = config_path
