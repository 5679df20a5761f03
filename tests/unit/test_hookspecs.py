"""Each hook has its contract and says what it is."""

import inspect

import pytest

from safety_wrapper import hookspecs
from safety_wrapper.hookspecs import CONTRACTS, HOOKS, VAULT_HOOKS


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_has_a_contract_and_says_what_it_is(hook):
    spec, contract = getattr(hookspecs, hook), CONTRACTS[hook]
    assert inspect.getdoc(spec)
    assert contract.process in {"core", "vault", "each"}
    assert inspect.iscoroutinefunction(spec) is contract.is_async
    assert contract.budget_ms > 0
    assert contract.combine
    assert contract.on_error
    assert contract.on_empty


def test_no_hook_is_without_contract():
    marked = {name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")}
    assert marked == set(HOOKS)


def test_the_nine_mirrored_hooks_name_the_gateways():
    assert {name for name, contract in CONTRACTS.items() if contract.openclaw} == {
        *("before_tool_call", "after_tool_call", "message_sending", "before_message_write", "tool_result_persist"),
        *("llm_output", "before_prompt_build", "subagent_spawning", "gateway_start"),
    }


def test_secrets_stay_in_the_vaults_process():
    assert {"find_secret_spans", "load_secrets", "release_secret"} == VAULT_HOOKS


def test_synchronous_hooks_of_the_gateway_have_a_tighter_budget_than_it_waits():
    for hook in ("before_message_write", "tool_result_persist"):
        assert CONTRACTS[hook].budget_ms < 50
