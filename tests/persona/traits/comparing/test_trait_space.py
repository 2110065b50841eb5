"""Planted traits are as alike as they were planted; what is not there is not found."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from trait_cases import planted_trait, unit

from persona.directions.exchange import VectorSet
from persona.errors import DataError
from persona.traits.comparing import KeptTrait, persona_space, trait_components, trait_cosines

D = 64


def alike(cosine: float, d_model: int = D) -> tuple[np.ndarray, np.ndarray]:
    first, other = unit(0, d_model), unit(1, d_model)
    return first, cosine * first + math.sqrt(1 - cosine**2) * other


def bare(name: str, vector, layer: int = 0, **facts) -> KeptTrait:
    tensor = torch.as_tensor(np.asarray(vector)).float()
    return KeptTrait(name, VectorSet({layer: tensor}, "resid_post", facts=facts), layer)


def test_the_interval_holds_the_planted_cosine_and_is_not_pulled_to_nothing_by_noise():
    """One noisy mean is as long as the truth and its noise: resampling must not double that."""
    first, second = alike(0.6)
    hits, centres = 0, []
    for seed in range(60):
        traits = [
            planted_trait("a", first, noise=0.5, n=20, seed=2 * seed),
            planted_trait("b", second, noise=0.5, n=20, seed=2 * seed + 1),
        ]
        row = trait_cosines(traits, [0], n_resamples=400, seed=seed).iloc[0]
        # noise of 0.5 a coordinate over 20 questions: squared length 1 + 64 * 0.25 / 20 = 1.8
        attenuated = 0.6 / 1.8
        hits += bool(row["low"] <= attenuated <= row["high"])
        centres.append(((row["low"] + row["high"]) / 2) - row["cosine"])
        assert row["n"] == 20
    assert hits >= 52, hits
    assert abs(float(np.mean(centres))) < 0.03


def test_the_ceiling_is_what_two_vectors_of_one_trait_reach():
    reached, told = [], []
    for seed in range(40):
        traits = [
            planted_trait(name, unit(0, D), noise=0.5, n=20, seed=100 + 2 * seed + place)
            for place, name in enumerate("ab")
        ]
        row = trait_cosines(traits, [0], n_resamples=200, seed=seed).iloc[0]
        reached.append(row["cosine"])
        told.append(row["ceiling"])
    assert np.mean(told) == pytest.approx(np.mean(reached), abs=0.05)
    assert np.mean(told) < 0.7


def test_unrelated_traits_stay_within_chance_and_related_ones_do_not():
    within = []
    for seed in range(60):
        first, second = unit(2 * seed, D, dense=True), unit(2 * seed + 1, D, dense=True)
        traits = [planted_trait("a", first, n=12, seed=seed), planted_trait("b", second, n=12)]
        row = trait_cosines(traits, [0], n_resamples=50).iloc[0]
        within.append(abs(row["cosine"]) <= row["chance"])
    assert np.mean(within) >= 0.85
    first, second = alike(0.8)
    row = trait_cosines([planted_trait("a", first), planted_trait("b", second)], [0]).iloc[0]
    assert row["cosine"] > row["chance"]


def test_without_questions_there_is_no_interval_and_the_ceiling_comes_of_the_halves():
    first, second = alike(0.6)
    row = trait_cosines([bare("a", first), bare("b", second)], [0]).iloc[0]
    assert row["cosine"] == pytest.approx(0.6, abs=1e-5)
    assert math.isnan(row["low"]) and math.isnan(row["ceiling"]) and row["n"] == 0
    halved = [
        KeptTrait(t.name, t.vectors, 0, split_half=0.5)
        for t in (bare("a", first), bare("b", second))
    ]
    row = trait_cosines(halved, [0]).iloc[0]
    assert row["ceiling"] == pytest.approx(2 / 3)  # Spearman-Brown: 2 * 0.5 / 1.5


def test_the_first_component_is_what_the_traits_share():
    shared = unit(5, D)
    traits = [bare(str(k), 2.0 * shared + unit(k, D)) for k in range(3)]
    table = trait_components(traits, 0)
    first = table[table["component"] == 1]
    assert (first["loading"] > 0.85).all()
    assert first["share"].iloc[0] == pytest.approx((2 * 2 + 1 / 3) / 5, abs=1e-4)
    assert table.groupby("component")["share"].first().sum() == pytest.approx(1.0)


def test_the_table_of_own_blocks_reads_each_row_at_its_own():
    a = KeptTrait(
        "a",
        VectorSet({0: torch.tensor([1.0, 0.0]), 1: torch.tensor([1.0, 0.0])}, "resid_post"),
        0,
    )
    b = KeptTrait(
        "b",
        VectorSet({0: torch.tensor([0.0, 1.0]), 1: torch.tensor([1.0, 1.0])}, "resid_post"),
        1,
    )
    table = persona_space([a, b], n_resamples=20).at_own_blocks()
    assert table.loc["a", "b"] == pytest.approx(0.0)
    assert table.loc["b", "a"] == pytest.approx(1 / math.sqrt(2))


def test_the_json_holds_no_number_that_is_none():
    first, second = alike(0.5)
    shift = torch.from_numpy(first[None, None]).float()
    space = persona_space(
        [planted_trait("a", first), bare("b", second)], shifts={"mine": shift}, n_resamples=50
    )
    text = json.dumps(space.as_json(), allow_nan=False)
    assert json.loads(text)["shifts"]["mine"]["resembles"] == ["a", "b"]


@pytest.mark.parametrize(
    ("traits", "line"),
    [
        (lambda: [bare("a", unit(0, 4))], "at least two"),
        (lambda: [bare("a", unit(0, 4)), bare("b", unit(0, 5))], "of one model"),
        (
            lambda: [bare("a", unit(0, 4), revision="x"), bare("b", unit(0, 4), revision="y")],
            "of one model",
        ),
        (lambda: [bare("a", unit(0, 4)), bare("a", unit(1, 4))], "both called a"),
        (lambda: [bare("a", unit(0, 4)), bare("b", unit(1, 4), layer=1)], "no block in common"),
    ],
)
def test_traits_that_do_not_go_together_are_one_line(traits, line):
    with pytest.raises(DataError, match=line):
        persona_space(traits())
