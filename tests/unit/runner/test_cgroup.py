"""Finding cgroups in the kernel's own tables, and dividing real ones where this machine lets us."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from safety_wrapper.runner import cgroup
from safety_wrapper.runner.protocol import Limits
from unit.runner.harness import OTHER_UID, ROOT

V1 = """\
30 24 0:26 / {0}/memory rw - cgroup cgroup rw,memory
31 24 0:27 / {0}/pids rw - cgroup cgroup rw,pids
32 24 0:28 / {0}/unified rw - cgroup2 cgroup2 rw
33 24 0:29 / {0}/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct
34 24 8:1 / / rw - ext4 /dev/vda rw
"""


def tree(root: Path, *names: str) -> None:
    for name in names:
        (root / name).mkdir(parents=True, exist_ok=True)


def test_version_1_hierarchies_are_found(tmp_path: Path) -> None:
    tree(tmp_path, "memory/a/b", "pids", "unified")
    found = cgroup.hierarchies(V1.format(tmp_path), "8:pids:/\n4:memory:/a/b\n3:cpu,cpuacct:/\n0::/\n")
    assert found == cgroup.Hierarchies(tmp_path / "memory/a/b", tmp_path / "pids", tmp_path / "unified")


def test_version_2_is_found(tmp_path: Path) -> None:
    tree(tmp_path, "sys/system.slice/x.service")
    mounts = f"30 24 0:26 / {tmp_path}/sys rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    found = cgroup.hierarchies(mounts, "0::/system.slice/x.service\n")
    assert found == cgroup.Hierarchies(None, None, tmp_path / "sys/system.slice/x.service")


def test_a_folder_that_is_not_mounted_here_falls_back_to_the_mount(tmp_path: Path) -> None:
    tree(tmp_path, "memory", "pids", "unified")
    found = cgroup.hierarchies(V1.format(tmp_path), "8:pids:/\n4:memory:/docker/abc\n0::/\n")
    assert found.memory == tmp_path / "memory"


def test_no_cgroups_at_all() -> None:
    assert cgroup.hierarchies("34 24 8:1 / / rw - ext4 /dev/vda rw\n", "0::/\n") == cgroup.Hierarchies(None, None, None)


def unit(root: Path, *, controllers: str = "cpu memory pids", members: str | None = None) -> Path:
    """A folder that looks like a delegated version 2 cgroup; the kernel's part is played by ordinary files."""
    tree(root, "unit/runner")
    for name, text in (("cgroup.controllers", controllers), ("cgroup.subtree_control", ""),
                       ("cgroup.procs", str(os.getpid()) if members is None else members)):  # fmt: skip
        (root / "unit" / name).write_text(text)
    return root / "unit"


def find_in(folder: Path) -> cgroup.Delegated | None:
    return cgroup._find_v2(cgroup.Hierarchies(None, None, folder), os.getuid(), None)


def test_a_unit_with_delegation_serves(tmp_path: Path) -> None:
    folder = unit(tmp_path)
    assert find_in(folder) == cgroup.Delegated(2, folder / "jobs", folder / "jobs")
    assert (folder / "runner/cgroup.procs").read_text() == str(os.getpid())
    for part in (folder, folder / "jobs"):
        assert (part / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert 0 < int((folder / "jobs/memory.max").read_text()) < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_a_runner_that_was_moved_before_finds_the_same(tmp_path: Path) -> None:
    folder = unit(tmp_path, members="")
    assert find_in(folder / "runner") == cgroup.Delegated(2, folder / "jobs", folder / "jobs")


def test_a_slot_bounds_memory_and_processes(tmp_path: Path) -> None:
    (tmp_path / "jobs/job-t1").mkdir(parents=True)
    made = cgroup.Slot.__new__(cgroup.Slot)
    made._version, made.folders, made.entries = 2, [tmp_path / "jobs/job-t1"], []
    made._bound(cgroup.Delegated(2, tmp_path / "jobs", tmp_path / "jobs"), Limits(total_memory_bytes=5, processes=7))
    written = {f.name: f.read_text() for f in made.folders[0].iterdir()}
    assert written == {"memory.max": "5", "pids.max": "11", "memory.swap.max": "0", "memory.oom.group": "1"}


def test_a_unit_without_the_memory_controller_does_not_serve(tmp_path: Path) -> None:
    assert find_in(unit(tmp_path, controllers="cpu pids")) is None


def test_a_session_with_other_processes_is_left_alone(tmp_path: Path) -> None:
    folder = unit(tmp_path, members=f"{os.getpid()}\n1\n")
    assert find_in(folder) is None
    assert not (folder / "runner/cgroup.procs").exists()


def test_what_delegate_gives_find_finds() -> None:
    """For real, as root; without root nothing may be found that was not given."""
    if not ROOT:
        assert cgroup.find(OTHER_UID) is None or cgroup.find(OTHER_UID) == cgroup.find(os.getuid())
        return
    given = cgroup.delegate(OTHER_UID)
    try:
        found = cgroup.find(OTHER_UID)
        assert found == given
        if found is None:
            return
        slot = cgroup.Slot(found, "t1", Limits(total_memory_bytes=64 * 1024**2))
        child = subprocess.Popen(["sleep", "100"], preexec_fn=slot.enter)  # noqa: PLW1509
        assert str(child.pid) in (slot.folders[0] / "cgroup.procs").read_text().split()
        assert not slot.remove()
        cgroup.sweep(found)
        child.wait()
        assert slot.remove()
        assert not any(folder.exists() for folder in slot.folders)
    finally:
        cgroup.release(OTHER_UID)
    assert not any(folder.exists() for folder in (given.folders() if given else []))


def test_a_slot_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        cgroup.Slot(cgroup.Delegated(1, tmp_path, tmp_path / "gone"), "t1", Limits())
    assert list(tmp_path.iterdir()) == []
