"""The sandbox: bubblewrap from an empty root, the profile's binds and nothing else of the host's files.

What is visible inside: /usr read-only, a handful of /etc files made from data, a private /proc, a minimal /dev, sized
memory file systems on /tmp and /dev/shm, the binds. The root and /dev are memory file systems of the sandbox's own
user, so both are made read-only at the end; otherwise they would be a way around every size limit.

Nothing of the call stands on a command line that other users can read: bubblewrap's options and a shell command's
text travel by descriptor. The program starts only after the runner has taken note of the sandbox's first process and
written one byte ("the gate"); a runner that dies before leaves nothing behind.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from safety_wrapper.errors import ConfigError
from safety_wrapper.frames import to_memfd
from safety_wrapper.runner import limits as limits_of
from safety_wrapper.runner import seccomp
from safety_wrapper.runner.protocol import Limits, RunRequest

if TYPE_CHECKING:
    from safety_wrapper.config import Paths, RunnerProfile

BWRAP: Final = "/usr/bin/bwrap"
BASH: Final = "/bin/bash"
SANDBOX_ID: Final = "1000"
WORK: Final = "/work"
_SYSTEM_FOLDERS: Final = ("bin", "sbin", "lib", "lib32", "lib64", "libx32")
#: Places in the sandbox that no bind may cover, nor lie below.
_RESERVED: Final = ("proc", "dev", "sys", "usr", *_SYSTEM_FOLDERS)
_ETC: Final = {
    "passwd": b"root:x:0:0:root:/:/usr/sbin/nologin\nagent:x:1000:1000:agent:/work:/bin/bash\n",
    "group": b"root:x:0:\nagent:x:1000:\n",
    "hosts": b"127.0.0.1 localhost\n::1 localhost\n",
    "nsswitch.conf": b"passwd: files\ngroup: files\nhosts: files\n",
}
#: Parts of the host's /etc without which programs in /usr do not start. They hold no secret.
_ETC_BINDS: Final = ("ld.so.cache", "alternatives")
_FLAGS: Final = (
    "--unshare-all", "--unshare-user", "--disable-userns", "--new-session", "--die-with-parent",
    "--cap-drop", "ALL", "--clearenv", "--uid", SANDBOX_ID, "--gid", SANDBOX_ID, "--hostname", "sandbox",
)  # fmt: skip
_PATH: Final = "/usr/local/bin:/usr/bin:/bin"
_TMP, _SHM = "/tmp", "/dev/shm"  # noqa: S108 - places inside the sandbox, each a memory file system of its own


@dataclass(slots=True)
class Launch:
    """One sandbox, ready to start: the command line and the descriptors that it inherits.

    ``status``: the end from which bubblewrap's own reports are read. ``gate``: write one byte to let the program
    start; closed without one, it never starts. Call :meth:`close` when the process runs or could not be started.
    """

    command: list[str] = field(default_factory=list)
    inherited: list[int] = field(default_factory=list)
    stdin: int = -1
    status: int = -1
    gate: int = -1

    def data(self, data: bytes) -> str:
        """Hand over ``data`` as an inherited descriptor, read from its start; its number."""
        self.inherited.append(memory(data))
        return str(self.inherited[-1])

    def close_inherited(self) -> None:
        """Close this process's copies of what the sandbox inherits."""
        for fd in self.inherited:
            os.close(fd)
        self.inherited.clear()
        if self.stdin >= 0:
            os.close(self.stdin)
            self.stdin = -1


def memory(data: bytes) -> int:
    """A sealed memory file that is read from its start."""
    fd = to_memfd(data)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def check_profiles(profiles: Iterable[RunnerProfile], paths: Paths) -> None:
    """Raise ConfigError for a bind that would show a control's own files, or cover a place that must stay."""
    for profile in profiles:
        for bind in profile.binds:
            _check_place(profile.name, bind.to)
            if not bind.source.is_absolute() or _touches(bind.source, paths):
                raise ConfigError(
                    f"runner.profiles.{profile.name}: a bind shows the wrapper's own files, or is not absolute",
                    do="bind a folder apart from paths.run, paths.state and paths.bundle",
                )


def still_apart(profile: RunnerProfile, paths: Paths) -> bool:
    """True while no bind of ``profile`` leads to a control's own files; asked again before every run, since a
    symbolic link may have been put in place since the start."""
    return not any(_touches(bind.source, paths) for bind in profile.binds)


def _touches(source: Path, paths: Paths) -> bool:
    real = Path(os.path.realpath(source))
    for path in (paths.run, paths.state, paths.bundle):
        for control in (path, Path(os.path.realpath(path))):
            if real == control or real in control.parents or control in real.parents:
                return True
    return False


