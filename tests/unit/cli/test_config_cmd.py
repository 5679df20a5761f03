"""config.yaml for people, config.json for daemons, and nothing in between."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safety_wrapper import registry
from safety_wrapper.registry import InstalledPlugin
from unit.cli.conftest import Run


def test_apply_writes_what_daemons_read(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").unlink()
    ran = run("config", "apply", "--file", "config.yaml", "--json")
    assert ran.code == 0
    assert ran.json["changed"] is True
    assert json.loads((tmp_path / "config.json").read_text())["tenant"] == "ten_test"
    assert run("config", "apply", "--file", "config.yaml", "--json").json["changed"] is False


def test_apply_finds_the_file_beside_the_json(run: Run) -> None:
    assert run("config", "apply").code == 0


@pytest.mark.parametrize(
    "text",
    [
        "version: 1\nnonsense: 1\n",
        "version: 2\n",
        "version: 1\nversion: 1\n",
        "a: &x 1\nb: *x\n",
        "paths: {state: relative}\n",
        "- a list\n",
        "gateway: {agents: {main: {workspace: missing}}}\n",
    ],
)
def test_what_does_not_hold_is_not_written(run: Run, tmp_path: Path, text: str) -> None:
    before = (tmp_path / "config.json").read_text()
    (tmp_path / "config.yaml").write_text(text)
    ran = run("config", "apply", "--file", "config.yaml")
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert (tmp_path / "config.json").read_text() == before


def test_the_environment_does_not_get_into_the_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAFETY_WRAPPER_LIMITS__BURST", "7")
    run("config", "apply", "--file", "config.yaml")
    assert json.loads((tmp_path / "config.json").read_text())["limits"]["burst"] == 60
    assert run("config", "show", "--json").json["limits"]["burst"] == 7


def test_a_missing_file(run: Run, tmp_path: Path) -> None:
    assert run("config", "apply", "--file", "elsewhere.yaml").code == 2
    (tmp_path / "config.json").unlink()
    assert run("config", "show").code == 2


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> list[InstalledPlugin]:
    found = [InstalledPlugin("classification", "sw-classification", "0.1.0", "ab" * 32, False, None)]  # type: ignore[arg-type]
    monkeypatch.setattr(registry, "find_installed", lambda: found)
    return found


def test_the_allow_list_is_written_and_compared(run: Run, tmp_path: Path, installed: list[InstalledPlugin]) -> None:
    assert "not listed" in run("config", "plugins").out
    ran = run("config", "plugins", "--write", "--json")
    assert ran.code == 0
    assert ran.json["plugins"][0]["state"] == "listed"
    assert json.loads((tmp_path / "config.json").read_text())["plugins"][0]["sha256"] == "ab" * 32
    text = (tmp_path / "config.yaml").read_text()
    assert "# the allow list" in text
    assert "gateway: {profile: recommended}" in text


def test_a_changed_plugin_is_a_finding(run: Run, installed: list[InstalledPlugin]) -> None:
    run("config", "plugins", "--write")
    assert run("config", "plugins").code == 0
    installed[0] = InstalledPlugin("classification", "sw-classification", "0.1.0", "cd" * 32, False, None)  # type: ignore[arg-type]
    ran = run("config", "plugins")
    assert ran.code == 1
    assert "differs" in ran.out


def test_settings_and_other_entries_stay(run: Run, tmp_path: Path, installed: list[InstalledPlugin]) -> None:
    text = (tmp_path / "config.yaml").read_text()
    block = (
        "plugins:\n- name: classification\n  version: '0.0.1'\n"
        f"  sha256: {'ab' * 32}\n  settings: {{a: 1}}\n\n"
        f"- {{name: other, version: '1.0', sha256: {'cd' * 32}}}\n"
    )
    (tmp_path / "config.yaml").write_text(text.replace("plugins: []\n", block))
    ran = run("config", "plugins", "classification", "--write", "--json")
    assert ran.code == 1  # the other one is listed and not installed
    entries = json.loads((tmp_path / "config.json").read_text())["plugins"]
    assert [(entry["name"], entry["settings"]) for entry in entries] == [("classification", {"a": 1}), ("other", {})]


def test_a_plugin_that_is_not_installed(run: Run, installed: list[InstalledPlugin]) -> None:
    assert run("config", "plugins", "firewall", "--write").code == 2


def test_prepare_makes_folders_and_key_once(run: Run, tmp_path: Path) -> None:
    assert run("config", "prepare").code == 0
    key = tmp_path / "state" / "core" / "ledger.key"
    before = key.read_bytes()
    assert run("config", "prepare", "--json").code == 0
    assert key.read_bytes() == before
    assert (tmp_path / "run" / "runner").is_dir()


def test_warnings(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.yaml").chmod(0o666)
    warnings = run("config", "apply", "--json").json["warnings"]
    assert any("written by others" in warning for warning in warnings)
    assert any("one user" in warning for warning in warnings)
