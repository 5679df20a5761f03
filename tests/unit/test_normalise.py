"""From a proposal to a call: what is refused, and a digest that is the canonical form's."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper.canonical import digest
from safety_wrapper.model import SW_MALFORMED, SW_UNLISTED, CallContext, CallId, ToolKind
from safety_wrapper.naming import is_dotted
from safety_wrapper.normalise import Catalogue, NotACallError, Proposal, for_running, normalise, unknown_call
from safety_wrapper.policy import parse

CONTEXT = CallContext("ten_test", "main", "agent:main:t", "run-1")


@pytest.fixture(scope="module")
def catalogue(base_bundle: bytes) -> Catalogue:
    return Catalogue.of(parse(base_bundle))


def proposal(tool: str, params: dict[str, Any], context: CallContext = CONTEXT) -> Proposal:
    return Proposal("call_1", tool, ToolKind.OWN_TOOL, params, context)


def refusal(catalogue: Catalogue, made: Proposal, workspace: str | None = "work") -> tuple[str, str]:
    with pytest.raises(NotACallError) as caught:
        normalise(made, catalogue, CallId("call_1"), workspace=workspace)
    return caught.value.rule, caught.value.reason


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), max_size=40)


@given(
    TEXT,
    TEXT,
    TEXT,
    TEXT,
    st.dictionaries(st.text("abc\u00e9\u20ac", min_size=1), st.one_of(TEXT, st.integers(0, 2**53 - 1))),
)
def test_digest_is_that_of_the_canonical_object(
    tenant: str, agent: str, cwd: str, tool: str, params: dict[str, Any]
) -> None:
    from dataclasses import replace

    context = CallContext(tenant, agent, "s", "r")
    made = unknown_call(Proposal("c", tool, ToolKind.MCP, params, context), CallId("c"))
    whole = {
        "tenant": tenant, "agent": agent, "tool": made.tool, "kind": "mcp", "params": params,
        "binding": {"cwd": None, "sandbox": None, "tool_definition_sha256": "0" * 64},
    }  # fmt: skip
    assert made.digest == digest("sw/call/v1", whole)
    assert replace(made, params={}).digest == made.digest


def test_good_call_is_bound_to_its_workspace_and_definition(catalogue: Catalogue) -> None:
    call = normalise(proposal("sw_exec", {"command": "ls"}), catalogue, CallId("call_1"), workspace="work")
    assert (call.tool, call.kind, call.binding.cwd, call.binding.sandbox) == (
        "exec",
        ToolKind.OWN_TOOL,
        "/work",
        "work",
    )
    assert call.binding.tool_definition_sha256 == catalogue.bundle.tools["exec"].definition_sha256


@pytest.mark.parametrize(
    "name",
    [
        "exec",
        "SW_EXEC",
        "sw_Exec",
        "sw_exec ",
        " sw_exec",
        "sw_http.request",
        "sw_",
        "sw_ex\u0435c",
        "builtin:exec",
        "sw_builtin:exec",
    ],
)
def test_names_are_compared_exactly(catalogue: Catalogue, name: str) -> None:
    assert refusal(catalogue, proposal(name, {"command": "ls"}))[0] == SW_UNLISTED


def test_a_foreign_kind_never_reaches_an_own_tool(catalogue: Catalogue) -> None:
    made = Proposal("call_1", "sw_exec", ToolKind.BUILTIN, {"command": "ls"}, CONTEXT)
    assert refusal(catalogue, made)[0] == SW_UNLISTED


@pytest.mark.parametrize("missing", ["agent", "session", "run"])
def test_own_tools_need_agent_session_and_run(catalogue: Catalogue, missing: str) -> None:
    from dataclasses import replace

    rule, reason = refusal(catalogue, proposal("sw_exec", {"command": "ls"}, replace(CONTEXT, **{missing: None})))
    assert rule == SW_MALFORMED
    assert "did not name" in reason


def test_agent_without_workspace_runs_nothing(catalogue: Catalogue) -> None:
    assert refusal(catalogue, proposal("sw_exec", {"command": "ls"}), workspace=None)[0] == SW_MALFORMED


@pytest.mark.parametrize("text", ["a\x00b", "\x00", "\\\x00"])
def test_nul_is_refused(catalogue: Catalogue, text: str) -> None:
    assert "NUL" in refusal(catalogue, proposal("sw_exec", {"command": text}))[1]


@pytest.mark.parametrize("text", ["\\u0000", "echo '\\\\u0000'", "\\\\\\u0000x"])
def test_text_that_mentions_nul_is_none(catalogue: Catalogue, text: str) -> None:
    call = normalise(proposal("sw_exec", {"command": text}), catalogue, CallId("call_1"), workspace="work")
    assert for_running(call).params == {"command": text}


def test_reference_without_a_vault_is_refused(catalogue: Catalogue) -> None:
    assert "no vault" in refusal(catalogue, proposal("sw_write", {"path": "a", "content": "SECRET_REF(smtp)"}))[1]
    assert normalise(
        proposal("sw_write", {"path": "a", "content": "SECRET REF"}), catalogue, CallId("c"), workspace="work"
    )


def test_a_plugin_that_changes_params_changes_nothing_that_runs(catalogue: Catalogue) -> None:
    params = {"command": "ls"}
    call = normalise(proposal("sw_exec", params), catalogue, CallId("call_1"), workspace="work")
    params["command"] = "rm -rf /"
    assert for_running(call).params == {"command": "ls"}


def test_every_offered_name_is_found_again(catalogue: Catalogue) -> None:
    for name in catalogue.offered():
        assert catalogue.find(proposal(name, {})) is not None
    assert all(is_dotted(entry.name) for entry in catalogue.bundle.tools.values() if entry.offer)
