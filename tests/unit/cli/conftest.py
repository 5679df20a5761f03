"""The command line, run as a person would, against a core on a real socket."""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from safety_wrapper import identity, installation
from safety_wrapper.cli import base_policy, main
from unit.cli import fake_core
from unit.cli.fake_core import Served


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    """A running core."""
    core = fake_core.start(tmp_path)
    try:
        yield core
    finally:
        core.stop()


@dataclass
class Ran:
    """What one command printed and returned."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        return json.loads(self.out)


type Run = Callable[..., Ran]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one command in the temporary folder, with its configuration."""
    fake_core.write_config(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFETY_WRAPPER_CONFIG", str(tmp_path / "config.json"))

    def run(*args: str, stdin: str | None = None) -> Ran:
        result: Result = CliRunner().invoke(main, list(args), input=stdin, prog_name="safety-wrapper")
        assert "Traceback" not in result.output
        return Ran(result.exit_code, result.stdout, result.stderr)

    return run


@contextlib.contextmanager
def live_installation() -> Iterator[Path]:
    """The configuration of a real installation, in a folder that every user may enter."""
    with tempfile.TemporaryDirectory(prefix="sw-cli-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        made = installation.create(folder, base_policy.compiled())
        installation.lay_out(made.config, identity.resolve(made.config.users))
        yield made.config_path


@pytest.fixture
def live_config() -> Iterator[Path]:
    """As :func:`live_installation`, for one test."""
    with live_installation() as config:
        yield config
