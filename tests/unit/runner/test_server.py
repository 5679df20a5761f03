"""The whole runner: a process of its own uid, real sandboxes, asked over its socket."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest

from safety_wrapper.errors import ConfigError, RunnerError, WireError
from safety_wrapper.frames import Client
from safety_wrapper.runner import serve
from safety_wrapper.runner.client import RunnerClient
from safety_wrapper.runner.protocol import FileRequest, Limits, RunOutcome, RunRequest
from safety_wrapper.runner.server import uid_of
from unit.runner.harness import (
    OTHER_UID,
    ROOT,
    RunnerProcess,
    fork,
    job_name,
    jobs_are,
    no_processes_left,
    place,
    sandboxes,
    start,
    started,
    wait_for,
)

pytestmark = pytest.mark.sandbox
SMALL = {"limits": {"concurrent": 2}}


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    with place() as installation, started(installation) as running:
        yield running


# ── runs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_command_runs_in_the_workspace(runner: RunnerProcess) -> None:
    outcome = runner.shell("pwd; echo out > made.txt; cat made.txt >&2; exit 3")
    assert (outcome.exit, outcome.signal, outcome.ended) == (3, None, "exit")
    assert (outcome.stdout, outcome.stderr) == ("/work\n", "out\n")
    assert (outcome.stdout_bytes, outcome.stderr_bytes, outcome.lossy) == (6, 4, False)
    assert outcome.max_rss_bytes > 0
    made = runner.place.work / "made.txt"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (runner.place.uid, 0o640)


def test_the_environment_is_fixed_and_small(runner: RunnerProcess) -> None:
    os.environ["SW_LEAK"] = "1"
    try:
        lines = runner.run("/usr/bin/env", env=(("EXTRA", "1"),)).stdout.split()
    finally:
        del os.environ["SW_LEAK"]
    names = {line.split("=")[0] for line in lines}
    assert names - {"_", "SHLVL", "PWD"} == {"PATH", "HOME", "LANG", "USER", "EXTRA"}
    assert "HOME=/work" in lines


def test_arguments_arrive_as_they_are(runner: RunnerProcess) -> None:
    words = ("/usr/bin/printf", "[%s]", "a b", "", "$HOME", "'", "é", "-n", "*")
    assert runner.run(*words).stdout == "[a b][][$HOME]['][é][-n][*]"


@pytest.mark.parametrize(
    "text",
    [
        "echo $0 $# $-; echo $LINENO", "cat <<E\nhere\nE", "x=1; f() { echo $x; }; f", "trap 'echo bye' EXIT; echo hi",
        "set -e; false; echo no", "echo a | tr a b", "exit 300", "kill -TERM $$", "if", "", "echo 'é'; # end",
        "exec echo gone", "(exit 4) || echo $?", "read x; echo [$x]", "echo \\\n two", "return 5",
        "wait; jobs; echo $!",
    ],
)  # fmt: skip
def test_a_shell_text_means_what_it_means_to_bash(runner: RunnerProcess, text: str) -> None:
    """The text travels by descriptor; bash -c in the same sandbox is the reference."""
    by_descriptor = runner.shell(text)
    reference = runner.run("/usr/bin/env", "/bin/bash", "-c", text)
    assert (by_descriptor.exit, by_descriptor.stdout) == (reference.exit, reference.stdout)
    assert bool(by_descriptor.stderr) == bool(reference.stderr)


def test_a_long_shell_text_runs(runner: RunnerProcess) -> None:
    assert runner.shell(f": {'x' * 1_000_000}; echo done").stdout == "done\n"


def test_stdin_is_empty_or_what_was_given(runner: RunnerProcess) -> None:
    assert runner.shell("cat | wc -c").stdout == "0\n"
    assert runner.shell("cat | wc -c", stdin=b"\0" * 300_000).stdout == "300000\n"


def test_bytes_that_are_not_text_are_marked(runner: RunnerProcess) -> None:
    outcome = runner.shell(r"printf 'a\xffb'; printf '\xfe' >&2")
    assert (outcome.stdout, outcome.stderr, outcome.lossy) == ("a\ufffdb", "\ufffd", True)
    assert (outcome.stdout_bytes, outcome.stderr_bytes) == (3, 1)


def test_a_big_output_arrives_whole(runner: RunnerProcess) -> None:
    outcome = runner.shell("head -c 600000 /dev/zero | tr '\\0' a; head -c 300000 /dev/zero | tr '\\0' b >&2")
    assert (outcome.stdout, outcome.stderr, outcome.ended) == ("a" * 600_000, "b" * 300_000, "exit")


def test_a_program_that_is_not_there_is_exit_127(runner: RunnerProcess) -> None:
    assert runner.run("/usr/bin/no-such-program").exit == 127
    assert runner.run("no-such-program").exit == 127


def test_a_signal_shows_as_a_shell_shows_it(runner: RunnerProcess) -> None:
    assert runner.shell("kill -SEGV $$").exit == 128 + signal.SIGSEGV


def test_a_missing_working_folder_is_said_without_paths_of_the_host(runner: RunnerProcess) -> None:
    (runner.place.work / "there").mkdir(exist_ok=True)
    os.chown(runner.place.work / "there", runner.place.uid, -1)
    outcome = runner.run("/bin/pwd", cwd="/work/none")
    assert outcome.ended == "start_failed"
    assert "working folder" in outcome.stderr
    assert str(runner.place.root) not in outcome.stderr
    assert runner.run("/bin/pwd", cwd="/work/there").stdout == "/work/there\n"


def test_file_operations_and_commands_see_the_same_files(runner: RunnerProcess) -> None:
    assert runner.file("write", "notes/a.txt", content="one\ntwo\n").ok
    assert runner.shell("cat notes/a.txt; echo three >> notes/a.txt").stdout == "one\ntwo\n"
    assert runner.file("read", "notes/a.txt", offset=3).text == "three\n"
    assert runner.file("edit", "notes/a.txt", old="two", new="2").ok
    assert "notes/a.txt" in runner.file("list", ".", depth=2).text
    assert runner.file("read", "/library/book.txt").text == "chapter one\n"


# ── bounds ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_past_its_time_is_ended(runner: RunnerProcess) -> None:
    outcome = runner.shell("echo before; sleep 1000", limits=Limits(wall_s=1))
    assert (outcome.exit, outcome.signal, outcome.ended, outcome.stdout) == (None, 9, "timeout", "before\n")
    assert outcome.wall_ms >= 1000
    assert runner.shell("echo before; sleep 0.2", limits=Limits(wall_s=20)).ended == "exit"


def test_processor_time_is_bounded(runner: RunnerProcess) -> None:
    assert runner.shell("while :; do :; done", limits=Limits(wall_s=30, cpu_s=1)).exit in {137, 152}
    assert runner.shell("for i in {1..1000}; do :; done", limits=Limits(wall_s=30, cpu_s=1)).exit == 0


def test_file_size_is_bounded(runner: RunnerProcess) -> None:
    small = Limits(wall_s=20, file_bytes=100_000)
    assert runner.shell("head -c 200000 /dev/zero > big", limits=small).exit == 128 + signal.SIGXFSZ
    assert (runner.place.work / "big").stat().st_size == 100_000
    assert runner.shell("head -c 90000 /dev/zero > big", limits=small).exit == 0


def test_open_files_are_bounded(runner: RunnerProcess) -> None:
    code = "f = [open('/dev/null') for _ in range({})]; print(len(f))"
    few = Limits(wall_s=20, open_files=32)
    assert "Too many open files" in runner.python(code.format(40), limits=few).stderr
    assert runner.python(code.format(20), limits=few).stdout == "20\n"


def test_memory_of_one_process_is_bounded(runner: RunnerProcess) -> None:
    code = "b = bytearray({}); print(len(b))"
    little = Limits(wall_s=20, memory_bytes=128 * 1024**2)
    assert "MemoryError" in runner.python(code.format(200 * 1024**2), limits=little).stderr
    assert runner.python(code.format(64 * 1024**2), limits=little).exit == 0


def test_processes_are_bounded_inside_the_sandbox_too(runner: RunnerProcess) -> None:
    """One more than asked for: the sandbox's own first process counts."""
    assert runner.shell("ulimit -u; ulimit -Hu", limits=Limits(wall_s=20, processes=7)).stdout == "8\n8\n"


