"""The figure of persona and skill: every removal with both intervals, and the aims."""

from __future__ import annotations

import pandas as pd
import pytest

from persona.errors import DataError
from persona.report.figure_readings import figure_readings
from persona.report.figures import skill_front
from persona.report.figures.skill_front import tried_on_selection
from persona.report.skill_words import aim_in_words
from persona.report.svg import figure_svg
from persona.rows import tidy


def member(name, net, share, **known):
    entry = {"value": share, "low": share - 0.1, "high": share + 0.1, "n": 82}
    flags = {"chosen": False, "without_skill": False} | known
    return {"name": name, "net_restoration": net, "share": entry, **flags}


FRONT = [
    member("model_effect_refit r1 blocks 8-28 c1", {"value": 0.9, "low": 0.8, "high": 1.0, "n": 32},
           0.3, without_skill=True),
    member("model_effect_sparing_skill r1 blocks 8-28 c1",
           {"value": 0.8, "low": 0.7, "high": 0.9, "n": 32}, 0.95, chosen=True),
    member("eigen r1 block 3 c1", {"value": 0.1, "low": None, "high": None, "n": 32}, 1.0),
]  # fmt: skip
CARD = {"skill_kept": {"front": FRONT, "at_restoration_0.8": FRONT[1]}}
MEANS = {
    ("aligned", "gap"): 0.0,
    ("finetuned", "gap"): 0.5,
    ("a", "gap"): 0.1,
    ("a in the aligned model", "gap"): -0.1,
    ("b", "gap"): 0.2,  # not run in the aligned model
    ("aligned", "margin_nats"): 0.0,
    ("finetuned", "margin_nats"): 2.0,
    ("a", "margin_nats"): 1.5,
}
ROWS = tidy(
    pd.DataFrame(
        [
            {"stage": "verify", "condition": c, "measure": m, "value": v, "question_id": "q"}
            for (c, m), v in MEANS.items()
        ]
    )
)


def test_what_was_tried_is_placed_by_net_restoration_and_skill_kept():
    [(net, kept)] = tried_on_selection(ROWS)
    assert (net, kept) == pytest.approx(((0.4 - 0.1) / 0.5, 0.75))


def test_the_table_tells_every_removal_with_both_intervals():
    read = figure_readings(skill_front(ROWS, CARD))
    told = {r.what.replace("\xa0", " "): r.value.replace("\xa0", " ") for r in read}
    chosen = "Model effect, blind to the skill r1 blocks 8-28 c1: keeps 0.95 [0.85, 1.05]"
    assert told[f"{chosen} of the skill, net"] == "+0.80 [+0.70, +0.90], n = 32"
    assert len(told) == 3


def test_the_drawing_has_both_aims_and_an_interval_without_ends_reaches_the_edge():
    figure = skill_front(ROWS, CARD)
    assert sorted(s.x0 if s.x0 == s.x1 else s.y0 for s in figure.layout.shapes) == [0.8, 0.9]
    [free] = [t for t in figure.data if t.error_x.array and t.x == (0.1,)]
    assert (0.1 - free.error_x.arrayminus[0], 0.1 + free.error_x.array[0]) == (-0.5, 1.5)
    assert figure_svg(figure, 860).count("<polyline") == 3


def test_without_a_skill_there_is_no_figure_and_no_sentence():
    for card in ({}, {"skill_kept": None}, {"skill_kept": {"front": []}}):
        with pytest.raises(DataError, match="no skill was to be kept"):
            skill_front(ROWS, card)
    assert aim_in_words({}) == ""
    assert aim_in_words(CARD).startswith("Of the removals that take 0.80 of the shift, net,")
    none = {"skill_kept": {"front": FRONT, "at_restoration_0.8": None}}
    assert aim_in_words(none).startswith("No removal that was tried takes 0.80")
