"""The demo, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys


def test_demo_ends_as_promised() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safety_wrapper", "demo", "--json"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = json.loads(done.stdout)
    assert shown["ok"] is True
    assert [scene["outcome"] for scene in shown["scenes"]] == [
        "allow", "require_approval", "allow", "require_approval", "require_approval", "block", "require_approval",
        "refused", "verified",
    ]  # fmt: skip
    assert all(scene["ok"] for scene in shown["scenes"])


def test_demo_for_people_names_every_scene() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "safety_wrapper", "demo"], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("✓") == 9
    assert "Traceback" not in done.stdout + done.stderr
