"""The units ship with the package, start real commands, and keep each process to its one right."""

from __future__ import annotations

import importlib.resources
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from safety_wrapper.cli import COMMANDS, main

UNITS = sorted(
    path.name for path in (importlib.resources.files("safety_wrapper") / "systemd").iterdir() if "." in path.name
)
SERVICES = [name for name in UNITS if name.endswith(".service")]
PROGRAM = "/opt/safety-wrapper/bin/safety-wrapper "


def text(unit: str) -> str:
    return (importlib.resources.files("safety_wrapper") / "systemd" / unit).read_text()


def values(unit: str, key: str) -> list[str]:
    return [line.partition("=")[2] for line in text(unit).splitlines() if line.startswith(f"{key}=")]


def test_these_are_the_units() -> None:
    names = ("core.service", "prepare.service", "runner.service", "waker.service")
    assert sorted([*(f"safety-wrapper-{name}" for name in names), "safety-wrapper.target"]) == UNITS


@pytest.mark.parametrize("unit", SERVICES)
def test_a_unit_starts_a_command_that_exists(unit: str) -> None:
    (start,) = values(unit, "ExecStart")
    assert start.startswith(PROGRAM)
    name, *rest = start.removeprefix(PROGRAM).split()
    assert name in COMMANDS
    context = main.make_context("safety-wrapper", [name, *rest, "--help"], resilient_parsing=True)
    command = main.get_command(context, name)
    for word in rest:
        command = command.get_command(context, word)  # type: ignore[union-attr]
    assert command is not None


@pytest.mark.parametrize("unit", SERVICES)
def test_no_unit_gains_rights(unit: str) -> None:
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictRealtime", "LockPersonality"):
        assert values(unit, key) == ["yes"], key
    assert values(unit, "UMask") == ["0077"]
    assert values(unit, "CapabilityBoundingSet")


def test_each_process_has_its_own_user() -> None:
    assert values("safety-wrapper-core.service", "User") == ["safety-wrapper"]
    assert values("safety-wrapper-runner.service", "User") == ["sw-exec"]


def test_the_runner_has_a_cgroup_and_can_make_sandboxes() -> None:
    unit = "safety-wrapper-runner.service"
    assert values(unit, "Delegate") == ["memory pids"]
    for key in ("RestrictNamespaces", "ProtectControlGroups", "ProtectKernelTunables", "ProtectProc", "PrivateDevices"):
        assert not values(unit, key), f"{key} keeps sandboxes from being made"
    assert "/var/lib/safety-wrapper" in values(unit, "InaccessiblePaths")[0]


def test_systemd_takes_them(tmp_path: Path) -> None:
    for unit in UNITS:
        (tmp_path / unit).write_text(re.sub(r"(?m)^ExecStart=.*$", "ExecStart=/bin/true", text(unit)))
    program = shutil.which("systemd-analyze")
    assert program, "systemd-analyze is missing: install systemd"
    command = [program, "verify", "--man=no", *(str(tmp_path / unit) for unit in UNITS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    ours = [line for line in done.stderr.splitlines() if "safety-wrapper" in line]
    assert not ours
