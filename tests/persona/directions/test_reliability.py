"""Reliability on planted activations: it rises with the signal and with n; no signal, no cosine."""

from __future__ import annotations

import pytest
import torch

from persona.directions import planted_contrast
from persona.directions.methods import METHODS, difference_of_means
from persona.directions.reliability import (
    bootstrap_cosine,
    leave_one_group_out,
    pairwise_cosine,
    sample_size_curve,
    select_questions,
    split_half_cosine,
    subspace_cosine,
)
from persona.errors import DataError

N, LAYERS, D = 64, 3, 32


def planted(signal=1.0, n=N, seed=0, rank=1):
    return planted_contrast(n, LAYERS, D, signal, noise=1.0, rank=rank, seed=seed)[0]


def expected_cosine(n, signal):
    """Two independent means of n paired differences: each has noise energy 2 D / n beside
    signal^2, and the noises are orthogonal on average, so cos = s^2 / (s^2 + 2 D / n)."""
    return signal**2 / (signal**2 + 2 * D / n)


@pytest.mark.parametrize("signal", [0.5, 1.0, 3.0])
def test_split_half_cosine_is_what_signal_and_noise_give(signal):
    table = split_half_cosine(planted(signal), difference_of_means, n_splits=40)
    assert list(table["layer"]) == [0, 1, 2]
    # The mean over splits of one data set varies by about 1 / sqrt(D) around the expectation.
    assert abs(table["cosine"].mean() - expected_cosine(N // 2, signal)) < 2 / D**0.5
    assert (table["low"] <= table["cosine"]).all()
    assert (table["cosine"] <= table["high"]).all()


def test_no_signal_gives_no_agreement():
    table = split_half_cosine(planted(0.0), difference_of_means, n_splits=40)
    assert table["cosine"].abs().max() < 3 / D**0.5


def test_more_questions_agree_more():
    curve = sample_size_curve(planted(1.0, n=256), difference_of_means, (8, 32, 128))
    by_size = curve.groupby("n")["cosine"].mean()
    assert by_size.is_monotonic_increasing
    for n in (8, 32, 128):
        assert abs(by_size[n] - expected_cosine(n, 1.0)) < 0.1


def test_bootstrap_draws_questions_with_return():
    table = bootstrap_cosine(planted(2.0), difference_of_means, n_resamples=30)
    assert (table["low"] > 0.8).all()
    assert (table["high"] < 1).all(), "draws differ from the whole"


def test_a_group_with_another_direction_stands_out():
    same, other = planted(3.0, n=32), planted(3.0, n=16, seed=9)
    ids = [f"other-{q}" for q in other.positive_questions]
    mixed = type(same)(
        torch.cat([same.positive, other.positive]),
        torch.cat([same.negative, other.negative]),
        (*same.positive_questions, *ids),
        (*same.negative_questions, *ids),
    )
    groups = {q: "ab"[i % 2] for i, q in enumerate(same.positive_questions)}
    groups |= dict.fromkeys(ids, "other")
    table = leave_one_group_out(mixed, difference_of_means, groups)
    cosines = table.groupby("group")["cosine"].mean()
    assert cosines["other"] < 0.5 < cosines[["a", "b"]].min()


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_has_a_reliability(name):
    rank = 2 if name in ("paired_pca", "persona_subspace") else 1
    table = split_half_cosine(planted(3.0, rank=2), METHODS[name], rank=rank, n_splits=3)
    assert table["cosine"].between(-1, 1).all()


def test_subspace_cosine_knows_equal_and_orthogonal():
    eye = torch.eye(4)
    a, b = eye[:2][None], eye[2:][None]
    assert float(subspace_cosine(a, a)[0]) == pytest.approx(1)
    assert float(subspace_cosine(a, a.flip(1))[0]) == pytest.approx(1), "order does not matter"
    assert float(subspace_cosine(a, b)[0]) == 0
    assert float(subspace_cosine(eye[:1][None], -eye[:1][None])[0]) == -1, "rank 1 is signed"
    table = pairwise_cosine({"x": a, "y": b, "z": a})
    assert set(zip(table["first"], table["second"], strict=True)) == {
        ("x", "y"),
        ("x", "z"),
        ("y", "z"),
    }


def test_a_question_drawn_twice_counts_twice():
    whole = planted(n=4)
    first, second = whole.positive_questions[:2]
    drawn = select_questions(whole, [first, first, second])
    differences = whole.pairs()
    torch.testing.assert_close(
        drawn.pairs().mean(0), (2 * differences[0] + differences[1]) / 3, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda c: split_half_cosine(
                select_questions(c, c.positive_questions[:3]), difference_of_means
            ),
            "at least 4 questions; got 3",
        ),
        (lambda c: sample_size_curve(c, difference_of_means, [40]), "2 to 32 questions; got"),
        (lambda c: leave_one_group_out(c, difference_of_means, {}), "has no group"),
        (
            lambda c: leave_one_group_out(
                c, difference_of_means, dict.fromkeys(c.positive_questions, "a")
            ),
            "2 or more gr",
        ),
    ],
)
def test_too_little_to_compare_is_said(call, message):
    with pytest.raises(DataError, match=message):
        call(planted())
