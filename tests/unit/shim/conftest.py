"""A shim with a core that each test scripts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.fake_core import FakeCore
from integration.toolchain import node
from unit.shim.shim import Shim, install


@pytest.fixture(scope="session")
def node_program() -> Path:
    return node()


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="sw-shim-") as name:  # short: a socket's path has 107 bytes
        yield Path(name)


@pytest.fixture
def core(folder: Path) -> Iterator[FakeCore]:
    fake = FakeCore(folder / "agent.sock").start()
    yield fake
    fake.close()


@pytest.fixture
def builtin_core(folder: Path) -> Iterator[FakeCore]:
    fake = FakeCore(folder / "agent.sock", profile="builtin").start()
    yield fake
    fake.close()


@pytest.fixture
def shim(node_program: Path, folder: Path, core: FakeCore) -> Iterator[Shim]:
    started = Shim(node_program, folder, core.path)
    assert started.ready()
    yield started
    started.close()


@pytest.fixture
def builtin_shim(node_program: Path, folder: Path, builtin_core: FakeCore) -> Iterator[Shim]:
    install(folder / "plugin0", impatient=True)
    started = Shim(node_program, folder, builtin_core.path)
    assert started.ready()
    yield started
    started.close()
