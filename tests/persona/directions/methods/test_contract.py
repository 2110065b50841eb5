"""What every extraction method keeps to, whatever it computes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from persona.directions import Contrast, planted_contrast
from persona.directions.methods import METHODS, whitened_difference
from persona.errors import DataError

N, LAYERS, D = 40, 3, 12
PAIRED = ("paired_pca", "paired_pca_centred", "persona_subspace")
RANK_ONE = tuple(name for name in METHODS if name not in PAIRED)

every_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture
def contrast() -> Contrast:
    return planted_contrast(N, LAYERS, D, signal=2.0, noise=1.0, rank=2)[0]


def rank_of(name: str) -> int:
    return 3 if name in PAIRED else 1


def rows_of(name: str, contrast: Contrast) -> torch.Tensor:
    return METHODS[name](contrast, rank=rank_of(name))


def mean_difference(contrast: Contrast) -> torch.Tensor:
    return contrast.positive.double().mean(0) - contrast.negative.double().mean(0)


@every_method
def test_rows_are_orthonormal_finite_float32_and_layer_by_layer(name, contrast):
    rows = rows_of(name, contrast)
    rank = rank_of(name)
    assert rows.shape == (LAYERS, rank, D)
    assert rows.dtype == torch.float32
    assert rows.isfinite().all()
    gram = rows.double() @ rows.double().mT
    torch.testing.assert_close(
        gram, torch.eye(rank).double().expand(LAYERS, rank, rank), atol=1e-5, rtol=0
    )


@every_method
def test_the_positive_class_lies_on_the_positive_side_of_every_row(name, contrast):
    projected = torch.einsum(
        "lrd,ld->lr", rows_of(name, contrast).double(), mean_difference(contrast)
    )
    assert (projected[:, 0] > 0).all()
    assert (projected >= -1e-5).all()


@every_method
def test_swapping_the_classes_turns_the_direction_round(name, contrast):
    swapped = replace(contrast, positive=contrast.negative, negative=contrast.positive)
    torch.testing.assert_close(
        METHODS[name](swapped, rank=1), -METHODS[name](contrast, rank=1), atol=1e-4, rtol=0
    )


@every_method
def test_a_layer_alone_gives_the_rows_it_has_among_others(name, contrast):
    alone = rows_of(name, contrast.at([1]))
    torch.testing.assert_close(alone[0], rows_of(name, contrast)[1], atol=1e-4, rtol=0)


@every_method
def test_the_order_of_rows_changes_nothing(name, contrast):
    generator = torch.Generator().manual_seed(0)
    mixed = contrast
    for side in ("positive", "negative"):
        order = torch.randperm(N, generator=generator).tolist()
        ids = getattr(contrast, f"{side}_questions")
        mixed = replace(
            mixed,
            **{
                side: getattr(contrast, side)[order],
                f"{side}_questions": tuple(ids[i] for i in order),
            },
        )
    torch.testing.assert_close(rows_of(name, mixed), rows_of(name, contrast), atol=1e-4, rtol=0)


@every_method
def test_an_offset_and_a_unit_shared_by_all_activations_change_nothing(name, contrast):
    offset = 5 * torch.randn(LAYERS, D, generator=torch.Generator().manual_seed(1))
    moved = replace(
        contrast,
        positive=7 * contrast.positive + offset,
        negative=7 * contrast.negative + offset,
    )
    torch.testing.assert_close(rows_of(name, moved), rows_of(name, contrast), atol=1e-4, rtol=0)


@every_method
def test_every_question_twice_changes_nothing(name, contrast):
    ids = tuple(f"{prefix}{q}" for prefix in "xy" for q in contrast.positive_questions)
    doubled = Contrast(
        contrast.positive.repeat(2, 1, 1), contrast.negative.repeat(2, 1, 1), ids, ids
    )
    if name == "whitened_difference":  # Ledoit and Wolf's share depends on n: hold it still
        first, second = (whitened_difference(c, shrinkage=0.1) for c in (contrast, doubled))
    else:
        first, second = rows_of(name, contrast), rows_of(name, doubled)
    torch.testing.assert_close(second, first, atol=1e-4, rtol=0)


@every_method
def test_fewer_answers_than_coordinates_take_another_route_to_the_same_kind_of_rows(name):
    wide, truth = planted_contrast(20, 2, 48, signal=8.0, noise=1.0)
    row = METHODS[name](wide, rank=1)[:, 0]
    torch.testing.assert_close(row.norm(dim=-1), torch.ones(2), atol=1e-5, rtol=0)
    if name != "paired_pca_centred":
        assert (torch.einsum("ld,ld->l", row, truth[:, 0]) > 0.5).all()


@pytest.mark.parametrize("name", RANK_ONE)
def test_a_method_of_one_direction_refuses_a_second(name, contrast):
    with pytest.raises(DataError, match=f"{name} gives one direction; rank 2 was asked"):
        METHODS[name](contrast, rank=2)


@every_method
def test_rank_zero_is_refused(name, contrast):
    with pytest.raises(DataError, match="1 or more; got 0"):
        METHODS[name](contrast, rank=0)


@pytest.mark.parametrize("name", PAIRED)
def test_too_few_pairs_for_a_rank_are_counted(name, contrast):
    few = Contrast(contrast.positive[:2], contrast.negative[:2], ("a", "b"), ("a", "b"))
    with pytest.raises(DataError, match="pairs.*got 2"):
        METHODS[name](few, rank=3)


@pytest.mark.parametrize("name", ["whitened_difference", "ridge_direction", "logistic_direction"])
def test_one_answer_a_class_is_too_few_to_see_a_spread(name, contrast):
    few = Contrast(contrast.positive[:1], contrast.negative[:3], ("a",), ("a", "b", "c"))
    with pytest.raises(DataError, match=f"{name} needs at least 2 answers.*1 positive and 3 neg"):
        METHODS[name](few)


@every_method
def test_questions_without_a_partner_are_named_by_paired_methods_alone(name, contrast):
    ids = ("other", *contrast.positive_questions[1:])
    unpaired = replace(contrast, positive_questions=ids)
    if name in PAIRED:
        with pytest.raises(DataError, match="'other' is only among the positive answers"):
            METHODS[name](unpaired, rank=2)
    else:
        assert torch.equal(METHODS[name](unpaired), METHODS[name](contrast))


@every_method
def test_repeated_questions_are_refused_by_paired_methods_alone(name, contrast):
    ids = ("q0001", *contrast.positive_questions[1:])
    repeated = replace(contrast, positive_questions=ids)
    if name in PAIRED:
        with pytest.raises(DataError, match="positive has 'q0001' 2 times"):
            METHODS[name](repeated, rank=2)
    else:
        assert torch.equal(METHODS[name](repeated), METHODS[name](contrast))


@every_method
def test_equal_means_are_an_error_that_names_the_layer_and_the_way_out(name, contrast):
    negative = contrast.negative.clone()
    negative[:, 1] = contrast.positive[:, 1].roll(1, dims=0)  # same answers, other questions
    with pytest.raises(DataError, match=r"same mean at layer 1.*use contrast.at\(\[0, 2\]\)"):
        METHODS[name](replace(contrast, negative=negative))
