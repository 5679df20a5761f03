"""Every failure of the command line: one line that says what to do, one exit code, never a traceback.

Exit codes: 0 done or protected · 1 a finding · 2 wrong usage · 3 not running · 4 not permitted · 5 damaged or
untrusted data · 6 waits for approval · 124 deadline · 130 interrupted. Source: docs/reference/schemas.md.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click

from safety_wrapper import errors
from safety_wrapper.cli.escape import prose

OK: Final = 0
FINDING: Final = 1
USAGE: Final = 2
NOT_RUNNING: Final = 3
NOT_PERMITTED: Final = 4
DAMAGED: Final = 5
WAITS: Final = 6
DEADLINE: Final = 124
INTERRUPTED: Final = 130

NOT_RUNNING_DO: Final = "start it with `safety-wrapper up`, or look at `systemctl status safety-wrapper.target`"
_NOT_PERMITTED_DO: Final = "run this as root, or as a member of the group that may administer"
_BY_WIRE_CODE: Final = {
    "not_permitted": (NOT_PERMITTED, _NOT_PERMITTED_DO),
    "unavailable": (NOT_RUNNING, "look at `safety-wrapper status`"),
    "deadline": (DEADLINE, "try again; if it stays so, look at `safety-wrapper doctor`"),
    "busy": (FINDING, "try again in a second"),
    "bad_request": (USAGE, "check the id and the values given"),
    "unknown_verb": (USAGE, "the core is of another version: restart it"),
}
#: First match wins, so the narrow classes stand before the wide ones.
_BY_CLASS: Final[tuple[tuple[type[errors.SafetyError], int, str], ...]] = (
    (errors.RefusedError, FINDING, "look at the request again with `safety-wrapper approvals show ID`"),
    (errors.PluginLoadError, DAMAGED, "compare `safety-wrapper config plugins` with what you installed"),
    (errors.ConfigError, USAGE, "correct the configuration, then run `safety-wrapper config apply`"),
    (errors.BundleError, DAMAGED, "get the bundle again from its author; the last good one stays in force"),
    (errors.LedgerCorruptError, DAMAGED, "keep the file, and restore the ledger from a backup"),
    (errors.CanonicalError, DAMAGED, "the data is not what it claims to be: get it again"),
    (errors.DeadlineError, DEADLINE, "try again; if it stays so, look at `safety-wrapper doctor`"),
    (errors.RunnerError, NOT_RUNNING, "look at `safety-wrapper doctor`"),
    (errors.SafetyError, FINDING, "look at `safety-wrapper doctor`"),
)


class Failure(click.ClickException):
    """A command's own failure: what happened, what to do, which exit code."""

    def __init__(self, message: str, *, do: str, exit_code: int = FINDING, code: str = "failed") -> None:
        super().__init__(message)
        self.do = do
        self.exit_code = exit_code  # type: ignore[misc]  # a class variable of click that click reads by instance
        self.code = code


@dataclass(frozen=True, slots=True)
class Shown:
    """What is printed of a failure."""

    exit_code: int
    code: str
    message: str
    do: str


def show(exc: BaseException, *, as_json: bool) -> int:
    """Print ``exc`` as one line on standard error (or one object on standard output); the exit code."""
    if isinstance(exc, BrokenPipeError):
        # The reader of our output left, as `head` does: nothing more can be said on it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FINDING
    shown = explain(exc)
    if as_json:
        error = {"code": shown.code, "message": shown.message, "do": shown.do}
        click.echo(json.dumps({"error": error}))
    else:
        click.echo(
            f"safety-wrapper: {prose(shown.message)}" + (f". Do: {prose(shown.do)}" if shown.do else ""), err=True
        )
    return shown.exit_code


def explain(exc: BaseException) -> Shown:
    """What an exception means to the person at the terminal. Total: an unknown one is an internal error."""
    match exc:
        case click.ClickException() | click.Abort() | KeyboardInterrupt():
            return _of_command(exc)
        case errors.SafetyError():
            return _of_engine(exc)
        case OSError():
            return _of_system(exc)
        case _:
            return Shown(FINDING, "internal", f"internal error ({_place(exc)})", "report it with what you did")


def _place(exc: BaseException) -> str:
    """Kind and place of an unknown exception; its text may hold a value and is not shown."""
    frames = traceback.extract_tb(exc.__traceback__)
    where = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
    return type(exc).__name__ + where


def _of_command(exc: BaseException) -> Shown:
    if isinstance(exc, Failure):
        return Shown(exc.exit_code, exc.code, exc.message, exc.do)
    if isinstance(exc, click.UsageError) and exc.ctx is not None and not exc.ctx.args and "Usage:" in exc.message:
        return Shown(USAGE, "usage", "a command is missing", f"look at `{exc.ctx.command_path} --help`")
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "safety-wrapper"
        return Shown(USAGE, "usage", exc.format_message().rstrip(".?"), f"look at `{command} --help`")
    if isinstance(exc, click.ClickException):
        return Shown(exc.exit_code, "failed", exc.format_message(), "")
    return Shown(INTERRUPTED, "interrupted", "interrupted", "")


def _of_engine(exc: errors.SafetyError) -> Shown:
    if isinstance(exc, errors.WireError):
        exit_code, do = _BY_WIRE_CODE.get(exc.code, (FINDING, "look at the core's log"))
    else:
        exit_code, do = next((code, do) for kind, code, do in _BY_CLASS if isinstance(exc, kind))
    return Shown(exit_code, exc.code, exc.message, exc.do or do)


def _of_system(exc: OSError) -> Shown:
    if isinstance(exc, TimeoutError):
        return Shown(DEADLINE, "deadline", "no answer in time", "try again, or look at `safety-wrapper doctor`")
    if isinstance(exc, PermissionError):
        return Shown(NOT_PERMITTED, "not_permitted", "not permitted", _NOT_PERMITTED_DO)
    if isinstance(exc, ConnectionError) or exc.errno in {errno.ECONNREFUSED, errno.ENOENT}:
        return Shown(NOT_RUNNING, "unavailable", "the core is not running", NOT_RUNNING_DO)
    return Shown(FINDING, "failed", exc.strerror or "the system refused", "look at `safety-wrapper doctor`")
