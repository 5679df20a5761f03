"""A hostile program takes all it can get: processes, output, memory, space. Others are still served."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from safety_wrapper.errors import RunnerError
from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.runner.protocol import FileRequest, Limits, RunOutcome, RunRequest
from unit.runner.harness import RunnerProcess, job_name, jobs_are, place, sandboxes, started

pytestmark = pytest.mark.sandbox
MIB = 1024**2


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    with place() as installation, started(installation) as running:
        yield running


def test_a_fork_bomb_is_bounded_and_others_are_served(runner: RunnerProcess) -> None:
    detonate(runner)


def test_a_fork_bomb_is_bounded_without_a_cgroup() -> None:
    """The kernel then counts by user namespace alone."""
    with place() as installation, started(installation, delegated=False) as running:
        detonate(running)


def detonate(runner: RunnerProcess) -> None:
    bound = Limits(wall_s=3, processes=20)
    most = 0

    async def talk(client: RunnerClient) -> tuple[RunOutcome, list[RunOutcome]]:
        nonlocal most
        bomb = "b() { b | b & }; b; sleep 1000"
        request = RunRequest(job_name(), ("/bin/bash", "-c", bomb), limits=bound)
        task = asyncio.create_task(client.run(request))
        await jobs_are(client, 1)
        others = []
        for _ in range(3):
            await asyncio.sleep(0.3)
            most = max(most, len(sandboxes(runner)))
            others.append(await client.run(RunRequest(job_name(), ("/bin/echo", "served"))))
        return await task, others

    bombed, others = runner.ask(talk)
    assert bombed.ended == "timeout"
    assert [outcome.stdout for outcome in others] == ["served\n"] * 3
    assert 5 < most <= bound.processes + 8
    assert sandboxes(runner) == []
    few = runner.shell(
        "for i in 1 2 3 4 5; do sleep 0.2 & done; wait; echo done", limits=Limits(wall_s=20, processes=20)
    )
    assert few.stdout == "done\n"


def test_threads_count_as_processes(runner: RunnerProcess) -> None:
    start = "threading.Thread(target=time.sleep, args=(0.5,)).start()"
    code = f"import threading, time\nfor _ in range({{}}): {start}\nprint('all')"
    few = Limits(wall_s=20, processes=10, memory_bytes=2048 * MIB)
    assert "can't start new thread" in runner.python(code.format(30), limits=few).stderr
    assert runner.python(code.format(5), limits=few).stdout == "all\n"


@pytest.mark.parametrize("where", ["", " >&2", " & yes >&2"])
def test_an_output_flood_is_cut(runner: RunnerProcess, where: str) -> None:
    bound = Limits(wall_s=30, output_bytes=50_000)
    outcome = runner.shell(f"yes{where}", limits=bound)
    assert (outcome.ended, outcome.exit, outcome.signal) == ("output_limit", None, 9)
    assert len(outcome.stdout) + len(outcome.stderr) == bound.output_bytes
    assert outcome.stdout_bytes + outcome.stderr_bytes >= bound.output_bytes
    assert sandboxes(runner) == []
    exact = runner.shell("head -c 25000 /dev/zero; head -c 25000 /dev/zero >&2", limits=bound)
    assert (exact.ended, exact.stdout_bytes, exact.stderr_bytes) == ("exit", 25_000, 25_000)


FILL = """
import os, errno
written = 0
try:
    with open({path!r}, "wb", buffering=0) as file:
        while written < {most}:
            written += file.write(bytes(65536))
    print("never full")
except OSError as exc:
    print(errno.errorcode[exc.errno], written)
"""


@pytest.mark.parametrize("path", ["/tmp/fill", "/dev/shm/fill"])
def test_memory_file_systems_are_sized(runner: RunnerProcess, path: str) -> None:
    """The profile of these tests gives 4 MiB."""
    name, written = runner.python(FILL.format(path=path, most=64 * MIB)).stdout.split()
    assert name == "ENOSPC"
    assert 3 * MIB < int(written) <= 4 * MIB
    assert runner.python(FILL.format(path=path, most=2 * MIB)).stdout == "never full\n"


@pytest.mark.parametrize("path", ["/fill", "/dev/fill", "/etc/fill", "/dev/pts/fill", "/proc/fill", "/work/../fill"])
def test_no_other_memory_file_system_takes_anything(runner: RunnerProcess, path: str) -> None:
    """The sandbox's root and /dev are memory too, without a size; nothing may be put there."""
    name, written = runner.python(FILL.format(path=path, most=64 * MIB)).stdout.split()
    assert name in {"EROFS", "EACCES", "EPERM", "ENOENT"}
    assert written == "0"
    assert runner.python(FILL.format(path="/tmp/fill", most=MIB)).stdout == "never full\n"


