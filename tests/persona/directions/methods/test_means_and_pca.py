"""Means by answer and by token; PCA against the textbook; the rows that subspaces are made of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from persona.directions import Contrast, planted_contrast
from persona.directions.methods import (
    difference_of_means,
    paired_pca,
    paired_pca_centred,
    persona_subspace,
)
from persona.errors import DataError


def test_token_weights_count_a_long_answer_more():
    positive = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    negative = torch.zeros(2, 1, 2)
    contrast = Contrast(
        positive,
        negative,
        ("a", "b"),
        ("a", "b"),
        positive_tokens=torch.tensor([3, 1]),
        negative_tokens=torch.tensor([1, 7]),
    )
    by_answer = difference_of_means(contrast)[0, 0]
    by_token = difference_of_means(contrast, weighting="token")[0, 0]
    torch.testing.assert_close(by_answer, torch.tensor([1.0, 1.0]) / 2**0.5)
    torch.testing.assert_close(by_token, torch.tensor([3.0, 1.0]) / 10**0.5)


def test_equal_token_counts_give_the_mean_over_answers():
    contrast, _ = planted_contrast(30, 2, 8, 1.0, 1.0)
    even = replace(
        contrast, positive_tokens=torch.full((30,), 9), negative_tokens=torch.full((30,), 4)
    )
    torch.testing.assert_close(
        difference_of_means(even, weighting="token"), difference_of_means(contrast)
    )


def test_missing_token_counts_are_asked_for():
    contrast, _ = planted_contrast(4, 1, 4, 1.0, 1.0)
    with pytest.raises(DataError, match="give positive_tokens and negative_tokens"):
        difference_of_means(contrast, weighting="token")


def test_another_weighting_is_refused(unchecked_hints):
    contrast, _ = planted_contrast(4, 1, 4, 1.0, 1.0)
    with pytest.raises(DataError, match="'answer' or 'token'; got 'word'"):
        difference_of_means(contrast, weighting="word")


@pytest.mark.parametrize(("n", "d"), [(30, 12), (9, 20)])
@pytest.mark.parametrize("centred", [False, True])
def test_pca_equals_the_singular_vectors_of_the_textbook(n, d, centred):
    contrast, _ = planted_contrast(n, 2, d, 1.0, 1.0, anisotropy=5)
    rows = (paired_pca_centred if centred else paired_pca)(contrast, rank=4)
    for layer in range(2):
        x = contrast.pairs()[:, layer].double().numpy()
        vt = np.linalg.svd(x - centred * x.mean(0), full_matrices=False)[2][:4]
        overlap = np.abs(np.sum(rows[layer].double().numpy() * vt, axis=1))
        np.testing.assert_allclose(overlap, 1, atol=1e-5)


def test_centred_pca_of_one_shift_for_all_questions_has_nothing_to_show():
    shift = torch.linspace(1, 2, 8)
    negative = torch.randn(20, 1, 8, generator=torch.Generator().manual_seed(0))
    ids = tuple(map(str, range(20)))
    contrast = Contrast(negative + shift, negative, ids, ids)
    torch.testing.assert_close(paired_pca(contrast)[0, 0], shift / shift.norm())
    with pytest.raises(DataError, match="at layer 0 span only 0 directions; rank 1 was asked"):
        paired_pca_centred(contrast)
    with pytest.raises(DataError, match="span only 1 directions; rank 2 was asked"):
        paired_pca(contrast, rank=2)


def test_more_directions_than_coordinates_are_refused():
    contrast, _ = planted_contrast(30, 1, 6, 1.0, 1.0)
    with pytest.raises(DataError, match="span at most 6 directions; rank 7 was asked"):
        paired_pca(contrast, rank=7)


def test_a_subspace_begins_with_the_mean_and_goes_on_with_the_spread_outside_it():
    contrast, _ = planted_contrast(50, 2, 10, 2.0, 0.5, rank=3)
    rows = persona_subspace(contrast, rank=4).double()
    torch.testing.assert_close(rows[:, :1].float(), difference_of_means(contrast))
    assert torch.equal(persona_subspace(contrast, rank=1), difference_of_means(contrast))
    pairs = contrast.pairs().double()
    outside = pairs - torch.einsum("qld,ld,le->qle", pairs, rows[:, 0], rows[:, 0])
    energy = torch.einsum("qld,lrd->qlr", outside, rows[:, 1:]).square().mean(0)
    assert (energy.diff(dim=-1) < 0).all()
    top = torch.linalg.eigvalsh(torch.einsum("qld,qle->lde", outside, outside) / 50)
    torch.testing.assert_close(energy, top.flip(-1)[:, :3], rtol=1e-4, atol=0)


def test_rank_one_subspaces_need_no_pairs():
    contrast, _ = planted_contrast(10, 1, 6, 2.0, 0.5)
    lone = replace(contrast, positive_questions=tuple("klmnopqrst"))
    assert persona_subspace(lone, rank=1).shape == (1, 1, 6)
