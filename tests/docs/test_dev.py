"""./dev finds an interpreter where people have one, and says one line where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: What the script itself calls; no interpreter among them.
TOOLS = ("sh", "env", "cat", "dirname", "sha256sum", "cut", "mkdir", "rm")


def programs(folder: Path, **scripts: str) -> Path:
    """A folder for PATH with the script's own tools and ``scripts``."""
    folder.mkdir()
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (folder / tool).symlink_to(found)
    for name, text in scripts.items():
        path = folder / name.replace("_", ".")
        path.write_text(f"#!{shutil.which('sh')}\n{text}\n")
        path.chmod(0o755)
    return folder


def dev(path: Path, home: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    home.mkdir(exist_ok=True)
    given = {"PATH": str(path), "HOME": str(home), **environ}
    return subprocess.run([ROOT / "dev", *command], env=given, capture_output=True, text=True, check=False, timeout=60)


def interpreter() -> str:
    return os.path.realpath(sys.executable)


def is_ours(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == 0 and os.path.realpath(done.stdout.strip()) == interpreter()


def test_on_path(tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", python3_13=f'exec "{interpreter()}" "$@"')
    assert is_ours(dev(path, tmp_path / "home", "python"))


def test_a_shim_that_does_not_start_is_passed_over(tmp_path: Path) -> None:
    shims = programs(tmp_path / "shims", python3_13="exit 127", python3="exit 127")
    later = programs(tmp_path / "bin", python3_13=f'exec "{interpreter()}" "$@"')
    assert is_ours(dev(Path(f"{shims}:{later}"), tmp_path / "home", "python"))


def test_in_pyenvs_folder(tmp_path: Path) -> None:
    version = tmp_path / "home" / ".pyenv" / "versions" / "3.13.7" / "bin"
    version.mkdir(parents=True)
    (version / "python3").symlink_to(interpreter())
    path = programs(tmp_path / "bin", python3="exit 127")
    assert is_ours(dev(path, tmp_path / "home", "python"))


def test_through_uv(tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", uv=f'test "$1 $2" = "python find" && echo "{interpreter()}"')
    assert is_ours(dev(path, tmp_path / "home", "python"))


def test_by_name(tmp_path: Path) -> None:
    path = programs(tmp_path / "bin")
    assert is_ours(dev(path, tmp_path / "home", "python", SW_PYTHON=interpreter()))


def test_none_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    path = programs(tmp_path / "bin", python3="exit 1", uv="exit 1")
    done = dev(path, tmp_path / "home", "python")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") <= 2
    assert "install one" in done.stderr.splitlines()[-1]


def test_an_unknown_command(tmp_path: Path) -> None:
    done = dev(programs(tmp_path / "bin"), tmp_path / "home", "nonsense")
    assert done.returncode == 2
    assert "unknown command" in done.stderr


def test_the_lock_names_hashes_and_no_address() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    pinned = [line for line in text.splitlines() if line and not line.startswith((" ", "#"))]
    assert pinned
    assert all("==" in line for line in pinned)
    assert text.count("--hash=sha256:") >= len(pinned)
