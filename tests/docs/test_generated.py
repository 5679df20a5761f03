"""Pages made from the code are what the code says."""

from __future__ import annotations

import importlib.util
import inspect
from pathlib import Path
from types import ModuleType

import pytest

from safety_wrapper import hookspecs
from safety_wrapper.hookspecs import CONTRACTS

DOCS = Path(__file__).parents[2] / "docs"


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["hooks.md", "reference/cli.md", "reference/configuration.md"])
def test_a_generated_page_is_up_to_date(page: str) -> None:
    assert (DOCS / page).read_text() == generator().pages()[DOCS / page], "run ./dev docs"


@pytest.mark.parametrize("hook", CONTRACTS)
def test_a_hook_is_described_with_its_arguments(hook: str) -> None:
    text = (DOCS / "hooks.md").read_text()
    section = text[text.index(f"### {hook}\n") :]
    for argument in inspect.signature(getattr(hookspecs, hook)).parameters:
        assert argument in section.partition("\n###")[0]


@pytest.mark.parametrize("hook", CONTRACTS)
def test_a_hook_has_a_row_of_faults(hook: str) -> None:
    matrix = (DOCS / "hooks.md").read_text().partition("## Hook × fault")[2]
    assert matrix.count(f"| `{hook}` |") == 1
