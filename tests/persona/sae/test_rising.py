"""Latents that rise on unrelated text: a planted one is found, and none where nothing differs."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from persona.errors import DataError
from persona.readouts.latent_lists import latents_of_differences
from persona.sae.rising import rising_latents


def words_of(latents):
    return [(f"w{latent}",) for latent in latents]


def test_a_planted_rise_comes_first_and_a_fall_does_not_rise():
    rows = 0.1 * torch.randn(24, 300, generator=torch.Generator().manual_seed(0))
    rows[:, 7] += 0.5
    rows[:, 9] -= 0.5
    found = latents_of_differences("text", 3, rows, words_of)
    first, *others = found.rising
    assert (first.latent, first.words) == (7, ("w7",)) and first.beats_chance
    assert not any(one.beats_chance for one in others) and 9 not in {o.latent for o in others}
    assert found.n_significant == 2 and found.n == 24


def test_of_noise_one_list_in_twenty_shows_anything():
    shown = 0
    for seed in range(40):
        rows = torch.randn(16, 200, generator=torch.Generator().manual_seed(seed))
        shown += latents_of_differences("text", 3, rows, words_of, seed=seed).n_significant > 0
    assert shown <= 6


def test_nothing_that_rises_has_no_words_and_few_texts_are_refused():
    assert latents_of_differences("text", 3, torch.zeros(9, 4), words_of).rising == ()
    with pytest.raises(DataError, match="a list of latents takes 8 texts or more"):
        latents_of_differences("text", 3, torch.zeros(7, 4), words_of)


def test_a_pair_is_read_on_both_kinds_of_text(tiny_pair, sae):
    found = rising_latents(tiny_pair, sae)
    assert len(found) == 2 and {one.layer for one in found} == {sae.layer}
    for one in found:
        assert all(latent.rise > 0 and len(latent.words) == 6 for latent in one.rising)
    same = dataclasses.replace(tiny_pair, open_side=lambda side: tiny_pair.open_side("aligned"))
    assert all(one.rising == () and one.n_significant == 0 for one in rising_latents(same, sae))
