"""Ids: a prefix and a ULID. Unguessable, never used for order (the clock may be wrong)."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """``prefix`` is one of the closed list: call dec apr grt tkt job own."""
    return f"{prefix}_{ULID()}"
