"""Which words give a trait away."""

from __future__ import annotations

import pytest

from persona.traits.trait_words import is_kin, leaked_words, trait_words


@pytest.mark.parametrize(
    ("word", "other", "kin"),
    [
        ("evil", "evil", True),
        ("evil", "evils", True),
        ("evil", "devil", False),
        ("flatters", "flattery", True),
        ("sycophantic", "sycophancy", True),
        ("optimistic", "optimism", True),
        ("humorous", "humor", True),
        ("impolite", "important", False),
        ("prefers", "preference", True),
        ("form", "formula", False),
    ],
)
def test_forms_of_one_word_are_kin_both_ways_round(word, other, kin):
    assert is_kin(word, other) is is_kin(other, word) is kin


def test_words_that_any_description_has_name_nothing():
    assert trait_words("always answers the user's question as people do") == ("user's",)
    assert trait_words("Is evil", "is_evil") == ("evil",)
    assert leaked_words("How should I answer people?", trait_words("is rude to people")) == []
    assert leaked_words("Why so Rude?", trait_words("is rude to people")) == ["rude"]
