"""Fixtures that every kind of test may use."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
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


def _room() -> Path:
    """A folder that processes of other users can enter, with a name short enough for a socket below it."""
    path = Path(tempfile.mkdtemp(prefix="sw-", dir="/tmp"))
    path.chmod(0o755)
    return path


@pytest.fixture
def room() -> Iterator[Path]:
    """A folder for one test whose processes run as several users."""
    path = _room()
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def module_room() -> Iterator[Path]:
    """The same for all tests of a module."""
    path = _room()
    yield path
    shutil.rmtree(path, ignore_errors=True)
