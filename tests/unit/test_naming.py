"""Offered names: a bijection that fits the providers' limits."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from generators import dotted_names, examples
from safety_wrapper.naming import MAX_OFFERED, dotted_name, is_dotted, offered_name


@settings(max_examples=examples(300))
@given(dotted_names)
def test_offered_names_come_back(name):
    if not is_dotted(name):
        with pytest.raises(ValueError, match="dotted"):
            offered_name(name)
        return
    offered = offered_name(name)
    assert dotted_name(offered) == name
    assert len(offered) <= MAX_OFFERED
    assert offered.replace("_", "").isalnum()
    assert offered.isascii()


@settings(max_examples=examples(300))
@given(dotted_names, dotted_names)
def test_two_names_are_never_offered_as_one(one, other):
    if is_dotted(one) and is_dotted(other):
        assert (offered_name(one) == offered_name(other)) is (one == other)


@settings(max_examples=examples(300))
@given(st.text(max_size=30) | st.from_regex(r"sw_[a-z_0-9]{0,20}", fullmatch=True))
def test_no_other_text_is_read_as_a_name(text):
    name = dotted_name(text)
    assert name is None or offered_name(name) == text


@pytest.mark.parametrize("name", ["exec", "http.request", "a_b.c_d", "a1.b2", "x" * 61])
def test_dotted(name):
    assert is_dotted(name)


@pytest.mark.parametrize(
    "name", ["", ".", "a.", ".a", "a..b", "a__b", "a_", "_a", "1a", "A", "a.1", "a b", "a\n", "\u00e9", "x" * 62]
)
def test_not_dotted(name):
    assert not is_dotted(name)
    with pytest.raises(ValueError, match="dotted"):
        offered_name(name)


@pytest.mark.parametrize("offered", ["exec", "sw_", "sw__a", "sw_a__", "sw_a___b", "SW_a", "sw_A", "sw_a.b", "sw_a\n"])
def test_not_offered(offered):
    assert dotted_name(offered) is None


def test_the_examples_of_the_design():
    assert offered_name("http.request") == "sw_http__request"
    assert dotted_name("sw_http__request") == "http.request"
