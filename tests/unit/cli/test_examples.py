"""Every command has one line of purpose and an example, and every example runs."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from safety_wrapper.cli import COMMANDS, main
from unit.cli import fake_core
from unit.cli.conftest import Run
from unit.cli.fake_core import Served

ROOT = Path(__file__).parents[3]
#: Commands that stay in the foreground until a signal: started as processes, ended when they answer.
DAEMONS = frozenset({"safety-wrapper serve", "safety-wrapper runner run", "safety-wrapper up", "safety-wrapper waker"})
#: Commands whose examples need the gateway or play whole scenes; each has its own test.
ELSEWHERE = {
    "safety-wrapper demo": "tests/integration",
    "safety-wrapper openclaw": "tests/integration",
}
#: What must be there before an example, as commands; first match by the example's beginning.
BEFORE = {
    "safety-wrapper audit verify audit.jsonl": ["audit export audit.jsonl"],
    "safety-wrapper policy sign": ["policy keys new release.key", "policy build policy_bundles/base --output out"],
    "safety-wrapper policy verify": [
        "policy keys new release.key",
        "policy build policy_bundles/base --output out",
        "policy sign out --key release.key --kid release-1",
    ],
    "safety-wrapper policy keys show": ["policy keys new release.key"],
    "safety-wrapper config plugins --file": ["config plugins --write --file config.yaml"],
    "safety-wrapper policy activate": ["policy build policy_bundles/base --output out"],
}


def leaves(command: click.Command, path: str = "safety-wrapper") -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, with its path."""
    if not isinstance(command, click.Group):
        yield path, command
        return
    context = click.Context(command, info_name=path.rpartition(" ")[2])
    for name in command.list_commands(context):
        child = command.get_command(context, name)
        assert child is not None
        yield from leaves(child, f"{path} {name}")


LEAVES = dict(leaves(main))


def examples(command: click.Command) -> list[str]:
    """The lines of the ``Example:`` block in a command's help."""
    _, _, block = (command.help or "").partition("Example:\n")
    return [line.strip() for line in block.splitlines() if line.strip().startswith("safety-wrapper ")]


EXAMPLES = [(path, line) for path, command in LEAVES.items() for line in examples(command)]


@pytest.mark.parametrize("path", LEAVES)
def test_a_command_has_a_purpose_and_an_example(path: str) -> None:
    command = LEAVES[path]
    purpose = command.get_short_help_str(200)
    assert purpose.endswith(".")
    assert not purpose.endswith("...")
    assert examples(command), "no Example: block"
    assert all(line.startswith(path) for line in examples(command))


@pytest.fixture
def prepared(served: Served, tmp_path: Path) -> Served:
    """What the examples find in their folder: the base policy, a log with a real chain."""
    shutil.copytree(ROOT / "policy_bundles", tmp_path / "policy_bundles")
    served.core.export = fake_core.exported_log(tmp_path)
    served.core.records = [fake_core.record(1, "decision", {"outcome": "block"})]
    return served


def is_elsewhere(path: str) -> bool:
    return path in DAEMONS or any(path.startswith(prefix) for prefix in ELSEWHERE)


@pytest.mark.parametrize("line", [line for path, line in EXAMPLES if not is_elsewhere(path)])
def test_an_example_runs(prepared: Served, run: Run, line: str) -> None:
    for before in next((steps for start, steps in BEFORE.items() if line.startswith(start)), []):
        assert run(*shlex.split(before)).code == 0
    if "PUBLIC_KEY" in line:
        line = line.replace("PUBLIC_KEY", run("policy", "keys", "show", "release.key", "--json").json["ed25519"])
    ran = run(*shlex.split(line)[1:])
    # the doctor may find something on the machine that runs the tests
    assert ran.code in ({0, 1, 3} if "doctor" in line else {0}), ran.err
    assert ran.out


@pytest.mark.parametrize("path", sorted(DAEMONS - {"safety-wrapper waker"}))
def test_a_daemon_starts_answers_and_ends(path: str, live_config: Path) -> None:
    """The example itself, as a process; root runs them as the users of the configuration."""
    (line,) = examples(LEAVES[path])
    environ = {**os.environ, "SAFETY_WRAPPER_CONFIG": str(live_config)}
    command = [sys.executable, "-m", "safety_wrapper", *shlex.split(line)[1:]]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True)
    socket = live_config.parent / "run" / ("runner/runner.sock" if "runner" in path else "admin/admin.sock")
    try:
        for _ in range(600):
            if socket.exists() or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert socket.exists()
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)


def test_the_waker_says_what_it_lacks(run: Run) -> None:
    ran = run("waker")
    assert ran.code == 2
    assert "gateway." in ran.err


def test_the_table_and_the_groups_are_whole() -> None:
    assert {path.split()[1] for path in LEAVES} == COMMANDS.keys()
