"""The gateway's environment and unit."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from safety_wrapper.bridge.openclaw_unit import EMPTY, UNIT_NAME, GatewayProcess, environment, environment_file, unit
from safety_wrapper.errors import ConfigError

PROCESS = GatewayProcess(
    node=Path("/usr/bin/node"),
    program=Path("/opt/openclaw/openclaw.mjs"),
    home=Path("/var/lib/openclaw"),
    config=Path("/etc/safety-wrapper/openclaw/openclaw.json"),
    folder=Path("/etc/safety-wrapper/openclaw"),
    environment_file=Path("/etc/safety-wrapper/openclaw/gateway.env"),
    user="openclaw",
    run=Path("/run/safety-wrapper"),
    state=Path("/var/lib/safety-wrapper"),
)


def test_every_variable_that_matters_is_set_even_to_nothing() -> None:
    values = environment(PROCESS.home, PROCESS.config)
    for name in ("HTTPS_PROXY", "NO_PROXY", "NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "OPENCLAW_PROFILE", "LD_PRELOAD"):
        assert values[name] == ""
    assert values["OPENCLAW_CONFIG_READONLY"] == "1"
    assert values["OPENCLAW_NO_AUTO_UPDATE"] == "1"
    assert values["OPENCLAW_CONFIG_PATH"] == str(PROCESS.config)
    assert values["OPENCLAW_STATE_DIR"].startswith(values["HOME"])
    assert set(EMPTY) <= set(values)


def test_the_environment_file_has_one_line_for_each() -> None:
    values = environment(PROCESS.home, PROCESS.config)
    lines = environment_file(values).splitlines()
    assert len(lines) == len(values)
    assert 'NODE_OPTIONS=""' in lines


@pytest.mark.parametrize("value", ['a"b', "a\nB=c", "a$b", "a\\b", "`id`"])
def test_a_value_that_could_add_a_line_is_refused(value: str) -> None:
    with pytest.raises(ConfigError):
        environment_file({"A": value})
    assert environment_file({"A": "plain"}) == 'A="plain"\n'


@pytest.mark.parametrize("home", ["/var/lib/a b", "/var/lib/%h", "/var/lib/a\nExecStartPre=/bin/sh", '/x"'])
def test_a_path_that_could_change_the_unit_is_refused(home: str) -> None:
    with pytest.raises(ConfigError):
        unit(replace(PROCESS, home=Path(home)))


def test_the_unit_is_hardened() -> None:
    text = unit(PROCESS)
    for line in (
        "User=openclaw",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/openclaw",
        "RestrictNamespaces=yes",
        "EnvironmentFile=/etc/safety-wrapper/openclaw/gateway.env",
        "ProtectProc=invisible",
        "WorkingDirectory=/etc/safety-wrapper/openclaw",
    ):
        assert line in text.splitlines()
    assert "/run/safety-wrapper/admin" in text
    assert "/run/safety-wrapper/agent" not in text


def test_systemd_takes_the_unit_where_there_is_systemd(tmp_path: Path) -> None:
    for name in ("node", "openclaw.mjs", "gateway.env"):
        (tmp_path / name).touch(mode=0o755)
    process = replace(
        PROCESS,
        node=tmp_path / "node",
        program=tmp_path / "openclaw.mjs",
        folder=tmp_path,
        environment_file=tmp_path / "gateway.env",
        user="root",
    )
    (tmp_path / UNIT_NAME).write_text(unit(process))
    analyze = shutil.which("systemd-analyze") or "/bin/true"
    done = subprocess.run([analyze, "verify", tmp_path / UNIT_NAME], capture_output=True, text=True, check=False)
    assert not [line for line in done.stderr.splitlines() if UNIT_NAME in line and "Unknown" in line], done.stderr
