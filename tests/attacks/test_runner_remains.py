"""A hostile program tries to outlive its end, or to keep the runner waiting. Nothing of it stays."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.runner.protocol import Limits, RunOutcome, RunRequest
from unit.runner.harness import RunnerProcess, job_name, jobs_are, place, sandboxes, started, wait_for

pytestmark = pytest.mark.sandbox
LONG = Limits(wall_s=60)
#: Forks twice, leaves its session, ignores what can be ignored, closes nothing.
DAEMON = """
import os, signal, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for number in range(1, 65):
            try: signal.signal(number, signal.SIG_IGN)
            except (OSError, ValueError): pass
        open("/work/daemon", "w").close()
        {then}
    os._exit(0)
while not os.path.exists("/work/daemon"): time.sleep(0.01)
os.unlink("/work/daemon")
print("parent done", flush=True)
{end}
"""


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    with place() as installation, started(installation) as running:
        running.shell("true")
        before = len(list(Path(f"/proc/{running.pid}/fd").iterdir()))
        yield running
        assert sandboxes(running) == []
        wait_for(lambda: not Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().strip())
        assert len(list(Path(f"/proc/{running.pid}/fd").iterdir())) <= before, "descriptors are left in the runner"


def test_a_daemon_does_not_outlive_its_command(runner: RunnerProcess) -> None:
    """It also holds stdout open: the run ends all the same, by itself and not at its time limit."""
    outcome = runner.python(DAEMON.format(then="time.sleep(1000)", end=""), limits=LONG)
    assert (outcome.ended, outcome.exit, outcome.stdout) == ("exit", 0, "parent done\n")
    assert sandboxes(runner) == []


def test_a_daemon_lives_as_long_as_its_command(runner: RunnerProcess) -> None:
    """The twin: it is the end of the command that ends it."""
    wait = "time.sleep(0.5); print(os.path.exists('/work/still'))"
    outcome = runner.python(DAEMON.format(then="open('/work/still', 'w').close(); time.sleep(1000)", end=wait))
    assert outcome.stdout == "parent done\nTrue\n"


@pytest.mark.parametrize("way", ["kill", "timeout", "flood"])
def test_a_daemon_does_not_outlive_a_kill(runner: RunnerProcess, way: str) -> None:
    then = {"flood": "[print('x' * 60000) for _ in range(1000)]"}.get(way, "time.sleep(1000)")
    code = DAEMON.format(then=then, end="time.sleep(1000)")

    async def talk(client: RunnerClient) -> RunOutcome:
        name = job_name()
        limits = Limits(wall_s=2 if way == "timeout" else 60)
        task = asyncio.create_task(client.run(RunRequest(name, ("/usr/bin/python3", "-c", code), limits=limits)))
        await jobs_are(client, 1)
        if way == "kill":
            await asyncio.sleep(0.3)
            await client.kill(name)
        return await task

    assert runner.ask(talk).ended == {"kill": "killed", "timeout": "timeout", "flood": "output_limit"}[way]
    assert sandboxes(runner) == []


def test_a_stopped_process_is_killed_all_the_same(runner: RunnerProcess) -> None:
    outcome = runner.shell("sleep 1000 & kill -STOP $!; kill -STOP $$; sleep 1000", limits=Limits(wall_s=1))
    assert outcome.ended == "timeout"
    assert sandboxes(runner) == []


def test_closing_its_output_does_not_end_or_hide_a_run(runner: RunnerProcess) -> None:
    outcome = runner.shell("echo first; exec >&- 2>&-; sleep 1000", limits=Limits(wall_s=1))
    assert (outcome.ended, outcome.stdout) == ("timeout", "first\n")
    assert runner.shell("echo first; exec >&- 2>&-; exit 4").exit == 4


def test_killing_the_sandboxs_first_process_gains_nothing(runner: RunnerProcess) -> None:
    outcome = runner.shell("kill -9 1; kill -TERM 1; sleep 0.1; echo alive")
    assert outcome.stdout == "alive\n"
    assert sandboxes(runner) == []


def test_a_descriptor_handed_to_the_outside_holds_nothing_up(runner: RunnerProcess) -> None:
    """A socket in the workspace lets a process outside receive the run's stdout. The run's end does not wait for it."""
    path = runner.place.work / "give.sock"
    code = (
        "import socket; s = socket.socket(socket.AF_UNIX); s.connect('/work/give.sock')\n"
        "socket.send_fds(s, [b'x'], [1, 2]); print('given')"
    )
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        path.chmod(0o777)
        server.listen()
        outcome = runner.python(code, limits=LONG)
        connection, _ = server.accept()
        with connection:
            _, held, _, _ = socket.recv_fds(connection, 1, 2)
        for fd in held:
            os.close(fd)
    assert (outcome.ended, outcome.stdout) == ("exit", "given\n")
    assert len(held) == 2
