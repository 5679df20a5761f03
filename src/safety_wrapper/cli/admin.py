"""How commands reach the core: the configuration, the admin socket, one object as JSON or lines for people."""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from safety_wrapper.cli import failures
from safety_wrapper.errors import RefusedError

if TYPE_CHECKING:
    from safety_wrapper.config import Config
    from safety_wrapper.frames import Client

#: Above the core's own deadline for admin verbs, so that its answer is seen rather than our impatience.
TIMEOUT_S: Final = 12.0


def settings() -> Config:
    """The configuration that this command line uses. Raises ConfigError."""
    from safety_wrapper import config

    path = click.get_current_context().find_root().obj
    if not path and "SAFETY_WRAPPER_CONFIG" not in os.environ and not config.DEFAULT_PATH.exists():
        raise failures.Failure(
            "there is no installation on this machine",
            do="see `safety-wrapper demo`; to install, docs/how-to/install.md; or name a configuration with --config",
            exit_code=failures.NOT_RUNNING,
            code="unavailable",
        )
    return config.load(Path(path) if path else None)


def connect(config: Config | None = None) -> Client:
    """A connection to the core. Raises Failure when the core is away or does not admit us."""
    from safety_wrapper import frames

    path = (config or settings()).paths.admin_socket
    try:
        return frames.Client(path, timeout_s=TIMEOUT_S)
    except PermissionError:
        raise
    except OSError as exc:
        raise failures.Failure(
            "the core is not running",
            do=failures.NOT_RUNNING_DO,
            exit_code=failures.NOT_RUNNING,
            code="unavailable",
        ) from exc


def ask(verb: str, **body: Any) -> dict[str, Any]:
    """One request to the core. Raises as :func:`connect`, WireError with the core's code, or RefusedError."""
    with connect() as client:
        return own_keys(client.call(verb, **body))


def own_keys(answer: dict[str, Any]) -> dict[str, Any]:
    """The verb's own keys of an answer. Raises RefusedError when the core refused what was asked."""
    if "refused" in answer:
        raise RefusedError(str(answer["refused"]), do=str(answer.get("do", "")))
    return {key: value for key, value in answer.items() if key not in {"id", "ok", "_descriptors"}}


def json_option[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """Give a command ``--json``; its body gets ``as_json``."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        return function(*args, **kwargs)

    return wrapped


def print_json(value: dict[str, Any]) -> None:
    """One object on standard output. Pure ASCII: nothing in it can control a terminal."""
    click.echo(json.dumps(value, sort_keys=True))


def plain(value: Any) -> dict[str, Any]:
    """A frozen dataclass of ours as JSON's own types."""
    import dataclasses

    return {name: _plain(item) for name, item in dataclasses.asdict(value).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
