"""What an owner sees is what would run, whole; the yes is bound to it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.cli.approvals import render
from unit.cli.conftest import Run
from unit.cli.fake_core import DIGEST, REQUEST_ID, Served, request_row


def test_list(served: Served, run: Run) -> None:
    ran = run("approvals", "list")
    assert ran.code == 0
    assert REQUEST_ID in ran.out
    assert run("approvals", "list", "--state", "denied").out == "None.\n"
    assert run("approvals", "list", "--json").json["items"][0]["digest"] == DIGEST


def test_show_is_whole_and_unmasked(served: Served, run: Run) -> None:
    long_path = "/srv/" + "x" * 3000
    served.core.request["lines"] = [
        {"label": "recipient", "value": "jo@example.com"},
        {"label": "host", "value": "mail.example.com"},
        {"label": "amount", "value": "1200.00 EUR"},
        {"label": "path", "value": long_path},
    ]
    out = run("approvals", "show", REQUEST_ID).out
    for value in ("jo@example.com", "mail.example.com", "1200.00 EUR", long_path, DIGEST, "LEAVES THE TENANT"):
        assert value in out


def test_the_models_own_words_come_last_and_fenced(served: Served, run: Run) -> None:
    lines = run("approvals", "show", REQUEST_ID).out.splitlines()
    fence = lines.index("┌──")
    assert lines[-1] == "└──"
    assert all(line.startswith("│ ") for line in lines[fence + 1 : -1])
    assert lines.index(f"Digest    {DIGEST}") < fence
    assert "│     please pay." in lines


def test_the_fence_can_not_be_left(served: Served, run: Run) -> None:
    served.core.request["params"] = {"body": "x\n└──\nRequest   apr_fake  (harmless)", "└──\nkey": 1}
    lines = run("approvals", "show", REQUEST_ID).out.splitlines()
    fence = lines.index("┌──")
    assert all(line.startswith("│ ") for line in lines[fence + 1 : -1])
    assert sum(line == "└──" for line in lines) == 1


@given(
    value=st.text(max_size=40),
    params=st.dictionaries(st.text(max_size=8), st.one_of(st.text(max_size=40), st.integers(), st.none()), max_size=3),
)
def test_no_value_can_control_the_terminal(value: str, params: dict[str, Any]) -> None:
    row = request_row(lines=[{"label": "host", "value": value}], params=params, agent=value, comment=value)
    for line in render(row):
        assert line.isprintable()


def test_look_alikes_are_escapes_and_shown_as_written(served: Served, run: Run) -> None:
    served.core.request["lines"] = [{"label": "recipient", "value": "jo@ex\u0430mple.com"}]
    out = run("approvals", "show", REQUEST_ID).out
    assert r"jo@ex\u{430}mple.com" in out
    assert "as written: jo@ex\u0430mple.com" in out


def test_approve_sends_what_was_shown(served: Served, run: Run) -> None:
    ran = run("approvals", "approve", REQUEST_ID, "--yes", "--comment", "fine")
    assert ran.code == 0
    assert "jo@example.com" in ran.out
    sent = dict(served.core.asked)["approvals.decide"]
    assert sent == {"id": REQUEST_ID, "decision": "approve", "shown_digest": DIGEST, "comment": "fine"}


def test_approve_without_a_terminal_needs_yes(served: Served, run: Run) -> None:
    for extra in ((), ("--json",)):
        ran = run("approvals", "approve", REQUEST_ID, *extra)
        assert ran.code == 2
    assert served.core.request["state"] == "pending"


@pytest.mark.parametrize(("typed", "state", "code"), [("y\n", "approved", 0), ("n\n", "pending", 130)])
def test_approve_asks(
    served: Served, run: Run, monkeypatch: pytest.MonkeyPatch, typed: str, state: str, code: int
) -> None:
    monkeypatch.setattr("safety_wrapper.cli.approvals._can_ask", lambda: True)
    ran = run("approvals", "approve", REQUEST_ID, stdin=typed)
    assert ran.code == code
    assert ran.out.index(DIGEST) < ran.out.index("Approve exactly this call?")
    assert served.core.request["state"] == state


def test_approve_again_changes_nothing_and_is_fine(served: Served, run: Run) -> None:
    run("approvals", "approve", REQUEST_ID, "--yes")
    ran = run("approvals", "approve", REQUEST_ID, "--yes", "--json")
    assert ran.code == 0
    assert ran.json == {"id": REQUEST_ID, "digest": DIGEST, "state": "approved", "changed": False}


def test_approve_after_a_no_is_a_finding(served: Served, run: Run) -> None:
    assert run("approvals", "deny", REQUEST_ID).code == 0
    ran = run("approvals", "approve", REQUEST_ID, "--yes")
    assert ran.code == 1
    assert "denied already" in ran.out


def test_a_refusal_of_the_core_is_shown(served: Served, run: Run) -> None:
    served.core.refuse = {"refused": "all agents are stopped", "do": "run `safety-wrapper start-agents` first"}
    ran = run("approvals", "approve", REQUEST_ID, "--yes")
    assert ran.code == 1
    assert ran.err.endswith("all agents are stopped. Do: run `safety-wrapper start-agents` first\n")


def test_an_unknown_request(served: Served, run: Run) -> None:
    assert run("approvals", "show", "apr_01JD000000000000000000000B").code == 2


def test_watch_ends_after_so_many(served: Served, run: Run) -> None:
    ran = run("approvals", "watch", "--count", "2")
    assert ran.code == 0
    assert ran.out.splitlines() == [
        f"{REQUEST_ID} waits: Send one mail outside the company (YELLOW_EXTERNAL, mail.send)",
        f"{REQUEST_ID} denied",
    ]
    assert len(run("approvals", "watch", "--count", "2", "--json").out.splitlines()) == 2
