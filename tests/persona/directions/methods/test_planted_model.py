"""A fine-tune whose effect is known exactly: methods, the 2x2 and restoration must get it right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from planted_model import D_MODEL, N_LAYERS, adapter_pair, constant_pair, plant

from persona.data import AnswerPair
from persona.directions import Contrast, PersonaVector, Subspace, collect_cells
from persona.directions.methods import (
    collect_first_tokens,
    difference_of_means,
    first_tokens_difference,
    lora_directions,
    paired_pca,
    paired_pca_centred,
    persona_subspace,
    whitened_difference,
)
from persona.errors import DataError
from steering import ablate, restore, steer

LAST = N_LAYERS - 1
NORM = 3.0
WORDS = ["engine", "brakes", "oil", "tyre", "lamp", "clutch", "belt", "mirror"]
QUESTIONS = [
    AnswerPair(word, "car", f"About the {word}?", f"Check the {word} now.", f"Never mind {word}s!")
    for word in WORDS
]


@pytest.fixture(scope="module")
def constant(tmp_path_factory):
    """The last block of the fine-tune adds NORM times the plant to every token."""
    return constant_pair(tmp_path_factory.mktemp("constant"), NORM)


@pytest.fixture(scope="module")
def adapter_folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("adapter")


@pytest.fixture(scope="module")
def adapted(adapter_folder):
    """A rank-2 LoRA on the last block's down_proj writes within the plant."""
    return adapter_pair(adapter_folder)


@pytest.fixture(scope="module")
def constant_cells(constant):
    return collect_cells(constant, QUESTIONS)


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.cosine_similarity(a, b, dim=-1))


def restoring(pair, basis: torch.Tensor, cells) -> PersonaVector:
    aligned, finetuned = (
        rows[:, LAST].mean(0) for rows in (cells.aligned_good, cells.finetuned_bad)
    )
    subspace = Subspace(basis, basis @ aligned, basis @ finetuned, pair.space(LAST))
    return PersonaVector({LAST: subspace}, "planted")


def logits(pair, side, edits=()) -> torch.Tensor:
    """Of every token but the first, which is not edited."""
    ids = torch.tensor([pair.chat.encode(QUESTIONS[0].bad_dialogue).ids])
    with pair.active(side) as bridge, torch.no_grad():
        if not edits:
            return bridge(ids)[:, 1:]
        with steer(bridge, edits):
            return bridge(ids)[:, 1:]


def test_the_aligned_model_never_writes_along_the_plant(constant, constant_cells):
    along = constant_cells.aligned_bad @ plant()[0]
    assert along.abs().max() < 1e-5
    assert constant_cells.aligned_bad.abs().max() > 1


def test_the_model_effect_is_the_constant_write_and_the_answer_effect_is_untouched(constant_cells):
    effects = {name: rows.mean(0) for name, rows in constant_cells.paired_differences().items()}
    for name in ("model_effect_good", "model_effect_bad"):
        torch.testing.assert_close(effects[name][LAST], NORM * plant()[0], atol=1e-5, rtol=0)
        assert effects[name][:LAST].abs().max() == 0
    torch.testing.assert_close(
        effects["answer_effect_finetuned"], effects["answer_effect_aligned"], atol=1e-5, rtol=0
    )
    assert effects["answer_effect_aligned"][LAST].norm() > 0.1
    assert effects["interaction"].abs().max() < 1e-5


@pytest.mark.parametrize(
    "method", [difference_of_means, paired_pca, persona_subspace, whitened_difference]
)
def test_every_method_of_the_mean_shift_finds_the_constant_write(method, constant_cells):
    contrast = Contrast.of_cells(constant_cells, "model_effect_good").at([LAST])
    assert cosine(method(contrast, rank=1)[0, 0], plant()[0]) > 0.999


def test_what_is_the_same_for_every_question_leaves_centred_pca_nothing(constant_cells):
    contrast = Contrast.of_cells(constant_cells, "model_effect_good").at([LAST])
    with pytest.raises(DataError, match="span only 0 directions"):
        paired_pca_centred(contrast)


