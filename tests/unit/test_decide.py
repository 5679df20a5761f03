"""The decision table by its rows, as a reader would check it. The whole of it is compared in tests/differential."""

import pytest

from safety_wrapper.decide import TABLE, decide, effective_class
from safety_wrapper.model import AutonomyLevel, Outcome, SafetyClass

ALLOW, HOLD, BLOCK = Outcome.ALLOW, Outcome.REQUIRE_APPROVAL, Outcome.BLOCK


def row(safety_class, *, external=False, gate_passes=False):
    return [decide(safety_class, external=external, level=x, gate_passes=gate_passes) for x in AutonomyLevel]


def test_the_rows_of_the_design():
    assert row(SafetyClass.GREEN) == [ALLOW, ALLOW, ALLOW]
    assert row(SafetyClass.YELLOW) == [HOLD, ALLOW, ALLOW]
    assert row(SafetyClass.YELLOW_EXTERNAL) == [HOLD, HOLD, HOLD]
    assert row(SafetyClass.YELLOW_EXTERNAL, gate_passes=True) == [HOLD, ALLOW, ALLOW]
    assert row(SafetyClass.RED) == [HOLD, HOLD, ALLOW]
    assert row(SafetyClass.RED, external=True) == [HOLD, HOLD, HOLD]
    assert row(SafetyClass.RED, external=True, gate_passes=True) == [HOLD, HOLD, ALLOW]
    assert row(SafetyClass.CRITICAL_RED) == [HOLD, HOLD, HOLD]


def test_green_that_leaves_is_yellow_external():
    assert effective_class(SafetyClass.GREEN, external=True) is SafetyClass.YELLOW_EXTERNAL
    assert effective_class(SafetyClass.YELLOW, external=True) is SafetyClass.YELLOW_EXTERNAL
    assert effective_class(SafetyClass.RED, external=True) is SafetyClass.RED
    assert effective_class(SafetyClass.GREEN, external=False) is SafetyClass.GREEN


def test_a_fault_blocks_whatever_else_is_said():
    for safety_class in SafetyClass:
        for level in AutonomyLevel:
            assert decide(safety_class, external=False, level=level, gate_passes=True, fault=True) is BLOCK


@pytest.mark.parametrize("level", [0, 4, -1, -2])
def test_a_level_that_is_none_blocks(level):
    assert decide(SafetyClass.GREEN, external=False, level=level, gate_passes=True) is BLOCK
    assert decide(SafetyClass.GREEN, external=False, level=AutonomyLevel(2), gate_passes=True) is ALLOW


def test_the_table_is_total_and_monotone():
    assert set(TABLE) == set(SafetyClass)
    for level in range(3):
        column = [TABLE[c][level] for c in SafetyClass]
        assert column == sorted(column)
    for cells in TABLE.values():
        assert list(cells) == sorted(cells, reverse=True)


def test_an_objection_only_raises():
    def with_objections(*outcomes):
        return decide(
            SafetyClass.YELLOW, external=False, level=AutonomyLevel(2), gate_passes=False, objections=outcomes
        )

    assert with_objections() is ALLOW
    assert with_objections(ALLOW) is ALLOW
    assert with_objections(HOLD, ALLOW) is HOLD
    assert with_objections(ALLOW, BLOCK, HOLD) is BLOCK
