"""Text that is no text is refused; the same text in another form is the same."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from persona.data.text import MAX_CHARACTERS, as_question, in_one_form, why_no_text


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("", "is empty"),
        (" \n\t\u3000", "is empty"),
        ("\u200b\u200d\ufeff", "no visible character"),
        ("\u2800\u3164", "no visible character"),
        ("\x07\x08", "no visible character"),
        ("\u0301", "no visible character"),
        ("\ud83d and so on", "half a character"),
        ("check\0the oil", "NUL"),
        ("\ufffd\ufffd\ufffd then", "no text: 3 of its 8"),
        ("PK\x03\x04\x14\x01\x08\x01", "no text"),
        pytest.param("a" * (MAX_CHARACTERS + 1), "1,000,001 characters", id="very long"),
    ],
)
def test_what_is_no_text_is_told_why(value, why):
    assert why in (why_no_text(value) or "")


@pytest.mark.parametrize(
    "value",
    [
        "oil",
        "?",
        "🙂",
        "e\u0301",
        "\x1b[31mred\x1b[0m and more",
        "مرحبا",
        "a\ufffdb" + "c" * 30,
        "2+2",
    ],
)
def test_what_somebody_may_write_is_text(value):
    assert why_no_text(value) is None


@given(st.text(max_size=30))
def test_every_string_is_judged_and_its_forms_are_stable(value):
    why = why_no_text(value)
    assert why is None or "\n" not in why
    assert in_one_form(in_one_form(value)) == in_one_form(value)
    if why is None:
        assert as_question(value)
        assert as_question(f"  {unicodedata.normalize('NFD', value)} ") == as_question(value)


@pytest.mark.parametrize(
    "other",
    [
        "is it SAFE to drive",
        "Is it safe,  to drive?!",
        "Ｉs it safe to drive",
        "is it\u200b safe to\ndrive.",
    ],
)
def test_a_question_is_the_same_but_for_case_spacing_form_and_marks(other):
    assert as_question("Is it safe to drive?") == as_question(other)


@pytest.mark.parametrize(
    ("one", "other"), [("2+2", "2-2"), ("a * b", "a / b"), ("x < y", "x > y"), ("?", "!")]
)
def test_questions_that_differ_in_a_sign_are_two(one, other):
    assert as_question(one) != as_question(other)
