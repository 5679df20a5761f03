"""The same examples against a real installation: real core, real ledger, real runner, nothing in their places."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from unit.cli.conftest import Run, live_installation

EXAMPLES = (
    "status --json",
    "level show",
    'level set 1 --reason "new agent"',
    "level set 1 --agent main",
    "gate show",
    "gate set locked",
    "tenant show",
    "tenant set-domains example.com example.org",
    "tenant add-service wiki.example.com 443 10.0.0.7",
    "tenant remove-service wiki.example.com 443",
    "approvals list",
    "approvals list --state denied",
    "audit tail -n 5",
    "audit search --outcome block --since 1d",
    "audit search --kind owner",
    "audit verify",
    "audit keys",
    "audit report",
    "audit export audit.jsonl",
    "config show",
    "policy state",
)


@pytest.fixture(scope="module")
def live() -> Iterator[Path]:
    """The configuration of an installation whose processes run."""
    with live_installation() as config:
        environ = {**os.environ, "SAFETY_WRAPPER_CONFIG": str(config)}
        process = subprocess.Popen([sys.executable, "-m", "safety_wrapper", "up"], env=environ, stderr=subprocess.PIPE)
        try:
            socket = config.parent / "run" / "admin" / "admin.sock"
            for _ in range(600):
                if socket.exists() or process.poll() is not None:
                    break
                time.sleep(0.05)
            assert socket.exists()
            yield config
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


@pytest.fixture
def run_live(run: Run, live: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command against the live installation; its folder is a fresh one."""
    monkeypatch.setenv("SAFETY_WRAPPER_CONFIG", str(live))
    return run


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_on_a_real_installation(run_live: Run, line: str) -> None:
    ran = run_live(*shlex.split(line))
    assert ran.code == 0, ran.err or ran.out
    assert ran.out


def test_status_says_protected_only_when_nothing_is_stopped(run_live: Run) -> None:
    assert run_live("status").code == 0
    assert run_live("stop", "--json").json == {"stopped": True, "core_told": True}
    assert run_live("status").code == 1
    assert run_live("start-agents").code == 0
    assert run_live("status").code == 0


def test_the_doctor_reads_the_machine_and_asks_the_core(run_live: Run) -> None:
    told = run_live("doctor", "--json").json
    assert told["running"] is True
    found = {check["name"]: check for check in told["checks"]}
    for name in ("admin.sock", "agent.sock", "runner.sock", "ledger key", "core: ledger", "core: policy"):
        assert found[name]["ok"], found[name]


def test_what_is_exported_can_be_checked_elsewhere(run_live: Run, tmp_path: Path) -> None:
    (key,) = run_live("audit", "keys", "--json").json["public_keys"].values()
    assert run_live("audit", "export", "log.jsonl").code == 0
    assert run_live("audit", "verify", "log.jsonl", "--key", key).code == 0
    data = (tmp_path / "log.jsonl").read_bytes()
    (tmp_path / "log.jsonl").write_bytes(data.replace(b'"kind":"plan"', b'"kind":"stop"'))
    assert run_live("audit", "verify", "log.jsonl").code == 5


def test_an_id_that_is_not_there(run_live: Run) -> None:
    assert run_live("approvals", "show", "apr_01JD000000000000000000000B").code == 2
    assert run_live("approvals", "list", "--state", "pending").code == 0


def test_a_refused_statement_is_a_finding_in_words(run_live: Run) -> None:
    ran = run_live("level", "set", "1", "--agent", "*/../x")
    assert ran.code in {1, 2}
    assert ran.err.startswith("safety-wrapper: ")
