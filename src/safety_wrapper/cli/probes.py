"""The doctor's probes: each looks at the machine as it is and says in one line what it found."""

from __future__ import annotations

import contextlib
import grp
import hashlib
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from safety_wrapper.config import Config
from safety_wrapper.errors import SafetyError

#: Below this the ledger's writer may soon have to refuse.
LOW_DISK_BYTES: Final = 256 * 1024**2
_BWRAP: Final = (
    "bwrap --unshare-all --unshare-user --disable-userns --new-session --die-with-parent --cap-drop ALL --clearenv "
    "--ro-bind / / /bin/true"
)


@dataclass(frozen=True, slots=True)
class Probe:
    """One finding. ``weaker``: it works, but a guarantee holds less than it could."""

    name: str
    ok: bool
    detail: str
    weaker: bool = False
    do: str = ""


def all_of(config: Config) -> list[Probe]:
    """Every probe, in an order that a reader can follow. A probe that fails itself is a finding."""
    probes: tuple[Callable[[Config], list[Probe]], ...] = (
        python,
        sandbox,
        cgroup,
        users,
        sockets,
        keys,
        gateway,
        clock,
        disk,
    )
    found: list[Probe] = []
    for probe in probes:
        try:
            found += probe(config)
        except (OSError, KeyError, ValueError) as exc:
            found.append(Probe(probe.__name__, ok=False, detail=f"the probe failed: {type(exc).__name__}"))
    return found


def python(config: Config) -> list[Probe]:
    """The interpreter, and whether the other users can start it."""
    version = ".".join(map(str, sys.version_info[:3]))
    found = [Probe("python", ok=sys.version_info >= (3, 13), detail=version, do="install Python 3.13 or newer")]
    closed = next((folder for folder in Path(sys.executable).resolve().parents if not _open_to_all(folder)), None)
    if closed is not None and _separate(config):
        found.append(
            Probe(
                "python folder",
                ok=True,
                weaker=True,
                detail=f"{closed} is closed to the other users: only `up` as root can start their processes",
            )
        )
    return found


def sandbox(config: Config) -> list[Probe]:
    """Whether the runner's user can make the sandbox, by making one."""
    if shutil.which("bwrap") is None:
        return [Probe("sandbox", ok=False, detail="bubblewrap is missing", do="install it: apt-get install bubblewrap")]
    uid, gid = _identity(config.users.runner)
    try:
        done = subprocess.run(
            _BWRAP.split(),
            capture_output=True,
            timeout=10,
            check=False,
            user=uid,
            group=gid,
            extra_groups=None if uid is None else [],
        )
    except PermissionError:
        return [Probe("sandbox", ok=False, detail="can't try it as the runner's user", do="run doctor as root")]
    except subprocess.TimeoutExpired:
        return [Probe("sandbox", ok=False, detail="bubblewrap hangs", do="look at the kernel's log")]
    if done.returncode:
        return [
            Probe(
                "sandbox",
                ok=False,
                detail="user namespaces are refused to the runner's user",
                do="allow them: kernel.unprivileged_userns_clone, user.max_user_namespaces, or AppArmor's rule",
            )
        ]
    return [Probe("sandbox", ok=True, detail="bubblewrap makes an empty root without network")]


def cgroup(config: Config) -> list[Probe]:
    """Whether memory and processes of all sandboxes together can be limited."""
    from safety_wrapper import identity
    from safety_wrapper.runner import cgroup as delegation

    with contextlib.suppress(SafetyError, OSError):
        found = delegation.find(identity.resolve(config.users).runner.uid, config.runner.cgroup)
        if found is not None:
            return [Probe("cgroup", ok=True, detail="the sandboxes' sum is bounded by a delegated cgroup")]
    return [
        Probe(
            "cgroup",
            ok=True,
            weaker=True,
            detail="memory: per process only; no cgroup with memory and pids is delegated to the runner",
            do="start the runner by its systemd unit",
        )
    ]


def users(config: Config) -> list[Probe]:
    """One user for all is the weakest arrangement."""
    named = {
        role: user for role, user in config.users.model_dump().items() if role != "admin_group" and user is not None
    }
    uids = {role: _uid(user) for role, user in named.items()}
    missing = sorted(role for role, uid in uids.items() if uid is None)
    if missing:
        return [
            Probe(
                "users", ok=False, detail=f"no such user: {', '.join(missing)}", do="create them, or run the installer"
            )
        ]
    same = [(a, b) for a in uids for b in uids if a < b and uids[a] == uids[b]]
    if not named:
        detail = (
            "all processes share one user: whoever leaves the sandbox can read the ledger's key and say yes to itself"
        )
        return [Probe("users", ok=True, weaker=True, detail=detail)]
    if same:
        return [Probe("users", ok=False, detail=f"{same[0][0]} and {same[0][1]} are one user", do="give each its own")]
    if uids.get("runner") == 0:
        return [Probe("users", ok=False, detail="the runner would be root", do="give it a user of its own")]
    return [Probe("users", ok=True, detail="each process has its own user")]