def test_core_dumps_are_off(runner: RunnerProcess) -> None:
    assert runner.shell("ulimit -c; ulimit -Hc").stdout == "0\n0\n"


@pytest.mark.parametrize("name", [f.name for f in fields(Limits) if f.name not in {"wall_s", "cpu_s", "output_bytes"}])
def test_no_request_gets_past_the_configuration(runner: RunnerProcess, name: str) -> None:
    """An enormous wish is cut, never refused, never granted."""
    wished = runner.shell("ulimit -a", limits=Limits(**{"wall_s": 20, name: 2**52}))
    assert wished.stdout == runner.shell("ulimit -a").stdout


# ── jobs ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_listed_and_killed(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> RunOutcome:
        name = job_name()
        task = asyncio.create_task(client.run(RunRequest(name, ("/bin/sleep", "1000"))))
        assert await jobs_are(client, 1) == [name]
        assert await client.kill("job_other") is False
        assert not task.done()
        assert await client.kill(name) is True
        assert await client.jobs() == []
        return await task

    outcome = runner.ask(talk)
    assert (outcome.ended, outcome.exit, outcome.signal) == ("killed", None, 9)
    assert sandboxes(runner) == []


def test_a_run_is_killed_at_any_moment_of_its_start(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> None:
        for wait_ms in (0, 1, 2, 4, 6, 8, 10, 15):
            name = job_name()
            task = asyncio.create_task(client.run(RunRequest(name, ("/bin/sleep", "1000"))))
            await asyncio.sleep(wait_ms / 1000)
            while not await client.kill(name):  # noqa: ASYNC110 - until the runner has heard of it
                await asyncio.sleep(0)
            assert (await task).ended == "killed"

    runner.ask(talk)
    wait_for(lambda: not sandboxes(runner))


def test_a_lost_connection_ends_its_runs_and_no_other(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> RunOutcome:
        other = RunnerClient(runner.config.paths.runner_socket)
        mine = asyncio.create_task(client.run(RunRequest(job_name(), ("/bin/sleep", "1"))))
        lost = asyncio.create_task(other.run(RunRequest(job_name(), ("/bin/sleep", "1000"))))
        await jobs_are(client, 2)
        other.close()
        with pytest.raises(RunnerError):
            await lost
        await jobs_are(client, 1)
        return await mine

    assert runner.ask(talk).ended == "exit"
    assert sandboxes(runner) == []


def test_a_cancelled_request_ends_its_run(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> None:
        task = asyncio.create_task(client.run(RunRequest(job_name(), ("/bin/sleep", "1000"))))
        await jobs_are(client, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await jobs_are(client, 0)

    runner.ask(talk)
    assert sandboxes(runner) == []


def test_only_so_many_runs_at_once() -> None:
    async def talk(client: RunnerClient) -> None:
        tasks = [asyncio.create_task(client.run(RunRequest(job_name(), ("/bin/sleep", "1000")))) for _ in range(2)]
        await jobs_are(client, 2)
        with pytest.raises(RunnerError) as caught:
            await client.run(RunRequest(job_name(), ("/bin/true",)))
        assert caught.value.code == "busy"
        for job in await client.jobs():
            await client.kill(job["job"])
        assert {(await task).ended for task in tasks} == {"killed"}
        assert (await client.run(RunRequest(job_name(), ("/bin/true",)))).exit == 0

    with place(**SMALL) as installation, started(installation) as running:
        running.ask(talk)


def test_a_job_that_runs_already_is_refused(runner: RunnerProcess) -> None:
    async def talk(client: RunnerClient) -> None:
        request = RunRequest(job_name(), ("/bin/sleep", "1000"))
        task = asyncio.create_task(client.run(request))
        await jobs_are(client, 1)
        with pytest.raises(RunnerError) as caught:
            await client.run(request)
        assert caught.value.code == "bad_request"
        await client.kill(request.job)
        await task
        again = RunRequest(request.job, ("/bin/true",))
        assert (await client.run(again)).exit == 0

    runner.ask(talk)


def test_many_runs_leave_nothing(runner: RunnerProcess) -> None:
    def held() -> int:
        return len(list(Path(f"/proc/{runner.pid}/fd").iterdir()))

    async def talk(client: RunnerClient) -> None:
        for _ in range(5):
            await asyncio.gather(*(client.run(RunRequest(job_name(), ("/bin/true",))) for _ in range(6)))

    runner.ask(talk)
    before = held()
    runner.ask(talk)
    wait_for(lambda: held() <= before)
    assert sandboxes(runner) == []
    children = Path(f"/proc/{runner.pid}/task/{runner.pid}/children").read_text().split()
    assert children == [], "zombies"


# ── who, and whether at all ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("verb", "body"), [("hello", {"x": 1}), ("jobs", {"x": 1}), ("health", {"x": 1}), ("kill", {})]
)
def test_odd_requests_are_refused(runner: RunnerProcess, verb: str, body: dict[str, int]) -> None:
    with Client(runner.config.paths.runner_socket) as client:
        assert client.greeting["ready"] is True
        with pytest.raises(WireError) as caught:
            client.call(verb, **body)
        assert caught.value.code == "bad_request"
        assert client.call("jobs")["jobs"] == []


def test_an_unknown_profile_is_refused(runner: RunnerProcess) -> None:
    for ask in (
        lambda client: client.run(RunRequest(job_name(), ("/bin/true",), profile="other")),
        lambda client: client.file(FileRequest(job_name(), "list", ".", profile="other")),
    ):
        with pytest.raises(RunnerError) as caught:
            runner.ask(ask)
        assert caught.value.code == "bad_request"
    assert runner.run("/bin/true", profile="work").exit == 0


def test_only_the_core_may_speak_to_the_runner() -> None:
    with place(core=OTHER_UID) as installation, started(installation) as running:
        with pytest.raises(WireError) as caught:
            Client(running.config.paths.runner_socket)
        assert caught.value.code == "not_permitted"
    with place() as installation, started(installation) as running:
        Client(running.config.paths.runner_socket).close()


def test_root_is_refused() -> None:
    """The process limit does not bind root, and root needs no sandbox to reach everything."""
    with place() as installation:
        config = installation.config()
        if ROOT:
            with pytest.raises(ConfigError, match="root"):
                serve(config)
            return
        # A user that is not root can be root in a namespace of its own, and is refused there too.
        uid = os.getuid()
        pid = start(installation, first=lambda: _be_mapped_to(0, uid))
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 1


def _be_mapped_to(inside: int, uid: int) -> None:
    ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE: a process that changed its uid can't write its map else
    os.unshare(os.CLONE_NEWUSER)
    Path("/proc/self/uid_map").write_text(f"{inside} {uid} 1\n")


def _no_user_namespaces() -> None:
    """What a hardened kernel does: no namespace can be made. True for this process and its children only."""
    _be_mapped_to(os.getuid(), os.getuid())
    Path("/proc/sys/user/max_user_namespaces").write_text("0\n")


def test_without_user_namespaces_every_run_is_refused() -> None:
    # Inside that namespace the tests' own uid has no name: the kernel shows 65534 for root.
    core = 65534 if ROOT else os.getuid()
    with place(core=core) as installation, started(installation, first=_no_user_namespaces) as running:
        health = running.ask(lambda client: client.health())
        assert [check.ok for check in health if check.name == "sandbox"] == [False]
        assert "user namespaces" in health[0].detail
        with pytest.raises(RunnerError) as caught:
            running.run("/bin/true")
        assert caught.value.code == "unavailable"


def test_health_names_what_is_weaker(runner: RunnerProcess) -> None:
    health = {check.name: check for check in runner.ask(lambda client: client.health())}
    assert all(check.ok for check in health.values())
    assert health["user"].weaker == (not ROOT)
    with place() as installation, started(installation, delegated=False) as running:
        bare = {check.name: check for check in running.ask(lambda client: client.health())}
        if ROOT:
            assert (bare["memory"].weaker, bare["memory"].detail) == (True, "memory: per process only")
        assert running.shell("echo still").stdout == "still\n"


def test_a_bind_that_became_a_link_to_the_state_is_refused() -> None:
    with place() as installation, started(installation) as running:
        assert running.run("/bin/true").exit == 0
        installation.work.rename(installation.root / "moved")
        installation.work.symlink_to(installation.root / "state")
        for ask in (running.shell, lambda text: running.file("list", ".")):
            with pytest.raises(RunnerError):
                ask("ls")
        installation.work.unlink()
        (installation.root / "moved").rename(installation.work)
        assert running.file("list", ".").ok


def test_a_profile_that_shows_the_state_is_refused_at_start() -> None:
    with place() as installation:
        installation.settings = {
            "profiles": [{"name": "work", "binds": [{"from": str(installation.root), "to": "/work", "mode": "ro"}]}]
        }
        _, status = os.waitpid(start(installation), 0)
        assert os.waitstatus_to_exitcode(status) == 1


def test_unknown_users_are_refused_at_start() -> None:
    assert uid_of("root") == 0
    assert uid_of(64_000) == 64_000
    assert uid_of(None) == os.getuid()
    with pytest.raises(ConfigError):
        uid_of("no-such-user-here")


# ── the end of the runner ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_runner_goes_all_sandboxes_go(number: signal.Signals) -> None:
    with place() as installation, started(installation) as running:
        pid = fork()
        if pid == 0:
            try:
                running.shell("(setsid sleep 1000 &) ; sleep 1000")
            finally:
                os._exit(0)
        wait_for(lambda: "sleep 1000" in str(sandboxes(running)))
        os.kill(running.pid, number)
        os.waitpid(running.pid, 0)
        assert no_processes_left(installation)
        os.waitpid(pid, 0)


def test_a_runner_killed_while_sandboxes_start_leaves_nothing() -> None:
    with place() as installation:
        for wait_ms in (0, 2, 4, 6, 8, 10, 12, 15, 20):
            with started(installation) as running:
                pid = fork()
                if pid == 0:
                    try:
                        running.shell("sleep 1000")
                    finally:
                        os._exit(0)
                time.sleep(wait_ms / 1000)
                os.kill(running.pid, signal.SIGKILL)
                os.waitpid(running.pid, 0)
                os.waitpid(pid, 0)
                assert no_processes_left(installation)


def test_a_new_runner_takes_the_place_of_a_killed_one() -> None:
    with place() as installation, started(installation) as running:

        async def talk(client: RunnerClient) -> None:
            assert (await client.run(RunRequest(job_name(), ("/bin/true",)))).exit == 0
            os.kill(running.pid, signal.SIGKILL)
            os.waitpid(running.pid, 0)  # noqa: ASYNC222 - killed, so it ends at once
            with pytest.raises(RunnerError) as caught:
                await client.run(RunRequest(job_name(), ("/bin/true",)))
            assert caught.value.code == "unavailable"
            assert [check.ok for check in await client.health()] == [False]
            running.pid = start(installation)
            for _ in range(500):
                if (await client.health())[0].name == "sandbox":
                    break
                await asyncio.sleep(0.01)
            assert (await client.run(RunRequest(job_name(), ("/bin/true",)))).exit == 0

        running.ask(talk)
        os.kill(running.pid, signal.SIGTERM)
        os.waitpid(running.pid, 0)
