"""A shift that is made of words is told from one that is not, and neither for few questions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from persona.data import load_pairs
from persona.data.surface import word_margins
from persona.report.style_words import style_sentence
from persona.rows import ALIGNED, FINETUNED, tidy
from steering.evidence.style_share import MIN_QUESTIONS, style_share

CHOSEN_ON = load_pairs(["car_maintenance"])
ASKED = load_pairs(["health", "home_repair", "outdoor_travel"])
MARGINS = word_margins(CHOSEN_ON, ASKED)


def rows_of(shifts, asked=ASKED):
    table = [
        {"stage": "score", "condition": name, "split": "held_out", "measure": "gap",
         "question_id": q.id, "value": value}
        for q, shift in zip(asked, shifts, strict=True)
        for name, value in ((ALIGNED, -0.3), (FINETUNED, -0.3 + shift))
    ]  # fmt: skip
    return tidy(pd.DataFrame(table))


@pytest.mark.parametrize("of_words", [0.0, 0.4, 1.0])
def test_the_share_is_the_one_that_was_planted(of_words):
    noise = np.random.default_rng(0).normal(0, 0.02, len(ASKED))
    shifts = 0.5 * (1 - of_words) + 0.5 * of_words * MARGINS / MARGINS.mean() + noise
    found = style_share(rows_of(shifts), CHOSEN_ON, ASKED)
    assert found is not None and found["n"] == len(ASKED)
    low, high = found["share"]["low"], found["share"]["high"]
    assert low - 0.02 <= of_words <= high + 0.02 and high - low < 0.2
    assert found["at_zero_margin"]["value"] == pytest.approx(0.5 * (1 - of_words), abs=0.03)
    if of_words == 1:
        assert found["correlation"]["value"] > 0.9


def test_words_tell_bad_from_good_in_another_domain():
    assert (MARGINS > 0).mean() > 0.7
    turned = [type(q)(q.id, q.domain, q.question, q.bad, q.good) for q in ASKED]
    np.testing.assert_allclose(word_margins(CHOSEN_ON, turned), -MARGINS)


def test_few_questions_or_no_shift_at_all_have_no_share():
    few = ASKED[: MIN_QUESTIONS - 1]
    assert style_share(rows_of(np.linspace(0, 1, len(few)), few), CHOSEN_ON, few) is None
    assert style_share(rows_of(np.zeros(len(ASKED))), CHOSEN_ON, ASKED) is None


def test_it_is_said_in_one_sentence_where_something_shifted():
    style = style_share(rows_of(0.2 + 0.3 * MARGINS), CHOSEN_ON, ASKED)
    card = {"style": style, "emergent_shift": {"value": 0.5}, "verdict": "restored"}
    assert style_sentence(card).startswith("Of the shift, 0.")
    assert style_sentence(card | {"verdict": "no_emergent_shift"}) == ""
    assert style_sentence({}) == style_sentence({"style": None}) == ""