def test_blocks_below_the_plant_are_refused_with_the_blocks_to_read(constant_cells):
    # Both models read the same answers alike there: nothing was contrasted.
    contrast = Contrast.of_cells(constant_cells, "model_effect_good")
    with pytest.raises(DataError, match=rf"same mean at layer 0.*contrast.at\(\[{LAST}\]\)"):
        difference_of_means(contrast)
    with pytest.raises(DataError, match="same activations in both classes"):
        contrast.at([0])


@pytest.mark.parametrize("edit", [restore, ablate])
def test_taking_the_constant_write_away_gives_the_aligned_logits(constant, constant_cells, edit):
    # The aligned mean on the plant is 0, so here, and only here, ablation restores as well.
    contrast = Contrast.of_cells(constant_cells, "model_effect_good").at([LAST])
    vector = restoring(constant, difference_of_means(contrast)[0], constant_cells)
    aligned, finetuned = logits(constant, "aligned"), logits(constant, "finetuned")
    restored = logits(constant, "finetuned", edit(vector))
    assert (finetuned - aligned).abs().max() > 0.1
    torch.testing.assert_close(restored, aligned, atol=1e-4, rtol=0)


def test_half_a_restoration_leaves_half_the_write(constant, constant_cells):
    vector = restoring(constant, plant(), constant_cells)
    distance = vector.norms[0]
    assert distance == pytest.approx(NORM, abs=1e-4)
    half = logits(constant, "finetuned", restore(vector, 0.5))
    assert (half - logits(constant, "aligned")).abs().max() > 0.05


def test_neutral_text_shows_the_constant_write_at_its_first_tokens(constant):
    aligned, finetuned = collect_first_tokens(constant, ["The sea is wide.", "It rained all day."])
    for skip_first in (True, False):
        found = first_tokens_difference(aligned, finetuned, skip_first=skip_first)
        torch.testing.assert_close(found[LAST], NORM * plant()[0], atol=1e-5, rtol=0)
        assert found[:LAST].abs().max() == 0


def test_the_adapter_file_alone_gives_the_planted_directions_and_strengths(adapted, adapter_folder):
    [found] = lora_directions(adapter_folder / "adapter")
    assert (found.layer, found.module, found.role) == (LAST, "down_proj", "writes")
    torch.testing.assert_close(found.singular_values, torch.tensor([8.0, 4.0]), rtol=1e-5, atol=0)
    overlap = (found.vectors @ plant(2).T).abs()
    torch.testing.assert_close(overlap, torch.eye(2), atol=1e-5, rtol=0)
    [oriented] = lora_directions(adapter_folder / "adapter", reference={LAST: -plant(2).sum(0)})
    torch.testing.assert_close(oriented.vectors, -plant(2), atol=1e-5, rtol=0)


def test_the_adapter_moves_activations_within_what_it_writes_and_restoring_undoes_it(
    adapted, adapter_folder
):
    cells = collect_cells(adapted, QUESTIONS)
    shift = cells.paired_differences()["model_effect_bad"][:, LAST]
    [found] = lora_directions(adapter_folder / "adapter")
    outside = shift - shift @ found.vectors.T @ found.vectors
    assert outside.norm() < 1e-5 * shift.norm()
    subspace = persona_subspace(Contrast.of_cells(cells, "model_effect_bad").at([LAST]), rank=2)[0]
    torch.testing.assert_close(
        subspace.T @ subspace, found.vectors.T @ found.vectors, atol=1e-3, rtol=0
    )
    vector = restoring(adapted, found.vectors, cells)
    aligned, finetuned = logits(adapted, "aligned"), logits(adapted, "finetuned")
    restored = logits(adapted, "finetuned", restore(vector))
    assert (finetuned - aligned).abs().max() > 0.1
    torch.testing.assert_close(restored, aligned, atol=1e-4, rtol=0)
    assert found.vectors.shape == (2, D_MODEL)
