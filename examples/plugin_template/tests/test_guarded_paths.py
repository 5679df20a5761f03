"""How a plugin is tested: its own judgement, and the contract."""
# ruff: noqa: S101 - a test speaks in assertions

from __future__ import annotations

from typing import Any

import pytest
from sw_guarded_paths import judge, plugin

from safety_wrapper.errors import ConfigError
from safety_wrapper.model import SafetyClass
from safety_wrapper.testing import check, make_call

PREFIXES = ("/srv/contracts",)


@pytest.mark.parametrize(
    "params",
    [
        {"path": "/srv/contracts"},
        {"path": "/srv/contracts/2026/a.pdf"},
        {"path": "/srv//contracts/./a"},
        {"path": "/srv/other/../contracts/a"},
        {"command": "cp '/srv/contracts/a' /tmp"},
        {"command": "cat a;rm /srv/contracts/a"},
        {"files": [{"at": "/srv/contracts/a"}]},
        {"/srv/contracts/a": 1},
    ],
)
def test_what_mentions_a_guarded_folder_is_red(params: dict[str, Any]) -> None:
    found = judge(params, PREFIXES)
    assert found is not None
    assert found.safety_class is SafetyClass.RED


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"path": "/srv/contracts-old/a"},
        {"path": "/srv"},
        {"path": "/home/srv/contracts"},
        {"path": "srv/contracts/a"},
        {"command": "echo hello", "n": 7, "x": None},
    ],
)
def test_about_anything_else_it_has_no_opinion(params: dict[str, Any]) -> None:
    assert judge(params, PREFIXES) is None


def test_it_keeps_the_contract() -> None:
    calls = [make_call("read", {"path": "/srv/contracts/a"}), make_call("read", {"path": "/work/a"})]
    assert check(plugin({"prefixes": list(PREFIXES)}), calls=calls) == []


@pytest.mark.parametrize(
    "settings",
    [{"prefix": ["/srv"]}, {"prefixes": "/srv"}, {"prefixes": ["srv"]}, {"prefixes": ["/"]}, {"prefixes": [7]}],
)
def test_settings_that_are_not_understood_stop_the_start(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        plugin(settings)
    assert plugin({"prefixes": ["/srv/"]}) is not None
