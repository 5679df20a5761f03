"""What a hostile program plants in its workspace leads the file operations nowhere else."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from safety_wrapper.runner.protocol import FileOutcome
from unit.runner.harness import ROOT, RunnerProcess, place, started

pytestmark = pytest.mark.sandbox


@pytest.fixture(scope="module")
def runner() -> Iterator[RunnerProcess]:
    with place() as installation, started(installation) as running:
        (installation.root / "outside/secret.txt").write_text("SECRET")
        (installation.root / "outside").chmod(0o777)
        (installation.root / "outside/secret.txt").chmod(0o666)
        yield running


def attempts(runner: RunnerProcess, path: str) -> list[FileOutcome]:
    """Read, list, write and edit at ``path``."""
    return [
        runner.file("read", path),
        runner.file("list", path),
        runner.file("write", path, content="x"),
        runner.file("edit", path, old="SECRET", new="x"),
    ]


def outside_is_untouched(runner: RunnerProcess) -> bool:
    outside = runner.place.root / "outside"
    return (outside / "secret.txt").read_text() == "SECRET" and len(list(outside.iterdir())) == 1


def test_a_planted_link_to_a_file_is_not_followed(runner: RunnerProcess) -> None:
    secret = runner.place.root / "outside/secret.txt"
    for name, target in (("link", secret), ("relative", "../outside/secret.txt"), ("proc", "/proc/self/environ")):
        assert runner.run("/bin/ln", "-s", str(target), name).exit == 0
        for outcome in attempts(runner, name):
            assert not outcome.ok
            assert "link" in outcome.error
            assert str(runner.place.root) not in outcome.error
        assert "SECRET" not in runner.run("/bin/cat", name).stdout
    assert outside_is_untouched(runner)
    assert runner.file("write", "plain", content="SECRET").ok
    assert runner.file("read", "plain").text == "SECRET"


def test_a_planted_link_to_a_folder_is_not_followed(runner: RunnerProcess) -> None:
    assert runner.run("/bin/ln", "-s", str(runner.place.root / "outside"), "away").exit == 0
    for path in ("away", "away/secret.txt", "away/new.txt", "away/deep/new.txt"):
        assert [outcome.ok for outcome in attempts(runner, path)] == [False] * 4
    assert "secret" not in runner.file("list", ".", depth=8).text
    assert "away  symbolic link" in runner.file("list", ".").text
    assert outside_is_untouched(runner)
    assert runner.file("write", "near/new.txt", content="x").ok


def test_a_link_that_appears_while_it_is_written_is_not_followed(runner: RunnerProcess) -> None:
    """A program swaps a folder and a link as fast as it can, while files are written through that name."""
    outside = runner.place.root / "outside"
    swap = f"mkdir d e; ln -s {outside} l; while :; do mv -T d x; mv -T l d; mv -T d l; mv -T x d; done"
    pid = os.fork()
    if pid == 0:
        try:
            runner.shell(swap)
        finally:
            os._exit(0)
    try:
        outcomes = [runner.file("write", "d/new.txt", content="x").ok for _ in range(60)]
    finally:
        for job in runner.ask(lambda client: client.jobs()):
            runner.ask(lambda client, name=job["job"]: client.kill(name))  # type: ignore[misc]
        os.waitpid(pid, 0)
    assert len(outcomes) == 60
    assert outside_is_untouched(runner)


def test_a_hard_link_keeps_the_other_name_unchanged(runner: RunnerProcess) -> None:
    """One made by the host between two of its folders: writing replaces the name, not the file behind it."""
    os.link(runner.place.root / "outside/secret.txt", runner.place.work / "hard")
    assert runner.file("write", "hard", content="changed").ok
    assert outside_is_untouched(runner)
    assert (runner.place.work / "hard").read_text() == "changed"


def test_a_hard_link_across_folders_is_refused(runner: RunnerProcess) -> None:
    code = "import os\ntry: os.link({!r}, {!r})\nexcept OSError as exc: print(exc.errno)"
    assert runner.python(code.format("/library/book.txt", "/work/stolen")).stdout == "18\n"
    runner.shell("echo x > one")
    assert runner.python(code.format("/work/one", "/work/two")).stdout == ""


def test_a_pipe_in_the_workspace_hangs_nothing(runner: RunnerProcess) -> None:
    assert runner.run("/usr/bin/mkfifo", "pipe").exit == 0
    for outcome in attempts(runner, "pipe"):
        assert not outcome.ok
    assert "no regular file" in runner.file("read", "pipe").error
    assert "pipe  special file" in runner.file("list", ".").text
    assert runner.run("/bin/rm", "pipe").exit == 0
    assert runner.file("write", "pipe", content="x").ok


def test_a_device_in_the_workspace_opens_nothing(runner: RunnerProcess) -> None:
    assert runner.run("/bin/mknod", "made", "c", "1", "5").exit == 1
    if ROOT:
        os.mknod(runner.place.work / "zero", 0o666 | 0o020000, os.makedev(1, 5))
        (runner.place.work / "zero").chmod(0o666)
        assert [outcome.ok for outcome in attempts(runner, "zero")] == [False] * 4
        assert runner.shell("head -c 1 zero").exit == 1
    assert runner.shell("head -c 1 /dev/zero | wc -c").stdout == "1\n"


def test_a_socket_in_the_workspace_is_no_file(runner: RunnerProcess) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(runner.place.work / "sock"))
        assert [outcome.ok for outcome in attempts(runner, "sock")] == [False] * 4


@pytest.mark.parametrize("path", ["a\0b", "/work/\0", "\0", "/work/x\0/../../etc/passwd"])
def test_a_nul_in_a_path_is_refused(runner: RunnerProcess, path: str) -> None:
    for outcome in attempts(runner, path):
        assert "NUL" in outcome.error
    assert runner.file("write", "a b", content="x").ok


@pytest.mark.parametrize(
    "path", ["../outside/secret.txt", "/work/../outside/secret.txt", "x/../../outside", "/proc/1/root"]
)
def test_a_path_that_climbs_is_refused(runner: RunnerProcess, path: str) -> None:
    assert [outcome.ok for outcome in attempts(runner, path)] == [False] * 4
    assert outside_is_untouched(runner)


def test_names_that_are_no_text_are_listed_and_can_be_removed(runner: RunnerProcess) -> None:
    assert runner.shell(r"mkdir odd; touch $'odd/\xff\xfe' $'odd/a\nb' $'odd/\e[31m' odd/plain").exit == 0
    outcome = runner.file("list", "odd")
    assert outcome.ok
    assert len(outcome.text.splitlines()) == 4
    assert "\ufffd\ufffd" in outcome.text
    assert "\x1b" not in outcome.text
    assert runner.file("read", "odd/\ufffd\ufffd").error.startswith("There is no")
    assert runner.shell("rm -r odd").exit == 0
