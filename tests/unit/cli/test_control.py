"""The stop button works without anything that could be broken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from safety_wrapper.cli import control
from unit.cli.conftest import Run
from unit.cli.fake_core import Served


def button(folder: Path) -> Path:
    return folder / "state" / "stop" / "stopped"


def test_stop_without_a_core(run: Run, tmp_path: Path) -> None:
    ran = run("stop")
    assert ran.code == 0
    assert button(tmp_path).exists()
    assert "did not answer" in ran.out


def test_stop_tells_a_running_core(served: Served, run: Run, tmp_path: Path) -> None:
    assert run("stop", "--json").json == {"stopped": True, "core_told": True}
    assert button(tmp_path).exists()
    assert ("stop", {"scope": "all"}) in served.core.asked


def test_stop_twice_is_stop(run: Run, tmp_path: Path) -> None:
    assert run("stop").code == run("stop").code == 0
    assert button(tmp_path).exists()


def test_start_agents_releases(served: Served, run: Run, tmp_path: Path) -> None:
    run("stop")
    assert run("start-agents").code == 0
    assert not button(tmp_path).exists()


def test_start_agents_without_a_core_says_so(run: Run, tmp_path: Path) -> None:
    run("stop")
    assert run("start-agents").code == 3
    assert not button(tmp_path).exists()


def test_stop_with_a_broken_configuration(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"paths": {"state": f"{tmp_path}/state"}, "nonsense": 1}))
    assert run("status").code == 2
    assert run("stop").code == 0
    assert button(tmp_path).exists()


def test_stop_with_no_configuration_says_what_to_do_by_hand(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config.json").unlink()
    ran = run("stop")
    assert ran.code == 2
    assert "by hand" in ran.err


def test_an_administrator_without_the_folders_rights_asks_the_core(
    served: Served, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path) -> None:
        raise PermissionError(13, "denied")

    monkeypatch.setattr(control, "_press", closed)
    assert run("stop", "--json").json == {"stopped": True, "core_told": True}
    served.stop()
    assert run("stop").code == 4


def test_the_button_is_no_link_to_elsewhere(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "precious"
    other.write_text("precious")
    button(tmp_path).parent.mkdir()
    button(tmp_path).symlink_to(other)
    assert run("stop").code == 1
    assert other.read_text() == "precious"