def _check_place(name: str, place: Path) -> None:
    parts = place.parts
    if not place.is_absolute() or len(parts) < 2 or ".." in parts or parts[1] in _RESERVED or parts[1:] in _WHOLE:
        raise ConfigError(
            f"runner.profiles.{name}: nothing can be bound at {place}",
            do="choose a place such as /work, /srv/data or /etc/ssl",
        )


_WHOLE: Final = {("etc",), ("tmp",)}


def prepare(request: RunRequest, profile: RunnerProfile, limits: Limits) -> Launch:
    """Everything that a start of ``request`` needs. Raises OSError when descriptors run out."""
    launch = Launch()
    try:
        launch.status, writer = os.pipe()
        # Bubblewrap keeps a reader of its own reports: if the runner dies, a broken pipe must not stop bubblewrap
        # half-way, between making the sandbox's first process and letting it go on; it would wait for ever.
        reader = os.dup(launch.status)
        launch.inherited += [writer, reader]
        opener, launch.gate = os.pipe()
        launch.inherited.append(opener)
        options = _options(launch, request, profile, writer)
        arguments = launch.data("".join(option + "\0" for option in options).encode("utf-8", "surrogateescape"))
        program = _program(launch, request, opener, reader)
        launch.stdin = os.open(os.devnull, os.O_RDONLY) if request.stdin is None else memory(request.stdin)
        launch.command = [BWRAP, "--args", arguments, "--", *limits_of.inside(limits), *program]
    except BaseException:
        abandon(launch)
        raise
    return launch


def abandon(launch: Launch) -> None:
    """Close everything of a launch that never started."""
    launch.close_inherited()
    for fd in (launch.status, launch.gate):
        if fd >= 0:
            os.close(fd)


def _options(launch: Launch, request: RunRequest, profile: RunnerProfile, status: int) -> list[str]:
    size = str(profile.tmp_bytes)
    options = [*_FLAGS, "--json-status-fd", str(status), "--ro-bind", "/usr", "/usr"]
    for name in _SYSTEM_FOLDERS:
        path = Path("/", name)
        if path.is_symlink():
            options += ["--symlink", str(path.readlink()), str(path)]
        elif path.is_dir():
            options += ["--ro-bind", str(path), str(path)]
    options += ["--perms", "0755", "--dir", "/etc"]
    for name, data in _ETC.items():
        options += ["--perms", "0644", "--file", launch.data(data), f"/etc/{name}"]
    for name in _ETC_BINDS:
        options += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    options += ["--proc", "/proc", "--dev", "/dev", "--size", size, "--perms", "1777", "--tmpfs", _SHM]
    options += ["--size", size, "--perms", "1777", "--tmpfs", _TMP]
    # Outer binds first, so that a bind below another stays visible.
    for bind in sorted(profile.binds, key=lambda bind: len(bind.to.parts)):
        options += ["--bind" if bind.mode == "rw" else "--ro-bind", str(bind.source), str(bind.to)]
    options += ["--remount-ro", "/dev", "--remount-ro", "/"]
    home = default_folder(profile)
    environment = {"PATH": _PATH, "HOME": home, "LANG": "C.UTF-8", "USER": "agent", **dict(request.env)}
    for name, value in environment.items():
        options += ["--setenv", name, value]
    filter_program = seccomp.program()
    if filter_program is not None:
        options += ["--seccomp", launch.data(filter_program)]
    return [*options, "--chdir", request.cwd or home]


def default_folder(profile: RunnerProfile) -> str:
    """/work where the profile binds it, else /tmp."""
    return WORK if any(str(bind.to) == WORK for bind in profile.binds) else _TMP


def _program(launch: Launch, request: RunRequest, gate: int, unused: int) -> list[str]:
    """The words that wait at the gate, then become the program. ``read`` fails when the runner is gone."""
    wait = f"read -rN1 -u {gate} _ || exit 125; exec {gate}<&- {unused}<&-; "
    if request.argv[:2] == (BASH, "-c") and len(request.argv) == 3:
        # The text is read from a descriptor: other users don't see it, and it may exceed the kernel's 128 KiB.
        text = launch.data(request.argv[2].encode())
        return [BASH, "-c", f'{wait}set -- "$(</dev/fd/{text})"; exec {text}<&-; eval "shift;$1"', BASH]
    return [BASH, "-c", f'{wait}exec -- "$@"', BASH, *request.argv]


def missing() -> str | None:
    """What the machine lacks to build a sandbox, or None. Says nothing about user namespaces: run a probe for that."""
    for program, package in ((BWRAP, "bubblewrap"), (limits_of.PRLIMIT, "util-linux"), (BASH, "bash")):
        if not os.access(program, os.X_OK):
            return f"{program} is missing: install {package}"
    return None


def filter_known() -> bool:
    """True where sandboxes get a system call filter."""
    return seccomp.program(platform.machine()) is not None
