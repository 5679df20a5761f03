"""The main command: quick, lazy, and its table says what the commands say."""

from __future__ import annotations

import importlib
import subprocess
import sys

import click
import pytest

from safety_wrapper.cli import COMMANDS, main
from unit.cli.conftest import Run


def loaded_by(code: str) -> set[str]:
    script = f"import sys; before = set(sys.modules); {code}; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return {name.partition(".")[0] for name in done.stdout.split()} | set(done.stdout.split())


def test_importing_the_command_line_imports_click_alone() -> None:
    loaded = loaded_by("import safety_wrapper.cli")
    ours = {name for name in loaded if name.startswith("safety_wrapper.")}
    assert ours == {"safety_wrapper.cli"}
    assert "click" in loaded
    assert not loaded & {"pydantic", "orjson", "rich", "yaml", "cryptography", "asyncio", "pluggy"}


def test_help_imports_no_command(run: Run) -> None:
    code = "import safety_wrapper.cli as c; c.main.main(['--help'], standalone_mode=False)"
    assert {name for name in loaded_by(code) if name.startswith("safety_wrapper.")} == {"safety_wrapper.cli"}
    out = " ".join(run("--help").out.split())
    for name, (_, purpose) in COMMANDS.items():
        assert f" {name} {purpose} " in out


@pytest.mark.parametrize("name", COMMANDS)
def test_the_table_says_what_the_command_says(name: str) -> None:
    target, purpose = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(f"safety_wrapper.cli.{module}"), attribute)
    assert isinstance(command, click.Command)
    assert command.get_short_help_str(200) == purpose


def test_an_unknown_command(run: Run) -> None:
    ran = run("guard")
    assert ran.code == 2
    assert "look at `safety-wrapper --help`" in ran.err


def test_a_command_may_be_called_from_code() -> None:
    with pytest.raises(click.UsageError):
        main.main(["guard"], standalone_mode=False)


def test_version(run: Run) -> None:
    assert run("--version").out.startswith("safety-wrapper, version ")
