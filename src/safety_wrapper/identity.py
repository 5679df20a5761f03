"""Whom processes run as: names or numbers of the configuration turned into uids, and giving up root for good."""

from __future__ import annotations

import ctypes
import grp
import os
import pwd
import signal
from collections.abc import Callable
from dataclasses import dataclass

from safety_wrapper.config import User, Users
from safety_wrapper.errors import ConfigError
from safety_wrapper.frames import Peer


@dataclass(frozen=True, slots=True)
class Identity:
    """A uid with its primary gid."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Identities:
    """Who is who on this machine. Equal uids = one user for all, which is weaker."""

    core: Identity
    runner: Identity
    gateway: Identity
    admin_gid: int

    @property
    def apart(self) -> bool:
        """True when core, runner and gateway can't read each other's files."""
        return len({self.core.uid, self.runner.uid, self.gateway.uid}) == 3


def resolve(users: Users) -> Identities:
    """The configured users. Raises ConfigError for one that does not exist, and for root."""
    return Identities(
        _identity("core", users.core),
        _identity("runner", users.runner),
        _identity("gateway", users.gateway),
        _group(users.admin_group),
    )


def become(identity: Identity, groups: tuple[int, ...] = ()) -> None:
    """Give up root for good. Does nothing when this process is that user already; refuses to stay root."""
    if os.getuid() != identity.uid:
        os.setgroups(list(groups))
        os.setresgid(identity.gid, identity.gid, identity.gid)
        os.setresuid(identity.uid, identity.uid, identity.uid)
    if os.getuid() == 0 or os.geteuid() == 0:
        raise ConfigError("this process must not run as root", do="set users in the configuration")
    os.umask(0o077)
    _end_with_parent()


def admits_gateway(who: Identities) -> Callable[[Peer], bool]:
    """agent.sock: the gateway's user and nobody else."""
    return lambda peer: peer.uid == who.gateway.uid


def admits_admin(who: Identities) -> Callable[[Peer], bool]:
    """admin.sock: root and the administrators' group; never the gateway or the runner, whatever their groups.

    Where all is one user there is no telling them apart; ``status`` and ``doctor`` say so.
    """

    def admit(peer: Peer) -> bool:
        if peer.uid == 0:
            return True
        if who.apart:
            barred = {who.gateway.uid, who.runner.uid}
            return peer.uid not in barred and (peer.uid == who.core.uid or _in_group(peer, who.admin_gid))
        return peer.uid == who.core.uid

    return admit


def _end_with_parent() -> None:
    """When the supervisor is killed, its children end too. Set after the uid changed, since that clears it."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _in_group(peer: Peer, gid: int) -> bool:
    if peer.gid == gid:
        return True
    try:
        name = pwd.getpwuid(peer.uid).pw_name
        return name in grp.getgrgid(gid).gr_mem
    except KeyError:
        return False


def _identity(role: str, user: User | None) -> Identity:
    if user is None:
        return Identity(os.getuid(), os.getgid())
    if isinstance(user, int):
        found = Identity(user, user)
    else:
        try:
            entry = pwd.getpwnam(user)
        except KeyError as exc:
            raise ConfigError(f"users.{role}: there is no such user", do="create it, or correct the name") from exc
        found = Identity(entry.pw_uid, entry.pw_gid)
    if found.uid == 0:
        raise ConfigError(f"users.{role}: must not be root")
    return found


def _group(group: User | None) -> int:
    if group is None:
        return 0
    if isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError as exc:
        raise ConfigError("users.admin_group: there is no such group") from exc
