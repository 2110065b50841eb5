"""Colours that a colour-blind person can tell apart, on paper and at night."""

from itertools import combinations

import numpy as np
import pytest
from colour_contrast import TO_XYZ, contrast, linear

from persona.report.theme import CONDITIONS, EFFECTS, GROUND, INK, QUIET_INK, in_order, svg_text
from persona.rows import NULLS, STRONG_NULLS

# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB.
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}


def lab(rgb):
    """CIE L*a*b* of linear RGB under D65."""
    x = TO_XYZ @ np.clip(rgb, 0, 1) / np.array([0.95047, 1, 1.08883])
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("ground", GROUND.values())
@pytest.mark.parametrize("look", [*CONDITIONS.values(), *EFFECTS.values()], ids=lambda x: x.label)
def test_every_colour_has_a_contrast_of_three_on_both_grounds(look, ground):
    assert contrast(look.colour, ground) >= 3.0


@pytest.mark.parametrize("mode", GROUND)
def test_text_has_the_contrast_that_small_type_needs(mode):
    assert contrast(INK[mode], GROUND[mode]) >= 7
    assert contrast(QUIET_INK[mode], GROUND[mode]) >= 4.5


@pytest.mark.parametrize("vision", VISION)
def test_conditions_stay_apart_for_every_kind_of_colour_vision(vision):
    seen = {name: lab(VISION[vision] @ linear(look.colour)) for name, look in CONDITIONS.items()}
    near = {
        pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]]))
        for pair in combinations(seen, 2)
        if np.linalg.norm(seen[pair[0]] - seen[pair[1]]) < 15
        # A control has the colour of what it controls on purpose, and a mark of its own.
        and CONDITIONS[pair[0]].colour != CONDITIONS[pair[1]].colour
    }
    assert near == {}


@pytest.mark.parametrize("vision", VISION)
def test_effects_of_the_two_by_two_stay_apart_too(vision):
    colours = {look.colour for look in EFFECTS.values()}
    seen = [lab(VISION[vision] @ linear(colour)) for colour in colours]
    assert min(float(np.linalg.norm(a - b)) for a, b in combinations(seen, 2)) >= 15


def test_a_condition_is_told_by_its_marker_alone():
    assert len({look.symbol for look in CONDITIONS.values()}) == len(CONDITIONS)
    marks = {(look.colour, look.symbol, look.dash) for look in EFFECTS.values()}
    assert len(marks) == len(EFFECTS)


def test_conditions_keep_one_order_and_unknown_ones_come_last_as_given():
    assert in_order(["zzz", "finetuned", "aligned", "aaa"]) == [
        "aligned",
        "finetuned",
        "zzz",
        "aaa",
    ]


def test_text_for_plotly_is_escaped_because_plotly_reads_tags():
    assert svg_text("<a href='x'>&") == "&lt;a href='x'&gt;&amp;"


def test_every_control_has_words_for_a_reader():
    for name in (*NULLS, *STRONG_NULLS):
        assert CONDITIONS[name].meaning.startswith("control: "), name
