"""``safety-wrapper openclaw``, run as a person would, in a folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from safety_wrapper.bridge import openclaw as bridge
from safety_wrapper.cli import main
from unit.cli.conftest import Ran
from unit.shim.shim import TOOLS

OWNERS = {"models": {"providers": {"p": {"apiKey": "sk-secret"}}}, "commands": {"bash": True}}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, a gateway program, a list of tools and an owner's file."""
    gateway = {"home": str(tmp_path / "home"), "config": str(tmp_path / "openclaw" / "openclaw.json")}
    paths = {"state": str(tmp_path / "state"), "run": "/run/safety-wrapper", "bundle": str(tmp_path / "bundle")}
    (tmp_path / "config.json").write_text(json.dumps({"version": 1, "paths": paths, "gateway": gateway}))
    program = tmp_path / "program"
    program.mkdir()
    (program / "openclaw.mjs").touch()
    (program / "node").touch()
    (program / "package.json").write_text(json.dumps({"version": bridge.GATEWAY_VERSION}))
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    (tmp_path / "owners.json").write_text(json.dumps(OWNERS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAFETY_WRAPPER_CONFIG", str(tmp_path / "config.json"))
    return tmp_path


def run(*args: str, stdin: str | None = None) -> Ran:
    result = CliRunner().invoke(main, ["openclaw", *args], input=stdin, prog_name="safety-wrapper")
    assert "Traceback" not in result.output
    return Ran(result.exit_code, result.stdout, result.stderr)


INSTALL = ("install", "--tools", "tools.json", "--node", "program/node", "--program", "program/openclaw.mjs")


def test_a_dry_run_shows_the_difference_without_credentials_and_writes_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    ran = run(*INSTALL, "--from", "owners.json", "--dry-run")
    assert ran.code == 0
    assert '"bash": false' in ran.out
    assert "sk-secret" not in ran.out
    assert "would be written" in ran.out
    assert sorted(place.rglob("*")) == before


def test_it_asks_and_a_no_writes_nothing(place: Path) -> None:
    ran = run(*INSTALL, stdin="n\n")
    assert ran.code != 0
    assert not (place / "openclaw").exists()
    assert run(*INSTALL, stdin="y\n").code == 0
    assert (place / "openclaw" / "openclaw.json").exists()


def test_install_doctor_uninstall(place: Path) -> None:
    ran = run(*INSTALL, "--from", "owners.json", "--json")
    assert ran.code == 0
    assert ran.json["installed"] is True
    assert all(Path(path).exists() for path in ran.json["files"])

    looked = run("doctor", "--json")
    checks: dict[str, Any] = {check["name"]: check["ok"] for check in looked.json["checks"]}
    assert looked.code == 1  # no core is running here
    assert checks.pop("gateway") is False
    assert all(checks.values())
    assert "core is not running" in run("doctor").out

    away = run("uninstall", "--restore", "restored.json", "--yes", "--json")
    assert away.json == {"removed": True, "former_configuration": "restored.json"}
    assert json.loads((place / "restored.json").read_text()) == OWNERS
    assert run("doctor").code == 1


def test_a_second_install_keeps_what_the_owner_chose(place: Path) -> None:
    run(*INSTALL, "--from", "owners.json", "--yes")
    ran = run(*INSTALL, "--yes")
    assert ran.code == 0
    assert "stays as it is" in ran.out
    assert json.loads((place / "openclaw" / "openclaw.json").read_text())["models"] == OWNERS["models"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("owners.json", "// a comment\n{}"),
        ("owners.json", "[]"),
        ("tools.json", "{"),
        ("tools.json", "{}"),
        ("tools.json", '[{"name": "exec", "description": "", "parameters": {}}]'),
    ],
)
def test_a_file_that_can_not_be_used_is_wrong_usage(place: Path, file: str, content: str) -> None:
    (place / file).write_text(content)
    ran = run(*INSTALL, "--from", "owners.json", "--yes")
    assert ran.code == 2
    assert not (place / "openclaw").exists()


def test_programs_that_are_not_there_are_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(place))
    ran = run("install", "--tools", "tools.json", "--yes")
    assert ran.code == 1
    assert "--node" in ran.err


def test_without_a_bundle_it_says_so(place: Path) -> None:
    ran = run("install", "--node", "program/node", "--program", "program/openclaw.mjs", "--yes")
    assert ran.code not in {0, 130}
    assert not (place / "openclaw").exists()
