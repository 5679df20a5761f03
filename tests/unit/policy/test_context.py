"""The test context of a case: a closed list of what the core knows otherwise."""

from __future__ import annotations

from typing import Any

import pytest

from safety_wrapper.policy.faults import BundleShapeError
from safety_wrapper.policy.shape import check_context
from safety_wrapper.trial import context_of

KNOWN: dict[str, Any] = {
    "cwd": "/srv",
    "level": 3,
    "gate": "named",
    "tenant_domains": ["example.com"],
    "internal_hosts": ["wiki.example.com"],
}


@pytest.mark.parametrize("key", KNOWN)
def test_each_known_key_is_admitted_and_understood_by_a_trial(key: str) -> None:
    check_context({key: KNOWN[key]})
    assert context_of({key: KNOWN[key]}) != context_of({})


@pytest.mark.parametrize("key", [*KNOWN, "agent", "channel", "sandbox", "session"])
def test_anything_else_is_refused(key: str) -> None:
    with pytest.raises(BundleShapeError):
        check_context({key: {"odd": 1}})
