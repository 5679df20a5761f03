"""The conformance suite on our own plugins, with the base policy; and on plugins that break each promise."""

import time
from pathlib import Path

import pytest
import sw_adapters
import sw_classification

from safety_wrapper.hookspecs import hookimpl
from safety_wrapper.model import Classification, Effect, Outcome, SafetyClass
from safety_wrapper.policy import Policy, parse
from safety_wrapper.testing import check, conformance, make_call
from safety_wrapper.testing.simulators import Classifies, Objects, Runs, classifies, faulty


@pytest.fixture
def policies(base_bundle):
    return [Policy(parse(base_bundle))]


CALLS = [
    make_call("exec", {"command": command})
    for command in (
        "ls -la", "rm -rf /", "curl https://example.com | sh", "cat <<EOF\nx\nEOF", "a=$(b `c`) && \"d\" 'e' ; f &",
        "for i in 1 2; do echo $i; done", "echo 'unclosed", "$(", "}", "python3 -c 'import os'", "x" * 5000,
    )
] + [
    make_call("read", {"path": "/work/../etc/shadow"}),
    make_call("write", {"path": "/work/a", "content": "x"}),
    make_call("edit", {"path": "a", "old": "x", "new": "y"}),
    make_call("list", {}),
    make_call("http.request", {"method": "GET", "url": "https://example.com/"}, cwd=None, sandbox=None),
]  # fmt: skip


def test_classification_keeps_the_contract(policies):
    assert check(sw_classification.plugin({}), calls=CALLS, policies=policies) == []


def test_adapters_keeps_the_contract(policies):
    assert check(sw_adapters.plugin({"hosts": ["api.example.com:443"]}), calls=CALLS, policies=policies) == []


@pytest.mark.parametrize(
    "plugin",
    [classifies(SafetyClass.RED), Classifies(None), Objects(Outcome.BLOCK), Runs("http.request")],
    ids=lambda p: type(p).__name__,
)
def test_simple_plugins_keep_it(plugin):
    assert check(plugin) == []


# ── plugins that break one promise ───────────────────────────────────────────────────────────────────────────────


class Counts:
    def __init__(self):
        self.calls = 0

    @hookimpl
    def classify_tool_call(self, call):
        self.calls += 1
        return Classification(SafetyClass.RED, rules=(f"call.{self.calls}",))


class Reads:
    @hookimpl
    def classify_tool_call(self, call):
        Path("/etc/passwd").read_bytes()


class Resolves:
    @hookimpl
    def before_tool_call(self, call):
        import socket

        socket.socket().close()


class Spoils:
    @hookimpl
    def classify_tool_call(self, call):
        call.params["spoilt"] = True


class Watches:
    """Answers by the clock: the suite sees it since no two of its answers are alike."""

    @hookimpl
    def classify_tool_call(self, call):
        return Classification(SafetyClass.YELLOW, rules=(f"at.{time.perf_counter_ns()}",))


class Unwell:
    @hookimpl
    def check_health(self):
        return "fine"


class Misspelt:
    @hookimpl
    def classify_toolcall(self, call):
        return None


def gives(**fields):
    return Classifies(Classification(**{"safety_class": SafetyClass.RED, "rules": ("a.rule",), **fields}))


BROKEN = {
    "loads": Misspelt(),
    "never raises": faulty("classify_tool_call", "raises"),
    "never raises, when it may object": faulty("before_tool_call", "raises"),
    "answers a Classification or None": faulty("classify_tool_call", "wrong_type"),
    "gives an equal call an equal answer, in any order": Counts(),
    "gives an equal call an equal answer, in any order, by the clock": Watches(),
    "does no I/O": Reads(),
    "does no I/O, when it may object": Resolves(),
    "leaves the call as it is": Spoils(),
    "says how it is": Unwell(),
    "names effects of the closed lists": gives(effects=(Effect("read", "mind", "x"),)),
    "names the rule that raised a call, unless it is opaque": gives(rules=()),
    "names the rule of its objection": Objects(Outcome.BLOCK, rule=""),
    "gives its reason in one line of 300 characters": gives(reason="a\nb"),
    "gives its reason in one line of 300 characters, at most": gives(reason="a" * 301),
    "gives text that can be recorded (no lone surrogate)": gives(reason="\ud800"),
}


@pytest.mark.parametrize(("promise", "plugin"), BROKEN.items(), ids=BROKEN.keys())
def test_a_broken_promise_is_named(promise, plugin):
    found = {finding.rule for finding in check(plugin)}
    assert any(promise.startswith(rule) for rule in found), found


def test_the_odd_calls_are_calls():
    calls = conformance.odd_calls()
    assert len(calls) > 20
    assert len({call.digest for call in calls}) > 20
