"""Ids: a prefix that says what it names, and a ULID."""

from __future__ import annotations

from ulid import ULID


def new_id(prefix: str) -> str:
    """``dec_01J…``: sorts by time, 80 random bits, so that it can't be guessed."""
    return f"{prefix}_{ULID()}"
