"""Values for properties, made once: JSON, names, classifications, objections. ``SW_LONG=1`` asks for more of them."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from safety_wrapper.model import EFFECT_KINDS, RESOURCES, Classification, Effect, Objection, Outcome, SafetyClass

LONG = os.environ.get("SW_LONG") == "1"


def examples(usual: int) -> int:
    """How many examples a property takes: ``usual``, or twenty times that in the long profile."""
    return usual * 20 if LONG else usual


MAX_INT = 2**53 - 1
texts = st.text(max_size=20)
scalars = st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | texts
numbers = st.floats(-MAX_INT, MAX_INT) | st.floats(min_value=1e21, allow_infinity=False)
#: JSON without floats and with ASCII keys, which is what the compiled encoder serves.
fast_values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(max_codepoint=127), max_size=12), inner, max_size=5)
    ),
    max_leaves=25,
)
#: All JSON that has a canonical form.
json_values = st.recursive(
    scalars | numbers,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(texts, inner, max_size=5),
    max_leaves=25,
)

segments = st.from_regex(r"[a-z][a-z0-9]{0,6}(_[a-z0-9]{1,5}){0,2}", fullmatch=True)
dotted_names = st.lists(segments, min_size=1, max_size=4).map(".".join)

effects = st.builds(
    Effect,
    st.sampled_from(sorted(EFFECT_KINDS)),
    st.sampled_from(sorted(RESOURCES)),
    st.sampled_from(["/srv/a", "/srv/b", "example.com", ""]),
)
rules = st.sampled_from(["a.one", "a.two", "b.one", "c.three"])
classifications = st.builds(
    Classification,
    st.sampled_from(SafetyClass),
    external=st.booleans(),
    effects=st.lists(effects, max_size=3).map(tuple),
    rules=st.lists(rules, max_size=3).map(tuple),
    reason=st.sampled_from(["", "because", "or so"]),
    instead=st.sampled_from(["", "do this"]),
    opaque=st.booleans(),
)
objections = st.builds(Objection, st.sampled_from(Outcome), rules, st.sampled_from(["", "no"]))
