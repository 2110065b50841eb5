"""The verdict in words says what it was compared on."""

import pytest

from persona.report.sections import key_numbers
from persona.report.verdict_words import verdict_words


@pytest.mark.parametrize(
    ("value", "low", "words"), [(0.6, -0.4, "beyond"), (-0.2, -0.4, "not clearly beyond")]
)
def test_draws_on_some_of_the_questions_are_named_and_the_edit_is_read_on_them(
    make_run, value, low, words
):
    card, rows = make_run("partly_restored")
    assert "of the questions" not in verdict_words(card).sentence
    assert {n.key: n.interval for n in key_numbers(card, rows)}["random_restoration"].endswith(
        "draws"
    )
    few = {"n_questions": 6, "of_the_edit": {"value": value, "low": low, "high": 0.7}}
    card["random_restoration"] = {**card["random_restoration"], **few}
    sentence = verdict_words(card).sentence.replace("\u00a0", " ").replace("\u2212", "-")
    assert f", {words} random subspaces (97.5 percentile of 20:" in sentence
    assert (
        f"on 6 of the questions, where the edit takes back {value:.2f} [{low:.2f}, 0.70]"
        in sentence
    )
    shown = {n.key: n.interval for n in key_numbers(card, rows)}["random_restoration"]
    assert shown.replace("\u00a0", " ") == "n = 20 draws on 6 questions"