def sockets(config: Config) -> list[Probe]:
    """Owner and mode of each socket that exists."""
    expected = (
        (config.paths.agent_socket, config.users.core),
        (config.paths.admin_socket, config.users.core),
        (config.paths.runner_socket, config.users.runner),
    )
    found = []
    for path, user in expected:
        try:
            status = path.lstat()
        except FileNotFoundError:
            found.append(Probe(path.name, ok=True, detail="not there: its process is not running"))
            continue
        mode = stat.S_IMODE(status.st_mode)
        uid = _uid(user) if user is not None else status.st_uid
        if not stat.S_ISSOCK(status.st_mode):
            found.append(Probe(path.name, ok=False, detail="is no socket", do=f"remove {path} and restart its process"))
        elif mode & 0o007 or status.st_uid != uid:
            detail = f"owner {_name(status.st_uid)}, mode {mode:04o}"
            found.append(
                Probe(path.name, ok=False, detail=detail, do="restart its process; nobody else may own or open it")
            )
        else:
            group = _group(status.st_gid)
            found.append(
                Probe(path.name, ok=True, detail=f"owner {_name(status.st_uid)}, group {group}, mode {mode:04o}")
            )
    return found


def keys(config: Config) -> list[Probe]:
    """The ledger's key must be readable by the core alone."""
    path = config.paths.ledger_key
    try:
        status = path.lstat()
    except FileNotFoundError:
        return [Probe("ledger key", ok=True, detail="not there yet: made at the first start")]
    except PermissionError:
        return [Probe("ledger key", ok=True, detail="closed to this user, as it should be")]
    mode = stat.S_IMODE(status.st_mode)
    uid = _uid(config.users.core) if config.users.core is not None else status.st_uid
    good = stat.S_ISREG(status.st_mode) and not mode & 0o077 and status.st_uid == uid and status.st_nlink == 1
    detail = f"owner {_name(status.st_uid)}, mode {mode:04o}"
    return [
        Probe("ledger key", ok=good, detail=detail, do="chown it to the core's user and chmod 0400; then rotate it")
    ]


def gateway(config: Config) -> list[Probe]:
    """The gateway's configuration must not be writable by the gateway."""
    path = config.gateway.config
    if path is None:
        return [Probe("gateway config", ok=True, weaker=True, detail="not named in the configuration, so not watched")]
    try:
        status, digest = path.lstat(), hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return [Probe("gateway config", ok=False, detail="missing", do="run `safety-wrapper openclaw install`")]
    uid = _uid(config.users.gateway) if config.users.gateway is not None else None
    writable = bool(stat.S_IMODE(status.st_mode) & 0o022) or status.st_uid == uid or stat.S_ISLNK(status.st_mode)
    folder = path.parent.stat()
    writable = writable or folder.st_uid == uid or bool(stat.S_IMODE(folder.st_mode) & 0o002)
    do = "let root own it and its folder, mode 0644 and 0755"
    return [Probe("gateway config", ok=not writable, detail=f"sha256 {digest}, owner {_name(status.st_uid)}", do=do)]


def clock(config: Config) -> list[Probe]:
    """Approvals that outlive a reboot need a synchronised clock."""
    from safety_wrapper.ledger.clock import SystemClock

    if SystemClock().reading().synchronised:
        return [Probe("clock", ok=True, detail="synchronised")]
    detail = "not synchronised: open requests and grants end at a reboot"
    return [Probe("clock", ok=True, weaker=True, detail=detail, do="start a time service")]


def disk(config: Config) -> list[Probe]:
    """Room for the ledger."""
    folder = next((path for path in (config.paths.state, *config.paths.state.parents) if path.exists()), Path("/"))
    free = shutil.disk_usage(folder).free
    detail = f"{free // 1024**2} MiB free for the ledger"
    return [Probe("disk", ok=free >= LOW_DISK_BYTES, detail=detail, do="free space: a full ledger refuses every call")]


def _separate(config: Config) -> bool:
    return bool(_named(config))


def _named(config: Config) -> dict[str, str | int]:
    return {
        role: user for role, user in config.users.model_dump().items() if role != "admin_group" and user is not None
    }


def _open_to_all(folder: Path) -> bool:
    return bool(folder.stat().st_mode & stat.S_IXOTH)


def _identity(user: str | int | None) -> tuple[int | None, int | None]:
    """The uid and gid under which a program is to be tried; None where we are that user already."""
    uid = _uid(user) if user is not None else None
    if uid is None or uid == os.getuid():
        return None, None
    return uid, pwd.getpwuid(uid).pw_gid


def _uid(user: str | int) -> int | None:
    if isinstance(user, int):
        return user
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None


def _name(uid: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(uid).pw_name
    return str(uid)


def _group(gid: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(gid).gr_name
    return str(gid)
