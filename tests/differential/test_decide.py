"""The engine's decision against the specification: the whole table, and generated sets of plugins."""

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from generators import classifications, examples
from safety_wrapper import dispatch
from safety_wrapper.decide import decide, effective_class
from safety_wrapper.errors import ClassifyError
from safety_wrapper.ledger.owner import OwnerView
from safety_wrapper.model import AutonomyLevel, Outcome, SafetyClass
from safety_wrapper.registry import vet
from safety_wrapper.testing import make_call, make_policy
from safety_wrapper.testing.simulators import Classifies

CALL, POLICY = make_call(), make_policy()


def as_plain(answer):
    return {
        "class": answer.safety_class.name,
        "external": answer.external,
        "opaque": answer.opaque,
        "effects": set(answer.effects),
        "rules": set(answer.rules),
    }


def test_the_specification_names_the_same_values():
    assert [c.name for c in SafetyClass] == reference.CLASSES
    assert [o.wire for o in Outcome] == reference.OUTCOMES
    assert [int(level) for level in AutonomyLevel] == reference.LEVELS


def test_the_whole_table_is_the_specifications():
    sets_of_objections = [list(s) for n in range(3) for s in itertools.product(Outcome, repeat=n)]
    compared = 0
    for safety_class, external, level, gate, objections, fault in itertools.product(
        SafetyClass, (False, True), (0, 1, 2, 3, 4), (False, True), sets_of_objections, (False, True)
    ):
        ours = decide(
            safety_class, external=external, level=level, gate_passes=gate, objections=objections, fault=fault
        )
        theirs = reference.decide(safety_class.name, external, level, gate, [o.wire for o in objections], fault)
        assert ours.wire == theirs, (safety_class, external, level, gate, objections, fault)
        assert effective_class(safety_class, external=external).name == reference.final_class(
            safety_class.name, external
        )
        compared += 1
    assert compared == 5 * 2 * 5 * 2 * 13 * 2


@settings(max_examples=examples(200))
@given(
    st.lists(st.none() | classifications, max_size=4),
    st.sampled_from(AutonomyLevel),
    st.booleans(),
    st.lists(st.sampled_from(Outcome), max_size=2),
)
def test_any_set_of_plugins_ends_as_the_specification_says(answers, level, gate, objections):
    plan = vet({f"p{i}": Classifies(answer) for i, answer in enumerate(answers)})
    expected = reference.judge(
        [as_plain(a) for a in answers if a is not None], level, gate, [o.wire for o in objections]
    )
    try:
        found = dispatch.classify(plan, CALL, POLICY)
    except ClassifyError:
        outcome = decide(
            SafetyClass.CRITICAL_RED, external=True, level=level, gate_passes=gate, objections=objections, fault=True
        )
    else:
        total = reference.combined([as_plain(a) for a in answers if a is not None])
        assert as_plain(found) == total
        outcome = decide(
            found.safety_class, external=found.external, level=level, gate_passes=gate, objections=objections
        )
    assert outcome.wire == expected


agents = st.sampled_from(["main", "ops", "other"])


@settings(max_examples=examples(200))
@given(st.dictionaries(st.just("*") | agents, st.sampled_from(AutonomyLevel), max_size=4), st.none() | agents)
def test_levels_are_the_specifications(stated, agent):
    view = OwnerView(
        levels=stated, gates={}, unlocks=(), domains=(), internal_services=(), epoch=0, secret_scopes={},
        hub_session=False,
    )  # fmt: skip
    assert view.level_for(agent) == reference.level_for(agent, stated)
