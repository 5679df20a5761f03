"""Who may import whom. The table is the architecture; ARCHITECTURE.md says it in words."""

from __future__ import annotations

import ast
import functools
import graphlib
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "src" / "safety_wrapper"
PLUGINS = sorted(ROOT.glob("plugins/*/pyproject.toml"))

#: A part may import parts of its own row and of the rows above it.
ROWS: tuple[frozenset[str], ...] = tuple(
    frozenset(row.split())
    for row in (
        "errors model",
        "canonical naming ids rate reasons frames",
        "decide hookspecs",
        "registry dispatch ledger policy secrets config runner",
        "identity normalise standing settle execution engine held trial policy_in_force",
        "bridge installation serve supervisor cli",
        "testing __main__",
    )
)
ROW_OF = {part: number for number, row in enumerate(ROWS) for part in row}
#: Imports nothing of ours at all.
ALONE = frozenset({"errors", "model"})
#: Names of the package itself, which are no parts.
OWN_NAMES = frozenset({"__version__"})


def imports(path: Path) -> Iterator[str]:
    """Absolute names of every module that a file imports when it runs (what only type checkers see is left out)."""
    yield from _imports(ast.parse(path.read_text()))


def _imports(node: ast.AST) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are absolute"
            assert child.module
            yield from (f"{child.module}.{alias.name}" for alias in child.names)
        yield from _imports(child)


def part_of(name: str) -> str | None:
    """The part of safety_wrapper that an absolute name belongs to."""
    words = name.split(".")
    return words[1] if words[0] == "safety_wrapper" and len(words) > 1 and words[1] not in OWN_NAMES else None


@functools.cache
def parts() -> dict[str, set[str]]:
    """Each part → the other parts that it imports."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(CORE.rglob("*.py")):
        part = path.relative_to(CORE).with_suffix("").parts[0]
        if part != "__init__":
            found[part] |= {other for name in imports(path) if (other := part_of(name)) and other != part}
    return found


@functools.cache
def tops(folder: Path) -> dict[str, set[str]]:
    """Top-level package → the files that import it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in sorted(folder.rglob("*.py")):
        for name in imports(path):
            found[name.partition(".")[0]].add(path.relative_to(folder).as_posix())
    return found


def test_every_part_has_a_row() -> None:
    assert set(parts()) <= ROW_OF.keys()


@pytest.mark.parametrize("part", sorted(parts()))
def test_a_part_imports_only_its_own_row_and_those_above(part: str) -> None:
    too_low = {other for other in parts()[part] if ROW_OF[other] > ROW_OF[part]}
    assert not too_low


@pytest.mark.parametrize("part", sorted(ALONE))
def test_values_and_errors_stand_alone(part: str) -> None:
    assert not parts()[part]


def test_there_is_no_circle() -> None:
    assert list(graphlib.TopologicalSorter(parts()).static_order())


def test_the_core_imports_no_plugin() -> None:
    own = {name for path in PLUGINS for name in packages(path)}
    assert not own & tops(CORE).keys()
    assert not {name for name in tops(CORE) if name.startswith("sw_")}


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.parent.name)
def test_plugins_never_import_each_other(plugin: Path) -> None:
    others = {name for path in PLUGINS if path != plugin for name in packages(path)}
    assert not others & tops(plugin.parent / "src").keys()


@pytest.mark.parametrize("plugin", PLUGINS, ids=lambda path: path.parent.name)
def test_plugins_import_no_private_name_of_the_core(plugin: Path) -> None:
    names = {name for path in (plugin.parent / "src").rglob("*.py") for name in imports(path)}
    ours = {name for name in names if name.startswith("safety_wrapper.")}
    assert not {name for name in ours if any(word.startswith("_") for word in name.split("."))}
    assert not {name for name in ours if part_of(name) in {"bridge", "serve", "supervisor", "cli"}}


def test_the_hub_client_stands_alone() -> None:
    assert "safety_wrapper" not in tops(ROOT / "src" / "hub_client")


def test_yaml_is_read_by_the_command_line_only() -> None:
    assert all(path.startswith("cli/") for path in tops(CORE)["yaml"])


def packages(pyproject: Path) -> set[str]:
    """Top-level packages of a distribution."""
    return {path.name for path in (pyproject.parent / "src").iterdir() if path.suffix == "" and path.is_dir()}


def distributions(requirements: list[str]) -> set[str]:
    """Normalised names of the distributions that requirements name."""
    return {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", item)[0]).lower() for item in requirements}  # type: ignore[index]


@pytest.mark.parametrize("pyproject", [ROOT / "pyproject.toml", *PLUGINS], ids=lambda path: path.parent.name)
def test_what_is_imported_is_declared(pyproject: Path) -> None:
    declared = distributions(tomllib.loads(pyproject.read_text())["project"]["dependencies"])
    providers = importlib.metadata.packages_distributions()
    given = packages(pyproject) | {"safety_wrapper"} | sys.stdlib_module_names
    for top, files in tops(pyproject.parent / "src").items():
        if top in given or (top == "pytest" and all(path.startswith("safety_wrapper/testing/") for path in files)):
            continue  # the kit for plugin authors runs inside their pytest
        assert distributions(providers.get(top, [])) & declared, f"{top} is imported by {sorted(files)}, not declared"


BLOCKER = """
import importlib.abc, sys
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocker())
"""


def test_the_runtime_needs_no_development_package() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = distributions(data["dependency-groups"]["dev"]) - distributions(data["project"]["dependencies"])
    providers = importlib.metadata.packages_distributions()
    blocked = {top for top, names in providers.items() if distributions(names) & wanted}
    assert {"pytest", "mypy", "hypothesis"} <= blocked
    modules = [
        ".".join(("safety_wrapper", *path.relative_to(CORE).with_suffix("").parts)).removesuffix(".__init__")
        for path in sorted(CORE.rglob("*.py"))
        if "testing" not in path.parts and path.name != "__main__.py"
    ]
    code = BLOCKER.format(blocked=blocked) + "".join(f"import {name}\n" for name in [*modules, "hub_client"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
