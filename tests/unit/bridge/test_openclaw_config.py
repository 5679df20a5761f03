"""The gateway's configuration: what is the owner's stays, what would open a way past us goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.bridge.openclaw_config import PLUGIN_ID, GatewaySettings, build, difference, masked, text_of
from safety_wrapper.errors import ConfigError

TOKEN = "t" * 40
RECOMMENDED = GatewaySettings(
    "recommended", Path("/run/a.sock"), Path("/etc/p"), Path("/home/w"), TOKEN, 18789, ("telegram:555",)
)
BUILTIN = GatewaySettings("builtin", Path("/run/a.sock"), Path("/etc/p"), Path("/home/w"), TOKEN, 18789)
OWNERS: dict[str, Any] = {
    "models": {"providers": {"p": {"apiKey": "sk-secret", "baseUrl": "https://api.example.com"}}},
    "channels": {"telegram": {"botToken": "123:secret", "accounts": {"a": {"configWrites": True}}}},
    "agents": {
        "defaults": {"model": {"primary": "p/m"}, "tools": {"allow": ["exec"]}, "workspace": "/elsewhere"},
        "entries": {"main": {"default": True, "tools": {"allow": ["*"]}, "sandbox": {"mode": "off"}}},
    },
    "tools": {"allow": ["exec"], "toolSearch": True, "elevated": {"enabled": True}},
    "commands": {"bash": True, "config": True},
    "hooks": {"enabled": True, "token": "x"},
    "cron": {"enabled": True},
    "gateway": {"bind": "lan", "auth": {"mode": "none"}, "terminal": {"enabled": True}},
    "plugins": {"allow": ["evil"], "load": {"paths": ["/tmp/evil"]}, "entries": {"evil": {"enabled": True}}},
    "mcp": {"servers": {"evil": {"command": "sh"}}},
    "env": {"vars": {"HTTPS_PROXY": "http://evil.example"}, "shellEnv": {"enabled": True}},
    "secrets": {"providers": {"x": {"source": "exec", "command": "sh"}}},
}


def test_only_our_tools_are_allowed_in_the_recommended_profile() -> None:
    assert build(RECOMMENDED, OWNERS)["tools"]["allow"] == [PLUGIN_ID]
    builtins = ["exec", "read", "write", "message", "sessions_spawn"]
    assert build(BUILTIN, OWNERS)["tools"]["allow"] == [PLUGIN_ID, *builtins]


def test_what_opens_a_way_past_us_is_shut() -> None:
    for settings in (RECOMMENDED, BUILTIN):
        built = build(settings, OWNERS)
        assert built["tools"]["toolSearch"] is False
        assert built["tools"]["elevated"] == {"enabled": False}
        assert "automations" in built["tools"]["deny"]
        assert all(
            built["commands"][name] is False for name in ("bash", "config", "mcp", "plugins", "debug", "restart")
        )
        assert built["cron"] == built["hooks"] == {"enabled": False}
        assert built["update"]["checkOnStart"] is False
        assert built["gateway"]["terminal"] == {"enabled": False}
        assert built["gateway"]["bind"] == "loopback"
        assert built["gateway"]["auth"] == {"mode": "token", "token": TOKEN}
        assert not any(end["enabled"] for end in built["gateway"]["http"]["endpoints"].values())
        assert built["session"]["dmScope"] == "per-channel-peer"
        assert built["env"] == {"shellEnv": {"enabled": False}}
        assert "mcp" not in built
        assert "secrets" not in built
        assert built["plugins"]["allow"] == [PLUGIN_ID, "telegram"]
        assert built["plugins"]["load"]["paths"] == ["/etc/p"]
        assert set(built["plugins"]["entries"]) == {PLUGIN_ID}


def test_what_is_the_owners_stays() -> None:
    built = build(RECOMMENDED, OWNERS)
    assert built["models"] == OWNERS["models"]
    assert built["channels"]["telegram"]["botToken"] == "123:secret"
    assert built["agents"]["defaults"]["model"] == {"primary": "p/m"}
    assert built["agents"]["entries"] == {"main": {"default": True}}
    assert built["commands"]["ownerAllowFrom"] == ["telegram:555"]


def test_channels_can_not_write_the_configuration() -> None:
    telegram = build(RECOMMENDED, OWNERS)["channels"]["telegram"]
    assert telegram["configWrites"] is False
    assert telegram["accounts"]["a"]["configWrites"] is False


def test_installing_twice_changes_nothing_more() -> None:
    once = build(RECOMMENDED, OWNERS)
    assert build(RECOMMENDED, once) == once
    assert difference(once, build(RECOMMENDED, once)) == ""


@pytest.mark.parametrize(
    "existing", [{"channels": []}, {"agents": "x"}, {"channels": {"telegram": 5}}, {"agents": {"entries": 1}}]
)
def test_a_section_that_is_no_object_is_refused(existing: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        build(RECOMMENDED, existing)


def test_the_difference_shows_no_credential() -> None:
    shown = difference(OWNERS, build(RECOMMENDED, OWNERS))
    assert "bash" in shown
    for secret in ("sk-secret", "123:secret", TOKEN):
        assert secret not in shown


_names = st.sampled_from(["tools", "elevated", "gateway", "hooks", "plugins", "cron", "commands", "x", "allow", "exec"])
_json = st.recursive(
    st.booleans() | st.text(max_size=5), lambda inner: st.dictionaries(_names, inner, max_size=4), max_leaves=12
)


@given(st.dictionaries(_names, _json, max_size=6))
def test_no_existing_file_changes_what_is_ours(existing: dict[str, Any]) -> None:
    mine = build(RECOMMENDED, {})
    built = build(RECOMMENDED, existing)
    assert {key: built[key] for key in mine} == mine


@given(st.dictionaries(st.sampled_from(["token", "apiKey", "bot_token", "X-Password", "x"]), st.text(max_size=9)))
def test_masking_hides_the_text_under_every_telling_key(value: dict[str, str]) -> None:
    assert masked({"a": [value]}) == {"a": [{key: v if key == "x" else "(hidden)" for key, v in value.items()}]}


def test_the_text_is_sorted() -> None:
    assert text_of({"b": 1, "a": 2}) == text_of({"a": 2, "b": 1})
