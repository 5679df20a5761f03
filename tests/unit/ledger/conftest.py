"""A ledger that is open for the test, and closed after it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_wrapper.ledger import Ledger
from stateful.rig import FAST_FOLDER, FakeClock, open_ledger


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir=FAST_FOLDER) as name:
        yield Path(name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def ledger(folder: Path, clock: FakeClock) -> Iterator[Ledger]:
    opened = open_ledger(folder, clock)
    yield opened
    opened.close()
