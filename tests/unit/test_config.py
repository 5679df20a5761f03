"""Settings: unknown keys, the environment on top, checks across sections; no error holds a value."""

import json
import traceback
from pathlib import Path

import pytest

from safety_wrapper import config
from safety_wrapper.errors import ConfigError

KEY = "A" * 43
SECRET = "hunter2"
WORK = {"name": "work", "binds": [{"from": "/srv/work", "to": "/work", "mode": "rw"}]}
AGENT = {"gateway": {"agents": {"main": {"workspace": "work"}}}, "runner": {"profiles": [WORK]}}


def parse(data=None, **environ):
    return config.parse(data or {}, environ)


def test_nothing_said_is_the_defaults():
    found = parse()
    assert (found.tenant, found.version, found.dev_plugins, found.plugins) == ("ten_local", 1, False, [])
    assert found.paths.agent_socket == Path("/run/safety-wrapper/agent/agent.sock")
    assert (found.gateway.spawn.max_depth, found.gateway.spawn.child_calls) == (0, 0)


def test_what_is_dumped_comes_back():
    found = parse({**AGENT, "trust": {"bundle_keys": [{"kid": "k", "ed25519": KEY}]}})
    assert config.parse(json.loads(config.dump(found)), {}) == found


def test_a_file_is_read(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(AGENT))
    assert config.load(path, {}).gateway.agents["main"].workspace == "work"
    assert config.load(None, {"SAFETY_WRAPPER_CONFIG": str(path)}).runner.profiles[0].name == "work"


def test_a_configuration_can_not_be_changed_once_read():
    with pytest.raises(ValueError, match="frozen"):
        parse().tenant = "ten_other"


# ── unknown and wrong ────────────────────────────────────────────────────────────────────────────────────────────

WRONG = {
    "an unknown key": {"levl": SECRET},
    "an unknown key below": {"paths": {"stat": SECRET}},
    "an unknown key deep": {"runner": {"profiles": [{**WORK, "netwrok": SECRET}]}},
    "another version": {"version": 2},
    "a tenant that is none": {"tenant": SECRET},
    "a relative path": {"paths": {"state": SECRET}},
    "a relative bind": {"runner": {"profiles": [{"name": "work", "binds": [{"from": SECRET, "to": "/work"}]}]}},
    "a network for the runner": {"runner": {"profiles": [{**WORK, "network": True}]}},
    "a profile that is none": {"gateway": {"profile": SECRET}},
    "a number out of range": {"gateway": {"spawn": {"max_depth": 9}}},
    "a number below 0": {"limits": {"calls_per_s": -1}},
    "a number without end": {"limits": {"calls_per_s": float("inf")}},
    "no number": {"limits": {"execute_s": float("nan")}},
    "a digest that is none": {"plugins": [{"name": "x", "version": "1", "sha256": SECRET}]},
    "a key that is none": {"trust": {"bundle_keys": [{"kid": "k", "ed25519": SECRET}]}},
    "another spelling of a key": {"trust": {"bundle_keys": [{"kid": "k", "ed25519": "A" * 42 + "B"}]}},
    "a section that is text": {"paths": SECRET},
    "a list that is text": {"plugins": SECRET},
    "a name with a line break": {"plugins": [{"name": "x\n", "version": "1", "sha256": "0" * 64}]},
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_what_is_wrong_is_refused_by_its_key_and_no_value_gets_out(data):
    with pytest.raises(ConfigError) as caught:
        parse(data)
    said = "".join(traceback.format_exception(caught.value)) + caught.value.message + caught.value.do
    assert SECRET not in said
    first = next(iter(data))
    assert first in caught.value.message


@pytest.mark.parametrize("data", [None, [], "x", 7])
def test_a_configuration_is_an_object(data):
    with pytest.raises(ConfigError, match="one object"):
        config.parse(data, {})


@pytest.mark.parametrize(
    "text", ["", "{", '{"tenant":"ten_a","tenant":"ten_b"}', '{"limits":{"execute_s":NaN}}', "\ufeff{}"]
)
def test_a_file_that_is_no_strict_json_is_refused(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        config.load(path, {})


def test_a_file_that_is_away_is_said(tmp_path):
    with pytest.raises(ConfigError, match="No such file") as caught:
        config.load(tmp_path / "away.json", {})
    assert "config apply" in caught.value.do


# ── the environment ──────────────────────────────────────────────────────────────────────────────────────────────


def test_the_environment_is_on_top():
    found = parse(
        {"tenant": "ten_file", "limits": {"burst": 5}},
        SAFETY_WRAPPER_TENANT="ten_env",
        SAFETY_WRAPPER_LIMITS__BURST="7",
        SAFETY_WRAPPER_PATHS__STATE="/tmp/state",
        SAFETY_WRAPPER_GATEWAY__OWNER_SENDERS='["a","b"]',
        OTHER="x",
    )
    assert (found.tenant, found.limits.burst, found.paths.state) == ("ten_env", 7, Path("/tmp/state"))
    assert found.gateway.owner_senders == ["a", "b"]


def test_the_data_given_stay_as_they_are():
    data = {"limits": {"burst": 5}}
    parse(data, SAFETY_WRAPPER_LIMITS__BURST="7")
    assert data == {"limits": {"burst": 5}}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SAFETY_WRAPPER_LEVL", SECRET),
        ("SAFETY_WRAPPER_TENANT__X", SECRET),
        ("SAFETY_WRAPPER_", SECRET),
        ("SAFETY_WRAPPER_LIMITS__BURST", SECRET),
        ("SAFETY_WRAPPER_LIMITS__CALLS_PER_S", "Infinity"),
        ("SAFETY_WRAPPER_LIMITS", '{"burst":1,"burst":2}'),
    ],
)
def test_a_wrong_variable_is_refused(variable, value):
    with pytest.raises(ConfigError) as caught:
        parse({"tenant": "ten_file"}, **{variable: value})
    assert SECRET not in caught.value.message


