"""Fixtures that every kind of test may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings
from safety_wrapper.cli.policy_source import compile_source

REPOSITORY = Path(__file__).parent.parent

settings.register_profile("default", database=None, deadline=None, print_blob=True)
settings.load_profile("default")


@pytest.fixture(scope="session")
def base_bundle() -> bytes:
    """The compiled base policy of this repository."""
    return compile_source(REPOSITORY / "policy_bundles" / "base")
