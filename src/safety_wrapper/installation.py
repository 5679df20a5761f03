"""Lay out a whole installation in one folder: keys, signed bundle, configuration, every folder with its owner.

Used by ``safety-wrapper demo``, by tests and by benchmarks; a server's packages do the same in /etc, /var/lib and
/run. Needs no root; as root each process gets a uid of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from safety_wrapper import config as configuration
from safety_wrapper import registry
from safety_wrapper.config import Config
from safety_wrapper.errors import ConfigError
from safety_wrapper.identity import Identities, resolve
from safety_wrapper.ledger import LedgerKeys
from safety_wrapper.policy import Bundle, activation, parse, signing

#: Uids without a login, used when root lays out a throw-away installation.
SPARE_USERS: Final = {"core": 64101, "vault": 64102, "runner": 64103, "gateway": 64104, "firewall": 64105}
BUNDLE_KID: Final = "throwaway"
AGENT: Final = "main"
PROFILE: Final = "work"


@dataclass(frozen=True, slots=True)
class Installation:
    """Where everything lies. ``bundle_key`` is the throw-away key that signed the bundle."""

    root: Path
    config: Config
    config_path: Path
    workspace: Path
    bundle_key: Ed25519PrivateKey
    bundle: Bundle


def create(
    root: Path, compiled_bundle: bytes, *, changes: Mapping[str, Any] | None = None, dev_plugins: bool = True
) -> Installation:
    """Make an installation below ``root``, an existing folder. ``changes`` are merged into the configuration.

    Raises ConfigError when the configuration does not hold or a plugin can't be read.
    """
    key = signing.generate_key(root / "bundle-key.pem")
    workspace = root / "workspace"
    data: dict[str, Any] = {
        "version": 1,
        "tenant": "ten_demo",
        "paths": {"state": str(root / "state"), "run": str(root / "run"), "bundle": str(root / "bundle")},
        "users": dict(SPARE_USERS) if os.getuid() == 0 else {},
        "plugins": allow_list(),
        "dev_plugins": dev_plugins,
        "trust": {"bundle_keys": [{"kid": BUNDLE_KID, "ed25519": signing.public_text(key)}], "threshold": 1},
        "gateway": {"profile": "recommended", "agents": {AGENT: {"workspace": PROFILE}}},
        "runner": {"profiles": [{"name": PROFILE, "binds": [{"from": str(workspace), "to": "/work", "mode": "rw"}]}]},
    }
    _merge(data, changes or {})
    config = configuration.parse(data)
    lay_out(config, resolve(config.users))
    workspace.mkdir(mode=0o700, exist_ok=True)
    _own(workspace, resolve(config.users).runner.uid, resolve(config.users).runner.gid)
    install_bundle(config, compiled_bundle, key)
    config_path = root / "config.json"
    config_path.write_text(configuration.dump(config))
    config_path.chmod(0o644)
    return Installation(root, config, config_path, workspace, key, parse(compiled_bundle))


def allow_list() -> list[dict[str, Any]]:
    """Every plugin that is installed now, as an allow list without settings."""
    return [
        {"name": p.name, "version": p.version, "sha256": p.sha256, "settings": {}} for p in registry.find_installed()
    ]


def lay_out(config: Config, who: Identities) -> None:
    """Make the folders of state and run with their owners, and the ledger key if there is none.

    A folder that holds a socket belongs to the process that makes the socket, with the peers' group set on it, so
    that the socket inherits that group.
    """
    paths = config.paths
    for folder in (paths.state, paths.run):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        folder.chmod(0o755)
    _folder(paths.ledger.parent, who.core.uid, who.core.gid, 0o700)
    _folder(paths.stop_file.parent, who.core.uid, who.core.gid, 0o755)
    _folder(paths.bundle, who.core.uid, who.core.gid, 0o755)
    _folder(paths.agent_socket.parent, who.core.uid, who.gateway.gid, 0o2750)
    _folder(paths.admin_socket.parent, who.core.uid, who.admin_gid, 0o2750)
    _folder(paths.runner_socket.parent, who.runner.uid, who.core.gid, 0o2750)
    if not paths.ledger_key.exists():
        LedgerKeys.create(paths.ledger_key)
        _own(paths.ledger_key, who.core.uid, who.core.gid)


def install_bundle(config: Config, compiled: bytes, key: Ed25519PrivateKey) -> None:
    """Sign compiled bytes and lay them down as a new installation's bundle; the core judges it at its start."""
    signatures = signing.signatures_json([signing.sign(compiled, BUNDLE_KID, key)])
    activation.lay_down(compiled, signatures, config.paths.bundle)
    who = resolve(config.users).core
    for path in config.paths.bundle.rglob("*"):
        if not path.is_symlink():
            _own(path, who.uid, who.gid)


def _folder(path: Path, uid: int, gid: int, mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    _own(path, uid, gid)
    path.chmod(mode)


def _own(path: Path, uid: int, gid: int) -> None:
    if os.getuid() == 0:
        os.chown(path, uid, gid)
    elif path.stat().st_uid != os.getuid():
        raise ConfigError(f"{path}: belongs to another user")


def _merge(data: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value