# ── across sections ──────────────────────────────────────────────────────────────────────────────────────────────

PLUGIN = {"name": "x", "version": "1", "sha256": "0" * 64}
OTHER_KEY = "B" * 42 + "A"
ACROSS = {
    "two profiles of one name": (
        {"runner": {"profiles": [WORK, WORK]}},
        {"runner": {"profiles": [WORK, {**WORK, "name": "other"}]}},
        "two profiles",
    ),
    "a workspace without profile": (
        {**AGENT, "runner": {"profiles": []}},
        AGENT,
        "no such runner profile",
    ),
    "more signers than keys": (
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}], "threshold": 2}},
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}, {"kid": "b", "ed25519": OTHER_KEY}], "threshold": 2}},
        "more than there are keys",
    ),
    "one key under two names": (
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}, {"kid": "b", "ed25519": KEY}], "threshold": 2}},
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}, {"kid": "b", "ed25519": OTHER_KEY}], "threshold": 2}},
        "twice",
    ),
    "two keys of one name": (
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}, {"kid": "a", "ed25519": OTHER_KEY}]}},
        {"trust": {"bundle_keys": [{"kid": "a", "ed25519": KEY}, {"kid": "b", "ed25519": OTHER_KEY}]}},
        "twice",
    ),
    "two plugins of one name": (
        {"plugins": [PLUGIN, PLUGIN]},
        {"plugins": [PLUGIN, {**PLUGIN, "name": "y"}]},
        "two entries",
    ),
}


@pytest.mark.parametrize(("wrong", "right", "said"), ACROSS.values(), ids=ACROSS.keys())
def test_what_does_not_fit_together_is_refused(wrong, right, said):
    with pytest.raises(ConfigError, match=said):
        parse(wrong)
    assert parse(right)