def test_empty_files_without_end_are_bounded_by_memory(runner: RunnerProcess) -> None:
    code = (
        "n = 0\ntry:\n  while n < {}: open(f'/tmp/{{n}}', 'w').close(); n += 1\nexcept OSError: print('full')\nprint(n)"
    )
    assert runner.python(code.format(200)).stdout == "200\n"
    bounded = runner.python(code.format(3_000_000), limits=Limits(wall_s=5, total_memory_bytes=32 * MIB))
    assert "3000000" not in bounded.stdout
    assert runner.shell("echo served").stdout == "served\n"


HOG = """
import os, sys, time
for number in range({count}):
    if os.fork() == 0:
        block = bytearray({each})
        for at in range(0, len(block), 4096): block[at] = 1
        os.write(1, b"held ")
        time.sleep(1.0)
        os._exit(0)
for number in range({count}):
    try: os.wait()
    except ChildProcessError: pass
"""


def test_memory_of_many_processes_is_bounded_in_total(runner: RunnerProcess) -> None:
    bound = Limits(wall_s=20, total_memory_bytes=128 * MIB)
    greedy = runner.python(HOG.format(count=8, each=48 * MIB), limits=bound)
    health = {check.name: check for check in runner.ask(lambda client: client.health())}
    if health["memory"].weaker:
        assert health["memory"].detail == "memory: per process only"
    else:
        assert greedy.stdout.count("held") < 8
        assert greedy.max_rss_bytes <= bound.total_memory_bytes
    modest = runner.python(HOG.format(count=4, each=8 * MIB), limits=bound)
    assert modest.stdout.count("held") == 4
    assert runner.shell("echo served").stdout == "served\n"


def test_a_huge_argument_is_no_start_and_no_crash(runner: RunnerProcess) -> None:
    """The kernel takes 128 KiB for one argument; a shell's text is not bound by that."""
    assert runner.run("/bin/echo", "x" * 200_000).ended == "start_failed"
    assert runner.run("/bin/echo", *["x" * 100_000] * 30).ended == "start_failed"
    assert len(runner.run("/bin/echo", "x" * 100_000).stdout) == 100_001
    assert len(runner.shell("echo " + "x" * 200_000).stdout) == 200_001


def test_too_many_arguments_are_refused(runner: RunnerProcess) -> None:
    with pytest.raises(RunnerError) as caught:
        runner.run("/bin/echo", *["x"] * 5000)
    assert caught.value.code == "bad_request"
    assert runner.run("/bin/echo", *["x"] * 4000).exit == 0


def test_a_parameter_of_10_mb(runner: RunnerProcess) -> None:
    text = "one" + "0123456789" * 999_999 + "another"
    assert runner.file("write", "big.txt", content=text).ok
    assert runner.shell("wc -c < big.txt").stdout == "10000000\n"
    outcome = runner.file("read", "big.txt")
    assert (outcome.text, outcome.truncated_bytes) == (text[:MIB], len(text) - MIB)
    assert runner.file("edit", "big.txt", old=text[-5_000_000:], new="end").ok
    with pytest.raises(RunnerError) as caught:
        runner.file("write", "bigger.txt", content="x" * 17_000_000)
    assert caught.value.code == "bad_request"
    assert runner.shell("ls bigger.txt").exit == 2


def test_a_flood_of_requests_is_answered_one_by_one(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> list[bool]:
        asked = [client.file(FileRequest(job_name(), "list", ".")) for _ in range(60)]
        return [outcome.ok for outcome in await asyncio.gather(*asked)]

    assert runner.ask(talk) == [True] * 60


def test_a_workspace_full_of_entries_lists_in_bounds(runner: RunnerProcess) -> None:
    runner.shell("mkdir many && cd many && for i in {1..3000}; do : > $i; done")
    outcome = runner.file("list", "many")
    assert len(outcome.text.splitlines()) == 2001
    deep = "/".join(["d"] * 60)
    runner.shell(f"mkdir -p many2/{deep}")
    assert len(runner.file("list", "many2", depth=100).text.splitlines()) == 8
