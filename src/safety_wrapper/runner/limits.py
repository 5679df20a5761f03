"""Which bounds a run gets: the request's, but never wider than the configuration's.

Two layers hold them. rlimits bind each process: address space, processor time, file size and core dumps are set
before bubblewrap starts, the number of processes and open files by util-linux' ``prlimit`` inside the sandbox, where
the kernel counts processes by user namespace (outside it would count every sandbox together). A delegated cgroup
binds the sum (runner.cgroup).
"""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Final

from safety_wrapper.runner.protocol import Limits

if TYPE_CHECKING:
    from safety_wrapper.config import RunnerLimits

PRLIMIT: Final = "/usr/bin/prlimit"
#: The longest run that a tool's schema admits; `wall_s` of the configuration is the default, not the bound.
LONGEST_WALL_S: Final = 3600
_NICE: Final = 5


def bounded(wanted: Limits, configured: RunnerLimits) -> Limits:
    """``wanted``, each value cut to the configuration's; ``wall_s`` to the longer of it and an hour, and ``cpu_s`` to
    the longer of it and that run's ``wall_s``."""
    wall_s = min(wanted.wall_s, max(configured.wall_s, LONGEST_WALL_S))
    return Limits(
        wall_s=wall_s,
        cpu_s=min(wanted.cpu_s, max(configured.cpu_s, wall_s)),
        memory_bytes=min(wanted.memory_bytes, configured.memory_bytes),
        total_memory_bytes=min(wanted.total_memory_bytes, configured.total_memory_bytes),
        processes=min(wanted.processes, configured.processes),
        output_bytes=min(wanted.output_bytes, configured.output_bytes),
        file_bytes=min(wanted.file_bytes, configured.file_bytes),
        open_files=min(wanted.open_files, configured.open_files),
    )


def inside(limits: Limits) -> list[str]:
    """The words before the program inside the sandbox."""
    # One more process than asked for: the sandbox's own pid 1 counts too.
    count = limits.processes + 1
    return [PRLIMIT, f"--nproc={count}:{count}", f"--nofile={limits.open_files}:{limits.open_files}", "--"]


def apply(limits: Limits) -> None:
    """Set the rlimits of the calling process, for itself and all that it starts. Runs in the forked child."""
    resource.setrlimit(resource.RLIMIT_AS, (limits.memory_bytes, limits.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_s, limits.cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_bytes, limits.file_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(_NICE)  # sandboxes never starve the runner and the core
