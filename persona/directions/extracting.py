"""A direction in one call: two models and some answers in, one vector of one block out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.directions.cells import collect_cells, collect_cells_named
from persona.directions.contrast import Contrast
from persona.directions.direction import Direction
from persona.directions.methods import METHODS, Method
from persona.directions.two_by_two import EFFECT_CELLS, EFFECTS
from persona.errors import DataError
from persona.models.pair import ModelPair


def extract(
    pair: ModelPair,
    pairs: Sequence[AnswerPair],
    *,
    layer: int,
    method: str | Method = "difference_of_means",
    effect: str = "model_effect_good",
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Direction:
    """The direction of a fine-tune at the output of one block, read from answers to questions.

    By default the mean of the fine-tuned minus that of the aligned model over the tokens of good
    answers: what the fine-tune changed, whatever the text. It points toward fine-tuned; adding it
    once moves the aligned model as far as the fine-tune did at that block.

    pair: of `load_pair` or `pair_of`, wrapped or plain models alike.
    pairs: of `load_pairs` or `read_pairs`; each answer weighs one. Keep those out on which the
        direction is tested.
    layer: 0-based block, whose output is read.
    method: a name in `persona.directions.methods.METHODS`, or a method. The norm is how far apart
        the means of the two classes of answers lie along it.
    effect: one of `persona.directions.two_by_two.EFFECTS`: which answers of which model are told
        apart, "answer_effect_finetuned" for bad from good ones in the fine-tuned model. Toward
        bad or fine-tuned.
    token_set: which tokens are read; see `persona.activations.token_span`.
    For all blocks, all effects and how reliable they are: `collect_cells` and `two_by_two`.
    Raises: DataError for no pairs, an unknown method or effect, two models that read the answers
        alike, or as the method does; ModelError for a layer that the models lack.

    Source: Chen et al. 2025 ("Persona Vectors"), difference of means over answers; the effects are
    those of `persona.directions.two_by_two`.

    Examples:
        >>> from persona import extract, load_pair, load_pairs
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> direction = extract(pair, load_pairs(["health"], "train")[:4], layer=2)
        >>> direction.space.hook_name, direction.method
        ('blocks.2.hook_resid_post', 'model_effect_good')
    """
    space = pair.space(layer)
    if isinstance(pairs, str | Path):
        raise DataError(f"answer pairs are asked for, not a path: read_pairs({str(pairs)!r})")
    if not pairs:
        raise DataError("there are no answer pairs to read a direction from")
    if effect not in EFFECTS:
        raise DataError(f"unknown effect {effect!r}; one of {', '.join(EFFECTS)}")
    if isinstance(method, str) and method not in METHODS:
        raise DataError(f"unknown method {method!r}; one of {', '.join(METHODS)}")
    ids = [q.id for q in pairs]
    if effect == "interaction":
        cells = collect_cells(
            pair, pairs, layers=[layer], token_set=token_set, token_budget=token_budget
        )
        contrast = Contrast.of_cells(cells, effect, questions=ids)
    else:
        names = EFFECT_CELLS[effect]
        read = collect_cells_named(
            pair, pairs, names, [layer], token_set=token_set, token_budget=token_budget
        )
        positive, negative = (read[name] for name in names)
        if effect.startswith("model_effect") and torch.equal(positive, negative):
            raise DataError(
                f"{pair.names['finetuned']} and {pair.names['aligned']} read these answers alike "
                f"at block {layer}: the fine-tune changed nothing there"
            )
        contrast = Contrast(positive, negative, tuple(ids), tuple(ids))
    found = METHODS[method] if isinstance(method, str) else method
    name = method if isinstance(method, str) else getattr(method, "__name__", "a method")
    label = effect if name == "difference_of_means" else f"{effect}, {name}"
    return Direction(_at_length(found(contrast, rank=1)[0, 0], contrast), space, label)


def _at_length(unit: Float[Tensor, " d_model"], contrast: Contrast) -> Float[Tensor, " d_model"]:
    """The step along a unit vector from the mean of the negative answers to the positive one's."""
    apart = contrast.positive.double().mean(0)[0] - contrast.negative.double().mean(0)[0]
    wide = unit.double()
    return (einsum(apart, wide, "d_model, d_model ->") * wide).float()
