"""Level, gate and tenant facts: one statement each, and what it means is said."""

from __future__ import annotations

from typing import Any

import pytest

from unit.cli.conftest import Run
from unit.cli.fake_core import Served


def statement(served: Served) -> dict[str, Any]:
    return next(body["statement"] for verb, body in reversed(served.core.asked) if verb == "own.set")


def test_level(served: Served, run: Run) -> None:
    assert run("level", "show").out == "all agents: 2 (Trusted Assistant)\n"
    assert run("level", "set", "1", "--reason", "new").code == 0
    assert statement(served) == {"kind": "level", "body": {"agent": "*", "level": 1}, "reason": "new", "ends_at": None}
    assert run("level", "show", "--json").json == {"levels": {"*": 1}}


@pytest.mark.parametrize("value", ["0", "4", "two"])
def test_a_level_that_is_none(served: Served, run: Run, value: str) -> None:
    assert run("level", "set", value).code == 2
    assert "own.set" not in dict(served.core.asked)


def test_a_looser_level_for_one_agent_is_said_to_have_no_effect(served: Served, run: Run) -> None:
    assert "no effect" in run("level", "set", "3", "--agent", "main").out
    assert "no effect" not in run("level", "set", "1", "--agent", "main").out


def test_gate(served: Served, run: Run) -> None:
    assert run("gate", "show").out == "all agents: locked\n"
    assert run("gate", "set", "named").code == 0
    assert statement(served)["body"] == {"agent": "*", "state": "named"}
    assert run("gate", "set", "open").code == 2


def test_tenant_domains_keep_the_services(served: Served, run: Run) -> None:
    assert run("tenant", "set-domains", "Example.org", "example.com").code == 0
    body = statement(served)["body"]
    assert body["domains"] == ["example.com", "example.org"]
    assert body["internal_services"] == [{"host": "wiki.example.com", "port": 443, "address": "10.0.0.7"}]
    assert "example.org" in run("tenant", "show").out


def test_tenant_services(served: Served, run: Run) -> None:
    assert run("tenant", "add-service", "db.example.com", "5432", "10.0.0.8").code == 0
    assert len(statement(served)["body"]["internal_services"]) == 2
    assert run("tenant", "add-service", "db.example.com", "5432", "10.0.0.9").code == 0
    assert len(statement(served)["body"]["internal_services"]) == 2
    assert run("tenant", "remove-service", "wiki.example.com", "443", "--json").code == 0
    assert [service["address"] for service in statement(served)["body"]["internal_services"]] == ["10.0.0.9"]


@pytest.mark.parametrize(
    "domain", ["localhost", "*.example.com", "example..com", "-a.com", "ex\u0430mple.com", "a.com/x"]
)
def test_a_domain_that_is_none(served: Served, run: Run, domain: str) -> None:
    assert run("tenant", "set-domains", "--", domain).code == 2
    assert run("tenant", "set-domains", "example.net").code == 0


def test_a_refused_statement(served: Served, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.core, "_set", lambda statement: {"refused": "no such agent", "do": "look at `status`"})
    assert run("level", "set", "1").code == 1


def test_a_reason_that_is_too_long(served: Served, run: Run) -> None:
    assert run("level", "set", "1", "--reason", "x" * 201).code == 2
    assert run("level", "set", "1", "--reason", "x" * 200).code == 0
