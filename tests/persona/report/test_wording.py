"""Numbers as people read them."""

import math

import pytest

from persona.report.wording import (
    UNDEFINED,
    blocks,
    cleaned,
    duration,
    interval,
    number,
    with_interval,
)


@pytest.mark.parametrize(
    ("value", "signed", "text"),
    [
        (0.846, False, "0.85"),
        (-0.3, False, "−0.30"),
        (0.3, True, "+0.30"),
        (-0.001, True, "0.00"),
        (0, True, "0.00"),
        (None, False, UNDEFINED),
        (math.nan, False, UNDEFINED),
        (math.inf, True, UNDEFINED),
        ("0.5", False, UNDEFINED),
    ],
)
def test_a_number_has_a_true_minus_and_is_undefined_where_it_is_none(value, signed, text):
    assert number(value, signed=signed) == text


def test_an_interval_never_breaks_over_two_lines_and_is_empty_without_both_ends():
    assert interval({"low": -0.1, "high": 0.2}, signed=True) == "[−0.10,\u00a0+0.20]"
    assert interval({"low": None, "high": 0.2}) == ""
    assert interval({"low": 0.1, "high": math.nan}) == ""
    assert interval(None) == ""


def test_a_mean_and_a_value_are_both_shown_with_their_interval():
    assert with_interval({"mean": 1, "low": 0, "high": 2}, 0) == "1 [0,\u00a02]"
    assert with_interval({"value": 1.0, "low": None, "high": None}) == "1.00"
    assert with_interval(None) == UNDEFINED


@pytest.mark.parametrize(
    ("layers", "text"),
    [
        ([19], "block 19"),
        ([15, 13, 14], "blocks 13–15"),
        ([3, 7], "blocks 3, 7"),
        ([], "no block named"),
    ],
)
def test_blocks_are_a_range_only_where_none_is_left_out(layers, text):
    assert blocks(layers) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.26, "4.3 s"), (252.4, "4 min 12 s"), (7322, "2 h 2 min"), (None, UNDEFINED)],
)
def test_durations_are_in_the_largest_fitting_units(seconds, text):
    assert duration(seconds) == text


def test_text_from_models_loses_what_no_page_can_hold():
    assert cleaned("a\r\nb\rc\td") == "a\nb\nc\td"
    assert cleaned("x\x00y\x1bz\ud800") == "x\ufffdy\ufffdz\ufffd"
