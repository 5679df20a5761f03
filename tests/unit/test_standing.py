"""What is in force: the stop button, expiry, statements that can't be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from safety_wrapper.ledger import Ledger, LedgerKeys, SystemClock, owner
from safety_wrapper.model import SW_EXPIRED, SW_FAULT, SW_NO_BUNDLE, SW_STOPPED, AutonomyLevel
from safety_wrapper.policy import parse
from safety_wrapper.policy.activation import GRACE_S
from safety_wrapper.standing import InForce, Refusal, Standing


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    keys = LedgerKeys.create(tmp_path / "ledger.key")
    made = Ledger.open(tmp_path / "ledger.db", keys, tenant="ten_test", clock=SystemClock())
    yield made
    made.close()


def standing(ledger: Ledger, tmp_path: Path, base_bundle: bytes, now: int | None = None) -> Standing:
    made = Standing(ledger, tmp_path / "stopped", lambda: int(time.time()) if now is None else now)
    made.take_into_force(parse(base_bundle))
    return made


def rule(made: Standing) -> str:
    found = made.now_in_force()
    assert isinstance(found, Refusal)
    return found.rule


def test_without_a_bundle_nothing_runs(ledger: Ledger, tmp_path: Path, base_bundle: bytes) -> None:
    made = Standing(ledger, tmp_path / "stopped", lambda: 0)
    assert rule(made) == SW_NO_BUNDLE
    made.take_into_force(parse(base_bundle))
    assert isinstance(made.now_in_force(), InForce)


def test_stop_file_stops_and_one_that_can_not_be_read_too(ledger: Ledger, tmp_path: Path, base_bundle: bytes) -> None:
    made = standing(ledger, tmp_path, base_bundle)
    assert isinstance(made.now_in_force(), InForce)
    (tmp_path / "stopped").symlink_to("nowhere")
    assert rule(made) == SW_STOPPED
    (tmp_path / "stopped").unlink()
    (tmp_path / "file").touch()
    odd = Standing(ledger, tmp_path / "file" / "stopped", lambda: 0)
    assert odd.stopped


def test_expiry_with_grace(ledger: Ledger, tmp_path: Path, base_bundle: bytes) -> None:
    end = parse(base_bundle).expires_at
    assert isinstance(standing(ledger, tmp_path, base_bundle, end + GRACE_S - 1).now_in_force(), InForce)
    assert rule(standing(ledger, tmp_path, base_bundle, end + GRACE_S)) == SW_EXPIRED


def test_statements_are_read_again_when_they_change(ledger: Ledger, tmp_path: Path, base_bundle: bytes) -> None:
    made = standing(ledger, tmp_path, base_bundle)
    before = made.now_in_force()
    assert isinstance(before, InForce)
    assert before.owner.level_for("main") is AutonomyLevel.TRUSTED_ASSISTANT
    ledger.write_blocking(
        lambda txn: owner.set_statement(txn, kind="level", body={"agent": "*", "level": 1}, by="local_root", reason="")
    )
    made.forget_owner()
    after = made.now_in_force()
    assert isinstance(after, InForce)
    assert after.owner.level_for("main") is AutonomyLevel.TRAINING_WHEELS


def test_edited_statements_block(ledger: Ledger, tmp_path: Path, base_bundle: bytes) -> None:
    made = standing(ledger, tmp_path, base_bundle)
    ledger.write_blocking(
        lambda txn: owner.set_statement(txn, kind="level", body={"agent": "*", "level": 1}, by="local_root", reason="")
    )
    ledger.write_blocking(lambda txn: txn.db.execute("""UPDATE owner_statement SET body = '{"agent":"*","level":3}'"""))
    made.forget_owner()
    assert rule(made) == SW_FAULT
