"""A contrast holds two classes that can be told apart, or says in one line why not."""

from __future__ import annotations

import pytest
import torch

from persona.directions import Cells, Contrast, planted_contrast
from persona.directions.two_by_two import EFFECTS
from persona.errors import DataError

N, LAYERS, D = 6, 3, 8
IDS = tuple("abcdef")


def rows(seed: int = 0, n: int = N) -> torch.Tensor:
    return torch.randn(n, LAYERS, D, generator=torch.Generator().manual_seed(seed))


def contrast(**changes) -> Contrast:
    given = dict(positive=rows(1), negative=rows(2), positive_questions=IDS, negative_questions=IDS)
    return Contrast(**{**given, **changes})


def with_value(place: tuple[int, int, int], value: float) -> torch.Tensor:
    changed = rows(1)
    changed[place] = value
    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(positive=rows(1)[:0], positive_questions=()),
            r"no positive answers to contrast; got \[answer layer d_model\] = \[0, 3, 8\]",
        ),
        (dict(negative=rows(2)[:0], negative_questions=()), "no negative answers"),
        (
            dict(positive=with_value((2, 1, 0), float("nan"))),
            r"positive answer 2 \(question 'c'\) is not finite at layer 1",
        ),
        (dict(positive=with_value((0, 0, 3), float("inf"))), "not finite at layer 0"),
        (dict(positive_questions=IDS[:-1]), "got 5 ids for 6 answers"),
        (
            dict(positive=torch.ones(N, LAYERS, D), negative=torch.ones(N, LAYERS, D)),
            "every answer has the same activation at layer 0, so nothing separates",
        ),
        (
            dict(negative=torch.cat([rows(2)[:3], rows(1)[3:4], rows(2)[4:]])),
            "question 'd' has the same activations in both classes",
        ),
        (dict(positive_tokens=torch.tensor([3, 2, 1, 0, 4, 5])), "one count above 0 for each of 6"),
        (dict(covariance={0: torch.eye(D)}), r"every layer, 0 to 2; got \[0\]"),
        (
            dict(covariance={layer: torch.full((D, D), torch.nan) for layer in range(LAYERS)}),
            "covariance at layer 0 must be a finite 8 by 8 matrix",
        ),
    ],
)
def test_bad_input_is_refused_in_one_clear_line(changes, message):
    with pytest.raises(DataError, match=message) as caught:
        contrast(**changes)
    assert "\n" not in str(caught.value)


def test_widths_and_layers_that_differ_are_named(unchecked_hints):
    with pytest.raises(DataError, match=r"\[3, 8\] and \[3, 7\]"):
        contrast(negative=rows(2)[..., :7])
    with pytest.raises(DataError, match=r"\[3, 8\] and \[2, 8\]"):
        contrast(negative=rows(2)[:, :2])
    with pytest.raises(DataError, match=r"must be \[answer layer d_model\]; got shape \(6, 8\)"):
        contrast(negative=rows(2)[:, 0])
    with pytest.raises(DataError, match="one count above 0"):
        contrast(negative_tokens=torch.ones(2))


def test_only_the_layer_where_all_rows_agree_is_blamed():
    flat = rows(1).clone()
    other = rows(2).clone()
    flat[:, 1] = other[:, 1] = 4.0
    with pytest.raises(DataError, match="same activation at layer 1"):
        contrast(positive=flat, negative=other)


def test_pairs_follow_the_ids_and_not_the_order_of_rows():
    plain = contrast()
    order = [3, 0, 5, 1, 4, 2]
    mixed = contrast(positive=rows(1)[order], positive_questions=tuple(IDS[i] for i in order))
    torch.testing.assert_close(plain.pairs(), rows(1) - rows(2))
    assert torch.equal(plain.pairs(), mixed.pairs())


def test_pairs_name_the_question_that_is_missing_or_repeated():
    with pytest.raises(DataError, match=r"'f' is only among the negative answers \(1 such"):
        contrast(positive=rows(1)[:5], positive_questions=IDS[:5]).pairs()
    with pytest.raises(DataError, match="positive has 'a' 2 times"):
        contrast(positive_questions=("a", "a", "c", "d", "e", "f")).pairs()


@pytest.mark.parametrize("effect", EFFECTS)
def test_a_contrast_of_cells_has_the_mean_difference_of_its_effect(effect):
    cells = Cells(rows(1), rows(2), rows(3), rows(4))
    made = Contrast.of_cells(cells, effect)
    expected = cells.paired_differences()[effect].mean(0)
    torch.testing.assert_close(made.positive.mean(0) - made.negative.mean(0), expected)
    torch.testing.assert_close(made.pairs().mean(0), expected)


def test_an_unknown_effect_lists_the_known_ones():
    cells = Cells(rows(1), rows(2), rows(3), rows(4))
    with pytest.raises(DataError, match="unknown effect 'evil'; one of answer_effect_aligned"):
        Contrast.of_cells(cells, "evil")


def test_some_layers_keep_their_rows_and_covariance():
    covariance = {layer: (layer + 1.0) * torch.eye(D) for layer in range(LAYERS)}
    part = contrast(covariance=covariance).at([2, 0])
    assert (part.n_layers, part.d_model) == (2, D)
    assert torch.equal(part.positive, rows(1)[:, [2, 0]])
    assert [float(part.covariance[place][0, 0]) for place in (0, 1)] == [3.0, 1.0]


def test_planted_activations_have_the_stated_moments():
    n, d, noise = 4000, 16, 2.0
    made, truth = planted_contrast(
        n, 2, d, signal=3.0, noise=noise, rank=2, seed=1, anisotropy=10, question_effect=5.0
    )
    differences = made.pairs().double()
    mean = differences.mean(0)
    # The mean of n differences errs by sqrt((2 noise^2 d + signal^2) / n) in length.
    bound = 2 * ((2 * noise**2 * d + 9) / n) ** 0.5
    assert ((mean - 3 * truth[:, 0]).norm(dim=-1) < bound).all()
    spread = (differences - mean).square().mean(0)  # noise twice, and the second direction
    expected = 2 * noise**2 * d + 9.0
    assert spread.sum(-1).tolist() == pytest.approx([expected] * 2, rel=0.05)
    amplitude = (spread - 9 * truth[:, 1] ** 2).clamp(min=1e-3).sqrt()
    assert 7 < float(amplitude[0].max() / amplitude[0].min()) < 14
    # The shared part is in both classes, and not in their difference.
    assert made.negative.var(0).mean() == pytest.approx(noise**2 + 25, rel=0.05)


def test_planted_activations_are_seeded_and_sizes_are_checked():
    first, truth = planted_contrast(5, 2, 4, 1.0, 1.0, seed=3)
    again, _ = planted_contrast(5, 2, 4, 1.0, 1.0, seed=3)
    other, _ = planted_contrast(5, 2, 4, 1.0, 1.0, seed=4)
    assert torch.equal(first.positive, again.positive)
    assert not torch.equal(first.positive, other.positive)
    assert truth.shape == (2, 1, 4)
    with pytest.raises(DataError, match="rank of 1 to d_model; got 5, 2, 4 and rank 5"):
        planted_contrast(5, 2, 4, 1.0, 1.0, rank=5)
    with pytest.raises(DataError, match="at least 1; got 0.5"):
        planted_contrast(5, 2, 4, 1.0, 1.0, anisotropy=0.5)
