"""The key file: its mode, its length, its owner; and ledgers that belong to another key, tenant or user."""

from __future__ import annotations

from pathlib import Path

import pytest

from safety_wrapper.errors import ConfigError, LedgerCorruptError, LedgerError
from safety_wrapper.ledger import Ledger, LedgerKeys
from stateful.rig import TENANT, FakeClock, open_ledger


def test_another_key_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    with pytest.raises(LedgerCorruptError):
        Ledger.open(folder / "ledger.db", LedgerKeys(bytes(32)), tenant=TENANT, clock=FakeClock())
    open_ledger(folder).close()


def test_another_tenant_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    keys = LedgerKeys(bytes(range(32)))
    with pytest.raises(LedgerCorruptError):
        Ledger.open(folder / "ledger.db", keys, tenant="ten_other", clock=FakeClock())


def test_ledger_that_others_can_read_is_refused(folder: Path) -> None:
    open_ledger(folder).close()
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o077 == 0
    (folder / "ledger.db").chmod(0o640)
    with pytest.raises(LedgerError, match="read by others"):
        open_ledger(folder)
    (folder / "ledger.db").chmod(0o600)
    open_ledger(folder).close()


def test_ledger_behind_a_link_is_refused(folder: Path) -> None:
    (folder / "real").mkdir()
    open_ledger(folder / "real").close()
    (folder / "ledger.db").symlink_to(folder / "real" / "ledger.db")
    with pytest.raises(LedgerError):
        open_ledger(folder)


def test_key_file(folder: Path) -> None:
    path = folder / "ledger.key"
    made = LedgerKeys.create(path)
    assert path.stat().st_mode & 0o777 == 0o400
    assert path.stat().st_size == 32
    assert LedgerKeys.load(path).audit == made.audit
    assert len({made.audit, made.grant}) == 2
    assert made.audit.hex() not in repr(made)
    with pytest.raises(ConfigError):
        LedgerKeys.create(path)


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o404, 0o644, 0o000])
def test_key_of_wrong_mode(folder: Path, mode: int) -> None:
    path = folder / "ledger.key"
    LedgerKeys.create(path)
    path.chmod(mode)
    with pytest.raises(ConfigError, match="0400"):
        LedgerKeys.load(path)
    path.chmod(0o400)
    LedgerKeys.load(path)


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_key_of_wrong_length(folder: Path, size: int) -> None:
    path = folder / "ledger.key"
    path.write_bytes(bytes(size))
    path.chmod(0o400)
    with pytest.raises(ConfigError, match="32 bytes"):
        LedgerKeys.load(path)


def test_key_that_is_no_file(folder: Path) -> None:
    path = folder / "ledger.key"
    with pytest.raises(ConfigError):
        LedgerKeys.load(path)
    path.mkdir()
    with pytest.raises(ConfigError):
        LedgerKeys.load(path)
    LedgerKeys.create(folder / "real.key")
    (folder / "link.key").symlink_to(folder / "real.key")
    with pytest.raises(ConfigError):
        LedgerKeys.load(folder / "link.key")
