"""Placebos: directions made by the same steps from what holds no bad persona.

A direction that is fitted to the difference of two models gives much of that difference back,
whatever the difference is. What the persona's direction does beyond that is what it does beyond
these: each is restored to the aligned model's mean at the same blocks, with the same coefficient
and the same whitened reading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations import collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair, Dialogue
from persona.directions import PersonaVector
from persona.directions.direction import orthonormal
from persona.errors import DataError
from persona.models.pair import ModelPair, Side
from persona.rows import NEUTRAL_TEXT
from persona.stages import Stages, Unsaved
from steering.identification.candidates import Means, from_bases
from steering.identification.identify import Identification
from steering.identification.refit import refit_block_by_block

logger = logging.getLogger("persona")

ANSWER_EFFECT, HALVES, TWIN = "answer_effect", "halves", "good_twin"
OTHER_FINE_TUNE = "other_fine_tune"


def placebos_of(
    pair: ModelPair,
    found: Identification,
    neutral: Sequence[Dialogue],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> dict[str, PersonaVector]:
    """The placebos that need no other fine-tune, by name.

    answer_effect: bad minus good answers in the aligned model, which needs no fine-tune at all.
    neutral_text: the model effect refitted on `neutral`, texts without a bad or good answer.
    halves: the difference between two halves of the aligned model's good answers, which is noise.
    One that cannot be made, since the two models read neutral text alike, is left out.
    """
    stages, like = stages or Unsaved(), found.vector
    good = found.cells.aligned_good.double()
    halves = (good[0::2].mean(0) - good[1::2].mean(0)).float()
    answers = found.effects["answer_effect_aligned"].vectors
    placebos = {
        ANSWER_EFFECT: _placebo(pair, ANSWER_EFFECT, _unit_rows(answers, like), found.means, like),
        HALVES: _placebo(pair, HALVES, _unit_rows(halves, like), found.means, like),
    }
    means = stages.tensors(
        "placebo-neutral-means",
        lambda: {"aligned": _mean_rows(pair, "aligned", neutral, token_budget)},
    )
    on_neutral = Means(means["aligned"], found.means.finetuned, found.means.covariance)
    try:
        refitted = stages.by_layer(
            "placebo-neutral",
            lambda: refit_block_by_block(
                pair,
                neutral,
                like.layers,
                on_neutral.aligned,
                on_neutral.covariance,
                _beside(found),
                token_budget,
            ),
        )
    except DataError as alike:
        logger.info("no placebo is made of neutral text: %s", alike)
        return placebos
    return placebos | {NEUTRAL_TEXT: _placebo(pair, NEUTRAL_TEXT, refitted, on_neutral, like)}


def placebo_of_fine_tune(
    pair: ModelPair,
    other: Callable[[], ModelPair],
    name: str,
    found: Identification,
    questions: Sequence[AnswerPair],
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> PersonaVector:
    """The model effect of another fine-tune of the same model, as that of `found` was made.

    other: loads the aligned model with the good twin, or with a fine-tune on something else; not
        called where the stage is kept. Its means are the aligned model's, and the other's over the
        same good answers.
    Raises: DataError where that fine-tune moves the answers at none of the blocks.
    """
    texts = [question.good_dialogue for question in questions]

    def made() -> dict[str, Tensor]:
        loaded = other()
        rows = refit_block_by_block(
            loaded,
            texts,
            found.vector.layers,
            found.means.aligned,
            found.means.covariance,
            _beside(found),
            token_budget,
        )
        means = _mean_rows(loaded, "finetuned", texts, token_budget)
        return {"mean": means, **{str(layer): basis for layer, basis in rows.items()}}

    kept = (stages or Unsaved()).tensors(f"placebo-{name}", made)
    means = Means(found.means.aligned, kept["mean"], found.means.covariance)
    rows = {layer: kept[str(layer)] for layer in found.vector.layers}
    return _placebo(pair, name, rows, means, found.vector)


def _placebo(
    pair: ModelPair,
    name: str,
    rows: Mapping[int, Float[Tensor, "rank d_model"]],
    means: Means,
    like: PersonaVector,
) -> PersonaVector:
    return from_bases(pair, rows, means, f"placebo_{name}", like.coefficient, read_whitened=True)


def _beside(found: Identification) -> Mapping[int, Tensor] | None:
    """What is restored along with a model effect, where the chosen subspace has room for it."""
    if found.vector.rank == 1:
        return None
    return dict(enumerate(found.effects["answer_effect_aligned"].vectors))


def _unit_rows(
    vectors: Float[Tensor, "layer d_model"], like: PersonaVector
) -> dict[int, Float[Tensor, "1 d_model"]]:
    return {layer: orthonormal(vectors[layer][None]) for layer in like.layers}


@torch.no_grad()
def _mean_rows(
    pair: ModelPair, side: Side, texts: Sequence[Dialogue], token_budget: int
) -> Float[Tensor, "layer d_model"]:
    """Mean residual of the answers at the output of each block, each text weighing one."""
    with pair.active(side) as model:
        rows = collect_rows(
            model,
            pair.chat.encode_all(texts),
            range(pair.n_layers),
            token_budget=token_budget,
            description=f"Reading means for placebos ({side})",
        )
    return rows.double().mean(0).float()
