"""The doctor looks at the machine itself."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safety_wrapper import config
from safety_wrapper.cli import probes
from safety_wrapper.config import Config
from unit.cli.conftest import Run
from unit.cli.fake_core import Served


@pytest.fixture
def settings(tmp_path: Path) -> Config:
    paths = {name: str(tmp_path / name) for name in ("state", "run", "bundle")}
    for name in ("state/core", "run/admin", "run/agent", "run/runner"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    return config.parse({"paths": paths}, {})


def found(probe_list: list[probes.Probe], name: str) -> probes.Probe:
    return next(probe for probe in probe_list if probe.name == name)


def test_it_asks_the_core_too(served: Served, run: Run) -> None:
    checks = run("doctor", "--json").json["checks"]
    assert any(check["name"] == "core: ledger" for check in checks)
    assert {"python", "sandbox", "clock", "disk", "users"} <= {check["name"] for check in checks}


def test_a_failing_check_is_a_finding(served: Served, run: Run) -> None:
    served.core.checks[0]["ok"] = False
    ran = run("doctor")
    assert ran.code == 1
    assert "NOT OK" in ran.out


def test_without_a_core(run: Run) -> None:
    ran = run("doctor", "--json")
    assert ran.json["running"] is False
    assert ran.code in {1, 3}


def test_the_sandbox_is_tried(settings: Config) -> None:
    assert found(probes.sandbox(settings), "sandbox").ok


def test_no_sandbox(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    assert not found(probes.sandbox(settings), "sandbox").ok


@pytest.mark.parametrize(("mode", "ok"), [(0o400, True), (0o600, True), (0o440, False), (0o644, False)])
def test_the_ledgers_key(settings: Config, mode: int, ok: bool) -> None:
    key = settings.paths.ledger_key
    key.write_bytes(b"k" * 32)
    key.chmod(mode)
    assert found(probes.keys(settings), "ledger key").ok is ok


def test_a_key_with_a_second_name(settings: Config) -> None:
    key = settings.paths.ledger_key
    key.write_bytes(b"k" * 32)
    key.chmod(0o400)
    os.link(key, key.with_name("copy"))
    assert not found(probes.keys(settings), "ledger key").ok


@pytest.mark.parametrize(("mode", "ok"), [(0o660, True), (0o666, False)])
def test_a_socket_that_others_may_open(served: Served, settings: Config, mode: int, ok: bool) -> None:
    served.folder.joinpath("run/admin/admin.sock").chmod(mode)
    assert found(probes.sockets(settings), "admin.sock").ok is ok


def test_a_file_in_the_place_of_a_socket(settings: Config) -> None:
    settings.paths.admin_socket.write_text("")
    assert not found(probes.sockets(settings), "admin.sock").ok


def test_one_user_for_all_is_weaker(settings: Config) -> None:
    probe = found(probes.users(settings), "users")
    assert (probe.ok, probe.weaker) == (True, True)


@pytest.mark.parametrize(
    ("users", "ok"),
    [
        ({"core": 64101, "runner": 64103, "gateway": 64104}, True),
        ({"core": 64101, "runner": 64101, "gateway": 64104}, False),
        ({"core": 64101, "runner": 0, "gateway": 64104}, False),
        ({"core": "no-such-user", "runner": 64103}, False),
    ],
)
def test_users(users: dict[str, object], ok: bool) -> None:
    assert found(probes.users(config.parse({"users": users}, {})), "users").ok is ok


@pytest.mark.parametrize(("mode", "ok"), [(0o644, True), (0o646, False)])
def test_the_gateways_configuration(tmp_path: Path, mode: int, ok: bool) -> None:
    path = tmp_path / "openclaw.json"
    path.write_text("{}")
    path.chmod(mode)
    settings = config.parse({"gateway": {"config": str(path)}, "users": {"gateway": 64104}}, {})
    assert found(probes.gateway(settings), "gateway config").ok is ok
    path.unlink()
    assert not found(probes.gateway(settings), "gateway config").ok


def test_a_probe_that_fails_is_a_finding(settings: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(config: Config) -> list[probes.Probe]:
        raise OSError(5, "input/output error")

    broken.__name__ = "disk"
    monkeypatch.setattr(probes, "disk", broken)
    assert not found(probes.all_of(settings), "disk").ok
