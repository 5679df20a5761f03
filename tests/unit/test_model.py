"""The laws of the values: order, immutability, closed lists."""

import dataclasses
import inspect
from itertools import pairwise

import pytest

from safety_wrapper import model
from safety_wrapper.model import AutonomyLevel, Classification, Deadlines, Effect, Outcome, SafetyClass
from safety_wrapper.testing import make_call


def test_enum_order_is_the_security_order():
    assert [c.name for c in sorted(SafetyClass)] == ["GREEN", "YELLOW", "YELLOW_EXTERNAL", "RED", "CRITICAL_RED"]
    assert [o.name for o in sorted(Outcome)] == ["ALLOW", "REQUIRE_APPROVAL", "BLOCK"]
    assert all(a < b for a, b in pairwise(SafetyClass))
    assert max(SafetyClass.GREEN, SafetyClass.RED) is SafetyClass.RED
    assert max(Outcome) is Outcome.BLOCK


def test_wire_names_of_outcomes():
    assert [o.wire for o in Outcome] == ["allow", "require_approval", "block"]


def test_levels_are_1_to_3():
    assert [int(level) for level in AutonomyLevel] == [1, 2, 3]


RECORDS = [
    record
    for _, record in inspect.getmembers(model, inspect.isclass)
    if dataclasses.is_dataclass(record) and record.__module__ == model.__name__
]


@pytest.mark.parametrize("record", RECORDS, ids=lambda r: r.__name__)
def test_every_record_is_frozen_and_has_slots(record):
    assert record.__dataclass_params__.frozen
    assert "__slots__" in vars(record)
    assert record.__doc__


def test_a_call_can_not_be_changed():
    call = make_call("exec", {"command": "ls"})
    with pytest.raises(dataclasses.FrozenInstanceError):
        call.tool = "read"


def test_changing_the_params_leaves_what_is_run():
    call = make_call("exec", {"command": "ls"})
    call.params["command"] = "rm -r /"
    assert call.canonical == b'{"command":"ls"}'


def test_reserved_rules_are_the_constants():
    named = {value for name, value in vars(model).items() if name.startswith("SW_")}
    assert named == model.RESERVED_RULES
    assert all(rule.startswith("sw.") for rule in named)


def test_equal_answers_are_equal():
    one = Classification(SafetyClass.RED, effects=(Effect("read", "path", "/a"),))
    assert one == Classification(SafetyClass.RED, effects=(Effect("read", "path", "/a"),))
    assert hash(one.effects) == hash((Effect("read", "path", "/a"),))


def test_deadlines_are_the_designs():
    assert (Deadlines().hook_answer_s, Deadlines().execute_s, Deadlines().sync_hook_ms) == (5.0, 60.0, 50)
    assert (Deadlines().approval_request_s, Deadlines().builtin_grant_s) == (86_400, 14_400)
