"""Run the benchmarks, each in a process of its own, and keep their JSON beside the commit: ./dev bench [NAME …]"""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"


def main(names: list[str]) -> int:
    """0 when every benchmark ran."""
    RESULTS.mkdir(exist_ok=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    failed = 0
    for script in sorted(FOLDER.glob("bench_*.py")):
        name = script.stem.removeprefix("bench_")
        if names and name not in names:
            continue
        print(f"── {name}", file=sys.stderr, flush=True)
        done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(done.stderr[-2000:], file=sys.stderr)
            failed += 1
            continue
        machine = {"python": platform.python_version(), "kernel": platform.release(), "cores": _cores()}
        result = {"commit": commit, "machine": machine, "result": json.loads(done.stdout)}
        text = json.dumps(result, indent=1)
        (RESULTS / f"{name}.json").write_text(text + "\n")
        print(text)
    return 1 if failed else 0


def _cores() -> int:
    import os

    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
