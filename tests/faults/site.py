"""Install the fault plugin as a distribution in a folder of its own, to be put on PYTHONPATH of a real core."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parent / "sw_fault"


def make(root: Path) -> dict[str, str]:
    """The folder made; the environment that lets a process find it."""
    site = root / "site"
    shutil.copytree(SOURCE, site / "sw_fault", ignore=shutil.ignore_patterns("__pycache__"))
    info = site / "sw_fault-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sw-fault\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[safety_wrapper]\nfault = sw_fault:plugin\n")
    return {"PYTHONPATH": str(site)}


def allow_list(env: dict[str, str], settings: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The allow list of all plugins that a process with ``env`` finds, with the settings given for some."""
    code = (
        "import json; from safety_wrapper import registry;"
        "print(json.dumps([[p.name, p.version, p.sha256] for p in registry.find_installed()]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, check=True, capture_output=True, text=True
    )
    return [
        {"name": name, "version": version, "sha256": sha256, "settings": settings.get(name, {})}
        for name, version, sha256 in json.loads(done.stdout)
    ]
