"""The version floor of the policy bundle: never lower. It lies in the state row, under that row's MAC."""

from __future__ import annotations

import re
from dataclasses import dataclass

from safety_wrapper.errors import RefusedError
from safety_wrapper.ledger.transaction import Look, Txn


@dataclass(frozen=True, slots=True)
class Floor:
    """The newest bundle that was ever in force, and its digest."""

    version: int
    sha256: str


def get(look: Look) -> Floor | None:
    """The floor, or None before the first activation. Raises LedgerCorruptError if it was edited."""
    state = look.state
    if state.floor_version is None or state.floor_sha256 is None:
        return None
    return Floor(state.floor_version, state.floor_sha256)


def raise_to(txn: Txn, version: int, sha256: str) -> None:
    """Set the floor. The same bundle again changes nothing. Raises RefusedError for an older version, for the same
    version with another digest, and for what is no version or digest."""
    if version < 1 or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise RefusedError("no version and digest of a bundle")
    now = get(txn)
    if now is not None and (version < now.version or (version == now.version and sha256 != now.sha256)):
        raise RefusedError("older than the bundle in force, or the same version with other contents")
    if now == Floor(version, sha256):
        return
    txn.state.floor_version = version
    txn.state.floor_sha256 = sha256
    txn.audit("bundle", body={"event": "floor", "version": version, "sha256": sha256})
