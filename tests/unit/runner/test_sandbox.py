"""What may be bound, and that nothing of a call stands where others can read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from safety_wrapper.config import Bind, Paths, RunnerProfile
from safety_wrapper.errors import ConfigError
from safety_wrapper.runner import sandbox
from safety_wrapper.runner.protocol import Limits, RunRequest


def profile(source: Path, to: str = "/work") -> RunnerProfile:
    return RunnerProfile(name="work", binds=[Bind.model_validate({"from": source, "to": to, "mode": "rw"})])


def is_memory(fd: int) -> bool:
    return str(Path(f"/proc/self/fd/{fd}").readlink()).startswith("/memfd")


def descriptors() -> list[str]:
    return sorted(entry.name for entry in Path("/proc/self/fd").iterdir())


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    for name in ("var/state", "var/run", "etc/bundle", "work"):
        (tmp_path / name).mkdir(parents=True)
    return Paths(state=tmp_path / "var/state", run=tmp_path / "var/run", bundle=tmp_path / "etc/bundle")


@pytest.mark.parametrize("source", ["var/state", "var/run", "etc/bundle", "var", "etc", "", "var/state/core", "x"])
def test_a_bind_that_shows_the_wrappers_own_files_is_refused(tmp_path: Path, paths: Paths, source: str) -> None:
    (tmp_path / "x").symlink_to(tmp_path / "var/run")
    with pytest.raises(ConfigError):
        sandbox.check_profiles([profile(tmp_path / source)], paths)


@pytest.mark.parametrize("source", ["work", "var/state-of-things", "var/other"])
def test_a_bind_beside_them_is_taken(tmp_path: Path, paths: Paths, source: str) -> None:
    sandbox.check_profiles([profile(tmp_path / source)], paths)


@pytest.mark.parametrize(
    "to", ["/", "/proc", "/proc/x", "/dev/x", "/usr", "/usr/lib/x", "/bin", "/lib64", "/etc", "/tmp", "/a/../b"]
)
def test_places_that_must_stay_are_refused(tmp_path: Path, paths: Paths, to: str) -> None:
    with pytest.raises(ConfigError):
        sandbox.check_profiles([profile(tmp_path / "work", to)], paths)


@pytest.mark.parametrize("to", ["/work", "/srv/data", "/etc/ssl", "/tmp/cache", "/home/agent", "/opt/x"])
def test_other_places_are_taken(tmp_path: Path, paths: Paths, to: str) -> None:
    sandbox.check_profiles([profile(tmp_path / "work", to)], paths)


def test_a_link_put_in_later_is_seen(tmp_path: Path, paths: Paths) -> None:
    bound = profile(tmp_path / "work")
    assert sandbox.still_apart(bound, paths)
    (tmp_path / "work").rmdir()
    (tmp_path / "work").symlink_to(tmp_path / "var/state")
    assert not sandbox.still_apart(bound, paths)


def test_no_text_of_a_shell_command_stands_on_the_command_line(tmp_path: Path) -> None:
    request = RunRequest("job_1", ("/bin/bash", "-c", "echo MARKER"), cwd="/work/MARKER", env=(("A", "MARKER"),))
    launch = sandbox.prepare(request, profile(tmp_path), Limits())
    try:
        assert "MARKER" not in " ".join(launch.command)
        held = b"".join(os.pread(fd, 100_000, 0) for fd in launch.inherited if is_memory(fd))
        assert held.count(b"MARKER") == 3
    finally:
        sandbox.abandon(launch)


def test_the_root_and_dev_end_read_only(tmp_path: Path) -> None:
    launch = sandbox.prepare(RunRequest("job_1", ("true",)), profile(tmp_path), Limits())
    try:
        options = next(
            data.split(b"\0")
            for fd in launch.inherited
            if is_memory(fd) and (data := os.pread(fd, 100_000, 0)).startswith(b"--unshare-all")
        )
    finally:
        sandbox.abandon(launch)
    after = options[max(i for i, word in enumerate(options) if word in {b"--bind", b"--tmpfs", b"--dev"}) :]
    assert [after[i + 1] for i, word in enumerate(after) if word == b"--remount-ro"] == [b"/dev", b"/"]


def test_a_launch_leaves_no_descriptor(tmp_path: Path) -> None:
    before = descriptors()
    sandbox.abandon(sandbox.prepare(RunRequest("job_1", ("true",), stdin=b"x"), profile(tmp_path), Limits()))
    assert descriptors() == before


def test_home_is_the_work_folder_where_there_is_one(tmp_path: Path) -> None:
    assert sandbox.default_folder(profile(tmp_path)) == "/work"
    assert sandbox.default_folder(profile(tmp_path, "/data")) == "/tmp"


def test_this_machine_has_what_is_needed() -> None:
    assert sandbox.missing() is None
    assert sandbox.filter_known()
