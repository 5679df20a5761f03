"""Say whether the shim, the gateway's configuration and its program are still what was installed. Changes nothing.

What the gateway runs is a private copy of the plugin that its own user can write: the digests here prove what was
installed; what runs is told by the shim's hello and, later, by the wire.
"""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safety_wrapper import identity
from safety_wrapper.bridge.openclaw import GATEWAY_VERSION, RECORD, Layout, layout_of, shim_sha256
from safety_wrapper.config import Config


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``weaker``: as installed, but less than the recommended profile gives."""

    name: str
    ok: bool
    detail: str
    weaker: bool = False


def examine(config: Config) -> list[Finding]:
    """Compare what lies on the disk with what was installed and with what this package ships. Changes nothing."""
    layout = layout_of(config)
    try:
        record = json.loads(layout.record.read_bytes())
        installed: dict[str, str] = dict(record["files"])
        shim, profile, program = (str(record[key]) for key in ("shim_sha256", "profile", "program"))
    except FileNotFoundError:
        return [Finding("installed", ok=False, detail="nothing here: run `safety-wrapper openclaw install`")]
    except (ValueError, KeyError, TypeError):
        return [Finding("installed", ok=False, detail="installed.json is damaged: install again")]
    shim_fault = [] if shim == shim_sha256() else ["install again, then restart the gateway"]
    profile_fault = [] if profile == config.gateway.profile else ["install again"]
    return [
        _same(layout, installed),
        _strangers(layout, installed),
        _owned(layout, installed),
        _listed("shim", shim_fault, "the shipped one", "of another version"),
        _listed("profile", profile_fault, profile, "differs from the configuration"),
        _program(Path(program)),
        *_weaker(config),
    ]


def running(status: Mapping[str, Any]) -> Finding:
    """What the core says of its gateway: ``status`` is the admin socket's answer."""
    gateway = status["gateway"]
    if not gateway["connected"]:
        return Finding("gateway", ok=False, detail="no gateway is connected: start it, or look at its log")
    if not gateway["ready"]:
        return Finding("gateway", ok=False, detail="connected, but not as installed: restart it, or install again")
    return Finding("gateway", ok=True, detail=f"connected and ready, version {gateway['version']}")


def _program(program: Path) -> Finding:
    """The gateway on the disk must be the version whose behaviour was observed."""
    try:
        found = str(json.loads((program.resolve().parent / "package.json").read_bytes())["version"])
    except (OSError, ValueError, KeyError):
        found = "unknown"
    return _listed("program", [] if found == GATEWAY_VERSION else [found], found, f"not {GATEWAY_VERSION}")


def _listed(name: str, faults: list[str], good: str, bad: str) -> Finding:
    return Finding(name, ok=not faults, detail=f"{bad}: {', '.join(faults)}" if faults else good)


def _same(layout: Layout, installed: Mapping[str, str]) -> Finding:
    changed = [name for name, digest in sorted(installed.items()) if _digest(layout.folder / name) != digest]
    return _listed("files", changed, f"{len(installed)} unchanged", "changed or missing since the installation")


def _strangers(layout: Layout, installed: Mapping[str, str]) -> Finding:
    known = {layout.folder / name for name in installed}
    present = layout.plugin.rglob("*")
    foreign = sorted(str(p.relative_to(layout.plugin)) for p in present if p.is_symlink() or p not in known)
    return _listed("plugin folder", foreign, "nothing foreign", "not ours")


def _owned(layout: Layout, installed: Mapping[str, str]) -> Finding:
    """Nothing here may be written by another user than the one who installed it, nor may a folder above it."""
    owner = layout.record.stat().st_uid
    paths = [layout.folder / name for name in [*installed, RECORD]]
    folders = {layout.folder, *layout.folder.parents, *(path.parent for path in paths)}
    faults = [str(path) for path in sorted({*paths, *folders}) if loose(path, owner)]
    return _listed("owners", faults, "sealed", "can be changed by others")


def loose(path: Path, owner: int) -> bool:
    """True when somebody else than root and ``owner`` could change what lies at ``path``, or it is not sealed."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return False  # reported as missing
    if info.st_uid not in {0, owner}:
        return True
    if stat.S_ISDIR(info.st_mode):
        return bool(info.st_mode & 0o022) and not info.st_mode & stat.S_ISVTX
    return bool(info.st_mode & 0o222)


def _weaker(config: Config) -> list[Finding]:
    """What this installation gives less than the recommended one, each in a sentence."""
    found = []
    if config.gateway.profile == "builtin":
        found.append(
            "the gateway's own tools run outside our sandbox: before_tool_call alone gates them, and a shim that "
            "fails to load leaves them ungated"
        )
    if not identity.resolve(config.users).apart:
        found.append("one user for all: code of the gateway can read our files and speak to our admin socket")
    dotenv = layout_of(config).home / "state" / ".env"
    if dotenv.exists():
        found.append(f"{dotenv} exists: the gateway reads it; variables that matter are set already and win")
    found.append("code of the gateway's user can start another gateway; it gets what the core allows, no more")
    return [Finding("weaker", ok=True, detail=detail, weaker=True) for detail in found]


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() if not path.is_symlink() else None
    except OSError:
        return None
