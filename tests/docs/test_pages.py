"""The pages: links lead somewhere, commands exist, and the project speaks of itself alone."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from safety_wrapper.cli import COMMANDS

ROOT = Path(__file__).parents[2]


def tracked() -> list[Path]:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    return [ROOT / name for name in done.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


PAGES = [path for path in tracked() if path.suffix == ".md"]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Pieces, so that this file does not hold what it looks for.
FOREIGN = tuple(
    "".join(pair)
    for pair in (
        ("/work/", "shared"),
        ("/work/", "main"),
        ("/opt/", "pypi"),
        ("/root/", ".pyenv"),
        ("pypi", ".org"),
        ("npmjs", ".org"),
    )
)


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target and not target.startswith(("#", "mailto:")):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_no_file_names_this_machine_or_a_registry() -> None:
    for path in tracked():
        data = path.read_bytes()
        for words in FOREIGN:
            assert words.encode() not in data, f"{name(path)} holds {words}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_on_pages_exist(page: Path) -> None:
    dev = (ROOT / "dev").read_text()
    for block in CONSOLE.findall(page.read_text()):
        for line in block.splitlines():
            words = line.removeprefix("$ ").split()
            if not line.startswith("$ ") or not words:
                continue
            if words[0] == "./dev":
                assert re.search(rf"^{words[1]}\)|^{words[1]} \|", dev, re.MULTILINE), line
            elif words[0] == "safety-wrapper":
                assert words[1] in COMMANDS or words[1].startswith("-"), line


def test_the_readme_has_the_two_commands_and_ci_calls_the_second() -> None:
    blocks = "".join(CONSOLE.findall((ROOT / "README.md").read_text()))
    assert "$ ./dev demo\n" in blocks
    assert "$ ./dev test\n" in blocks
    calls = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if "./" in line]
    assert calls == ["exec ./dev test"]


def test_every_decision_record_is_numbered_and_dated() -> None:
    for number, path in enumerate(sorted((ROOT / "docs" / "adr").glob("*.md")), start=1):
        assert path.name.startswith(f"{number:04}-")
        assert re.search(r"^\d{4}-\d{2}-\d{2} · \w+$", path.read_text(), re.MULTILINE), name(path)


NAMED_TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_test_that_a_page_names_is_there() -> None:
    for page in PAGES:
        for file, test in NAMED_TEST.findall(page.read_text()):
            path = ROOT / file
            assert path.exists(), f"{name(page)} names {file}"
            assert re.search(rf"^(async )?def {test}\(", path.read_text(), re.MULTILINE), f"{file}::{test}"


def test_every_attack_is_in_the_threat_model() -> None:
    model = (ROOT / "docs" / "threat-model.md").read_text()
    for path in sorted((ROOT / "tests" / "attacks").glob("test_*.py")):
        assert name(path) in model, f"{name(path)} is not in docs/threat-model.md"


def test_the_tree_points_at_no_page_that_is_not_here() -> None:
    pointer = re.compile(rb"\bdocs/[\w/-]+\.md\b")
    for path in tracked():
        if path.suffix in {".py", ".js", ".mjs", ".yaml", ".toml", ".md"} and path != Path(__file__):
            for target in pointer.findall(path.read_bytes()):
                assert (ROOT / target.decode()).exists(), f"{name(path)} points at {target.decode()}"
