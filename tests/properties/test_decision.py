"""What no set of plugins, no claim and no order can change. The names are the design's."""

import json

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from generators import classifications, examples, objections
from safety_wrapper import dispatch
from safety_wrapper.decide import decide
from safety_wrapper.errors import ClassifyError
from safety_wrapper.ledger.owner import OwnerView
from safety_wrapper.model import AutonomyLevel, Classification, GateState, Outcome, SafetyClass
from safety_wrapper.registry import vet
from safety_wrapper.testing import make_call, make_policy
from safety_wrapper.testing.simulators import Classifies, Objects

CALL, POLICY = make_call(), make_policy()
levels = st.sampled_from(AutonomyLevel)
answer_lists = st.lists(classifications, min_size=1, max_size=5)


def outcome_of(plugins, level, *, gate):
    """The walk from plugins to outcome, as the engine does it."""
    plan = vet({f"p{i}": plugin for i, plugin in enumerate(plugins)})
    try:
        found = dispatch.classify(plan, CALL, POLICY)
    except ClassifyError:
        return Outcome.BLOCK
    against = dispatch.object_to(plan, "before_tool_call", call=CALL, classification=found)
    return decide(
        found.safety_class,
        external=found.external,
        level=level,
        gate_passes=gate,
        objections=[o.outcome for o in against],
    )


@settings(max_examples=examples(150))
@given(answer_lists)
def test_strictest_wins(answers):
    found = dispatch.combine(answers)
    assert found.safety_class == max(a.safety_class for a in answers)
    assert found.external is any(a.external or a.safety_class is SafetyClass.YELLOW_EXTERNAL for a in answers)
    assert found.opaque is any(a.opaque for a in answers)
    assert set(found.effects) == {e for a in answers for e in a.effects}
    assert set(found.rules) == {r for a in answers for r in a.rules}
    assert found.reason in {a.reason for a in answers if a.safety_class == found.safety_class}


@settings(max_examples=examples(100))
@given(
    st.lists(st.none() | classifications, min_size=1, max_size=3), st.none() | classifications, levels, st.booleans()
)
def test_adding_a_plugin_never_widens(answers, one_more, level, gate):
    assume(any(a is not None for a in answers))  # from no opinion to one is the only step that can free a call
    before = outcome_of([Classifies(a) for a in answers], level, gate=gate)
    assert outcome_of([Classifies(a) for a in [*answers, one_more]], level, gate=gate) >= before
    assert outcome_of([Classifies(a) for a in [one_more, *answers]], level, gate=gate) >= before


@settings(max_examples=examples(100))
@given(classifications, st.lists(objections, max_size=3), levels, st.booleans())
def test_an_objector_never_widens(answer, against, level, gate):
    base = [Classifies(answer)]
    more = [*base, *(Objects(o.outcome, o.rule) for o in against)]
    assert outcome_of(more, level, gate=gate) == max(
        [outcome_of(base, level, gate=gate), *(o.outcome for o in against)]
    )


@given(levels, st.booleans(), st.integers(0, 3))
@settings(max_examples=examples(30))
def test_no_plugin_blocks(level, gate, silent):
    assert outcome_of([], level, gate=gate) is Outcome.BLOCK
    assert (
        outcome_of([Classifies(None)] * 0 + [Classifies(None) for _ in range(silent)], level, gate=gate)
        is Outcome.BLOCK
    )


@settings(max_examples=examples(100))
@given(st.lists(classifications, max_size=3), levels, st.booleans(), st.booleans())
def test_critical_red_never_runs_unapproved(others, level, gate, external):
    critical = Classification(SafetyClass.CRITICAL_RED, external=external)
    assert outcome_of([Classifies(a) for a in [*others, critical]], level, gate=gate) >= Outcome.REQUIRE_APPROVAL


agents = st.sampled_from(["main", "ops", "other"])


@settings(max_examples=examples(150))
@given(
    st.dictionaries(st.just("*") | agents, levels, max_size=4),
    st.dictionaries(st.just("*") | agents, st.sampled_from(GateState), max_size=4),
    agents,
    classifications,
)
def test_claims_never_widen(stated, gates, claimed, answer):
    """Whoever a caller says it is, it gets no more than everybody; who says nothing gets the least."""
    view = OwnerView(
        levels=stated, gates=gates, unlocks=(), domains=(), internal_services=(), epoch=0, secret_scopes={},
        hub_session=False,
    )  # fmt: skip
    everybody = stated.get("*", AutonomyLevel.TRUSTED_ASSISTANT)

    def outcome(agent):
        return decide(
            answer.safety_class,
            external=answer.external,
            level=view.level_for(agent),
            gate_passes=view.gate_for(agent) is GateState.NAMED,
        )

    assert view.level_for(claimed) <= everybody
    assert view.level_for(None) <= view.level_for(claimed)
    as_everybody = decide(
        answer.safety_class,
        external=answer.external,
        level=everybody,
        gate_passes=gates.get("*") is GateState.NAMED,
    )
    assert outcome(claimed) >= as_everybody
    assert outcome(None) >= outcome(claimed)


@settings(max_examples=examples(200))
@given(classifications, levels, st.booleans(), st.lists(st.sampled_from(Outcome), max_size=3))
def test_a_worse_call_or_a_lower_level_never_ends_freer(answer, level, gate, against):
    def at(safety_class, external, level, gate):
        return decide(safety_class, external=external, level=level, gate_passes=gate, objections=against)

    external = answer.external or answer.safety_class is SafetyClass.YELLOW_EXTERNAL
    here = at(answer.safety_class, external, level, gate)
    for worse in SafetyClass:
        if worse >= answer.safety_class:
            assert at(worse, external, level, gate) >= here
    for lower in AutonomyLevel:
        if lower <= level:
            assert at(answer.safety_class, external, lower, gate) >= here
    assert at(answer.safety_class, True, level, gate) >= here
    assert at(answer.safety_class, external, level, False) >= here


def test_a_tool_that_the_registry_calls_external_keeps_the_gate_when_a_plugin_says_red(base_bundle):
    entry = json.loads(base_bundle)["tools"]["list"]
    for name, external in (("YELLOW_EXTERNAL", True), ("YELLOW", False)):
        changed = {**entry, "base": {"class": name, "external": False}}
        assert make_policy({"tools": {"list": changed}}).bundle.tools["list"].base_external is external


def test_a_plugin_that_forgets_to_say_external_keeps_the_gate_when_another_says_red():
    forgetful = Classifies(Classification(SafetyClass.YELLOW_EXTERNAL, rules=("a.one",)))
    red = Classifies(Classification(SafetyClass.RED, rules=("b.one",)))
    assert outcome_of([forgetful, red], AutonomyLevel.FULL_AUTONOMY, gate=False) is Outcome.REQUIRE_APPROVAL
    assert outcome_of([red], AutonomyLevel.FULL_AUTONOMY, gate=False) is Outcome.ALLOW
