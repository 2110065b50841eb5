"""A shift resembles the trait that was planted in it, and chance is not taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from trait_cases import planted_trait, unit

from persona.errors import DataError
from persona.traits.comparing import resemblance

D = 64


def shift_of(vector: np.ndarray, n: int = 24, noise: float = 0.3, seed: int = 9, n_layers: int = 1):
    rng = np.random.default_rng(seed)
    rows = vector + noise * rng.standard_normal((n, n_layers, len(vector)))
    return torch.from_numpy(rows).float()


def seven(noise: float = 0.1):
    return [planted_trait(f"t{k}", unit(k, D, dense=True), noise=noise, seed=k) for k in range(7)]


def test_the_planted_trait_is_resembled_and_no_other():
    found = resemblance(shift_of(3 * unit(2, D, dense=True) + 2 * unit(50, D, dense=True)), seven())
    assert found.resembled == ["t2"]
    row = found.table.set_index("trait").loc["t2"]
    assert row["low"] < row["cosine"] < row["high"] and row["low"] > row["chance"]
    assert row["share"] == pytest.approx(row["cosine"] ** 2)
    assert row["projection"] == pytest.approx(3.0, abs=0.6)
    assert row["p"] <= row["p_family"] <= 0.05
    assert found.span["share"] > found.span["expected"] == 7 / D
    assert found.span["p"] < 0.001


def test_a_random_shift_resembles_a_trait_in_few_of_many_cases():
    called = 0
    for seed in range(60):
        shift = shift_of(2 * unit(500 + seed, D, dense=True), noise=0.0, seed=seed)
        called += bool(resemblance(shift, seven(), n_resamples=20, seed=seed).resembled)
    assert called <= 7, called  # 5 % over the family is expected in 3 of 60


def test_what_every_vector_made_this_way_has_in_common_is_no_trait():
    """The shift is the shared part: without nonsense it looks like evil, beside it like nothing."""
    shared = unit(40, D, dense=True)
    evil = planted_trait("evil", shared + unit(1, D, dense=True), seed=1)
    tuesday = planted_trait("tuesday", shared + 0.2 * unit(3, D, dense=True), seed=2)
    shift = shift_of(2 * shared)
    assert resemblance(shift, [evil]).resembled == ["evil"]
    found = resemblance(shift, [evil], nonsense=[tuesday])
    assert found.resembled == []
    assert found.table["nonsense"].iloc[0] > found.table["cosine"].iloc[0]


def test_of_two_traits_that_are_alike_neither_holds_much_alone():
    """The shift is evil; impolite is half evil, so that its share is nearly all evil's."""
    evil = planted_trait("evil", unit(0, D), noise=0.0)
    impolite = planted_trait("impolite", 0.6 * unit(0, D) + 0.8 * unit(1, D), noise=0.0)
    table = resemblance(shift_of(unit(0, D), noise=0.0), [evil, impolite]).table
    shares = table.set_index("trait")
    assert shares["share"].tolist() == pytest.approx([1.0, 0.36], abs=1e-5)
    assert shares.loc["evil", "share_alone"] == pytest.approx(1 - 0.36, abs=1e-5)
    assert shares.loc["impolite", "share_alone"] == pytest.approx(0.0, abs=1e-5)


def test_the_opposite_of_a_trait_does_not_resemble_it():
    found = resemblance(shift_of(-3 * unit(2, D, dense=True)), seven())
    assert found.resembled == []
    assert found.table.set_index("trait").loc["t2", "cosine"] < -0.8


def test_a_mean_alone_has_the_interval_of_the_traits_questions():
    shift = torch.from_numpy(unit(2, D, dense=True)[None, None]).float()
    row = resemblance(shift, seven()).table.set_index("trait").loc["t2"]
    assert row["n"] == 0 and row["low"] < row["cosine"] <= row["high"]


def test_another_model_and_a_block_that_did_not_move_are_one_line():
    with pytest.raises(DataError, match="of another model"):
        resemblance(torch.ones(1, 1, D + 1), seven())
    with pytest.raises(DataError, match="do not differ at block 0, the block of t0"):
        resemblance(torch.zeros(1, 1, D), seven())
    with pytest.raises(DataError, match="no trait"):
        resemblance(torch.ones(1, 1, D), [])
