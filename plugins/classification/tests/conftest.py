"""One judge for all tests: the base policy, by the very path of the hook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from safety_wrapper import registry
from safety_wrapper.cli.policy_source import compile_source
from safety_wrapper.model import SafetyClass
from safety_wrapper.policy import parse
from safety_wrapper.registry import AllowedPlugin
from safety_wrapper.trial import Trial

BASE = Path(__file__).parents[3] / "policy_bundles" / "base"

settings.register_profile("plugin", database=None, deadline=None, print_blob=True)
settings.load_profile("plugin")


@pytest.fixture(scope="session")
def trial() -> Trial:
    allowed = [AllowedPlugin(p.name, p.version, p.sha256) for p in registry.find_installed()]
    return Trial(registry.load(allowed, dev=True), parse(compile_source(BASE)))


@pytest.fixture(scope="session")
def class_of(trial: Trial) -> Callable[[str], SafetyClass]:
    """The class of a shell command in the sandbox."""
    return lambda command: trial.judge("exec", {"command": command}).classification.safety_class
