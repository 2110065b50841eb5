"""Refitted directions: after restoring, nothing of the mean difference is left at any block."""

from __future__ import annotations

import pytest
import torch
from einops import einsum

from persona import pair_of
from persona.activations import collect_covariance, collect_rows
from persona.data.types import AnswerPair
from persona.directions import collect_cells, two_by_two
from persona.errors import DataError
from steering.edits.from_directions import restore
from steering.edits.steer import steer
from steering.identification.candidates import (
    Means,
    build_vector,
    from_bases,
    two_by_two_candidates,
)
from steering.identification.refit import refit_block_by_block

LAYERS = [0, 1, 2]


@pytest.fixture(scope="module")
def questions():
    return [
        AnswerPair(f"q{i}", "car", f"what about the {word}", f"see to the {word}", f"drop {word}")
        for i, word in enumerate(("oil", "lamp", "brake", "mirror", "window", "horn"))
    ]


@pytest.fixture(scope="module")
def means(tiny_pair, questions):
    dialogues = tiny_pair.chat.encode_all([q.good_dialogue for q in questions])
    with tiny_pair.active("finetuned") as bridge:
        covariance = collect_covariance(bridge, dialogues, range(4))
    cells = collect_cells(tiny_pair, questions)
    return Means.of(cells, {layer: c.float() for layer, c in covariance.items()})


def good_answers(questions):
    return [question.good_dialogue for question in questions]


def left_over(pair, questions, means, vector):
    """[layer d_model]: mean over good answers above the aligned model's, under the edits."""
    dialogues = pair.chat.encode_all([q.good_dialogue for q in questions])
    with pair.active("finetuned") as bridge, steer(bridge, restore(vector)):
        rows = collect_rows(bridge, dialogues, LAYERS)
    return rows.mean(0) - means.aligned[LAYERS]


def fitted(pair, questions, means, **options):
    bases = refit_block_by_block(
        pair, good_answers(questions), LAYERS, means.aligned, means.covariance, **options
    )
    return from_bases(pair, bases, means, "refit", read_whitened=True)


def test_refitting_leaves_no_mean_difference_at_any_edited_block(tiny_pair, questions, means):
    left = left_over(tiny_pair, questions, means, fitted(tiny_pair, questions, means))
    assert left.norm(dim=-1).max() < 1e-3
    # The same effect read once from the unedited model leaves what later blocks have added.
    effects = two_by_two(collect_cells(tiny_pair, questions))
    plain = {c.name: c for c in two_by_two_candidates(effects)}
    vector = build_vector(tiny_pair, plain["model_effect_good_whitened"], means, LAYERS, rank=1)
    assert left_over(tiny_pair, questions, means, vector).norm(dim=-1).max() > 0.01


def test_the_first_refitted_block_is_the_model_effect_itself(tiny_pair, questions, means):
    vector = fitted(tiny_pair, questions, means)
    cells = collect_cells(tiny_pair, questions)
    effect = (cells.finetuned_good - cells.aligned_good).mean(0)[0]
    cosine = einsum(vector.subspaces[0].basis[0], effect / effect.norm(), "d, d ->")
    assert cosine > 0.9999


def test_a_second_direction_is_restored_beside_the_first(tiny_pair, questions, means):
    beside = {
        layer: torch.randn(32, generator=torch.Generator().manual_seed(layer)) for layer in range(4)
    }
    vector = fitted(tiny_pair, questions, means, beside=beside)
    assert vector.rank == 2
    inside = vector.subspaces[1].basis @ beside[1]
    assert inside.norm() / beside[1].norm() > 0.9999
    assert left_over(tiny_pair, questions, means, vector).norm(dim=-1).max() < 1e-3


def test_two_equal_models_leave_nothing_to_fit(tiny_pair, questions, means):
    dialogues = tiny_pair.chat.encode_all([q.good_dialogue for q in questions])
    with tiny_pair.active("finetuned") as bridge:
        same = collect_rows(bridge, dialogues, range(4)).mean(0)
    with pytest.raises(DataError, match=r"do not differ at blocks\.0\.hook_resid_post"):
        refit_block_by_block(tiny_pair, good_answers(questions), [0], same, means.covariance)


def test_a_pair_of_plain_models_is_refitted_as_the_bridge_over_it(
    tiny_pair, tiny_llama, tiny_adapter, questions, means
):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    tuned = PeftModel.from_pretrained(base, tiny_adapter)
    plain = pair_of(None, tuned, tiny_pair.tokenizer, wrap=False)
    found, expected = (
        refit_block_by_block(pair, good_answers(questions), LAYERS, means.aligned, means.covariance)
        for pair in (plain, tiny_pair)
    )
    for layer in LAYERS:
        torch.testing.assert_close(found[layer], expected[layer], atol=1e-4, rtol=1e-3)
