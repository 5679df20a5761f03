"""PathSet answers as asking each pattern by itself does."""

from hypothesis import given, settings
from hypothesis import strategies as st
from sw_classification.paths import PathPattern, PathSet
from sw_classification.symbolic import STAR, UNKNOWN

NAMES = st.sampled_from(["etc", "srv", ".env", "a", "b.pem", "*.pem", ".env.*", "**", "home", "*"])
PATTERNS = st.lists(NAMES, min_size=0, max_size=3).map(lambda steps: "/" + "/".join(steps))
STEPS = st.sampled_from(["etc", "srv", ".env", ".env.local", "a", "b.pem", "home", STAR, UNKNOWN, f"a{STAR}"])
PATHS = st.lists(STEPS, min_size=0, max_size=4).map(lambda steps: "/" + "/".join(steps))


@settings(max_examples=1500)
@given(st.lists(PATTERNS, max_size=5), PATHS, st.booleans(), st.booleans())
def test_a_set_answers_as_its_patterns_do(texts: list[str], path: str, possibly: bool, recursive: bool) -> None:
    each = [PathPattern(text) for text in texts]
    expected = any(p.holds(path, possibly=possibly, recursive=recursive) for p in each)
    assert PathSet(texts).holds(path, possibly=possibly, recursive=recursive) is expected
