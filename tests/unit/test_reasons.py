"""Sentences: one line, bounded, nothing that hides."""

from __future__ import annotations

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from safety_wrapper import reasons
from safety_wrapper.model import Classification, Effect, SafetyClass

TEXT = st.text(max_size=500)
REQUEST = "apr_" + "0" * 26


@given(TEXT, TEXT, st.sampled_from(SafetyClass))
def test_held_is_one_bounded_visible_line_that_ends_with_what_to_do(
    why: str, instead: str, safety_class: SafetyClass
) -> None:
    text = reasons.held(Classification(safety_class, reason=why, instead=instead), REQUEST)
    assert len(text) <= reasons.MAX_REASON
    assert "\n" not in text
    assert text.startswith("Held: ")
    assert text.endswith(
        f"Ask the owner to approve {REQUEST}; then call sw_resume with that id. Do not repeat the call."
    )


@given(TEXT)
def test_visible_shows_every_hidden_character_and_loses_none(text: str) -> None:
    shown = reasons.visible(text)
    assert all(unicodedata.category(c) not in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"} for c in shown)
    assert [c for c in text if c.isprintable() and unicodedata.category(c) not in {"Cf", "Co"}] == [
        c for c in text if reasons.visible(c) == c
    ]


def test_values_of_an_approval_are_never_cut() -> None:
    value = "x" * 5000 + "@evil.example"
    assert reasons.lines([Effect("send", "recipient", value)]) == (("To (send)", value),)


def test_order_marks_are_shown() -> None:
    assert reasons.visible("moc.\u202eexample") == "moc.\\u{202e}example"
