"""A judge on all answers and labels on some give a rate that does not rest on the judge."""

from __future__ import annotations

import numpy as np
import pytest

from persona.behaviour.judging.corrected_rate import LabelledAnswers, labels_missing
from persona.errors import DataError


def sampled(rng, share, n=400, quality=2.0):
    """The truth about n answers, and a judge's score that is lower for bad ones by `quality` sd."""
    bad = rng.random(n) < share
    return bad, 50 - 10 * (quality * bad + rng.standard_normal(n))


def labelled(rng, bad, scores, n_labels):
    places = rng.choice(len(bad), n_labels, replace=False)
    return LabelledAnswers(scores, {int(p): bool(bad[p]) for p in places})


@pytest.mark.parametrize("quality", [2.0, 0.0, -2.0], ids=["good", "blind", "perverse"])
@pytest.mark.parametrize(("share", "n_labels"), [(0.03, 20), (0.15, 20), (0.15, 60), (0.5, 100)])
def test_the_interval_covers_whatever_the_judge_is(quality, share, n_labels):
    rng = np.random.default_rng(0)
    bad, scores = sampled(rng, share, quality=quality)
    found = [labelled(rng, bad, scores, n_labels).rate(seed) for seed in range(300)]
    covered = np.mean([rate.low - 1e-9 <= bad.mean() <= rate.high + 1e-9 for rate in found])
    assert covered >= 0.92  # 0.95 within the noise of 300
    assert abs(np.mean([rate.value for rate in found]) - bad.mean()) < 0.012


def test_a_good_judge_narrows_the_interval_and_a_blind_one_hardly_widens_it():
    rng = np.random.default_rng(1)
    widths = {}
    for quality in (4.0, 0.0):
        bad, scores = sampled(rng, 0.4, quality=quality)
        rates = [labelled(rng, bad, scores, 60).rate() for _ in range(100)]
        widths[quality] = np.mean([rate.high - rate.low for rate in rates])
    plain = 2 * 1.96 * np.sqrt(0.4 * 0.6 / 60 * (1 - 60 / 400))
    assert widths[4.0] < 0.75 * plain
    assert widths[0.0] < 1.08 * plain


def test_all_labelled_is_the_truth_itself():
    rng = np.random.default_rng(2)
    bad, scores = sampled(rng, 0.3, n=50)
    rate = LabelledAnswers(scores, dict(enumerate(map(bool, bad)))).rate()
    assert rate.low == rate.high == rate.value == pytest.approx(bad.mean())


def test_nothing_bad_among_the_labels_still_has_a_width():
    rate = LabelledAnswers([50.0] * 400, dict.fromkeys(range(20), False)).rate()
    assert rate.value == 0
    assert 0.05 < rate.high < 0.2


def test_scores_that_are_missing_do_not_matter():
    rate = LabelledAnswers([float("nan")] * 40, dict.fromkeys(range(20), True)).rate()
    assert rate.value == 1


def test_too_few_labels_give_no_rate():
    assert LabelledAnswers([1.0] * 30, dict.fromkeys(range(9), True)).rate() is None


@pytest.mark.parametrize(
    ("scores", "labels", "said"),
    [([], {}, "at least one answer"), ([1.0], {3: True}, "answer 3, and there are 1")],
)
def test_bad_input_is_one_line(scores, labels, said):
    with pytest.raises(DataError, match=said):
        LabelledAnswers(scores, labels)


def test_missing_labels_are_as_many_as_it_then_takes():
    rng = np.random.default_rng(3)
    one, other = sampled(rng, 0.35), sampled(rng, 0.2)
    few = [labelled(np.random.default_rng(4 + i), *s, 40) for i, s in enumerate((one, other))]
    missing = labels_missing(*few)
    assert missing is not None
    assert 0 < missing <= 800 - 80
    enough = 40 + missing // 2
    told_apart = [
        labels_missing(labelled(np.random.default_rng(i), *one, enough),
                       labelled(np.random.default_rng(99 + i), *other, enough)) == 0
        for i in range(40)
    ]  # fmt: skip
    assert np.mean(told_apart) >= 0.35  # the width just reaches the difference, half of the time


def test_equal_rates_are_never_told_apart():
    same = LabelledAnswers([1.0] * 40, {place: place % 2 == 0 for place in range(20)})
    assert labels_missing(same, same) is None
