"""Dialogues read in vLLM as they are read in this process: pooled activations, and scores.

The same token sets, the same means and moments, within rounding: in float32 1e-5 of the size of an
activation, and 1e-4 nats of a log-probability.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.moments import Moments
from persona.activations.positions import token_span
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import resid_post
from persona.models.pair import Side
from persona.vllm.edit_sets import EditSet
from persona.vllm.vllm_engine import VllmEngine

AT_ONCE = 512
"""Dialogues that are asked for together; their means are all that is held."""


def rows_by_vllm(
    engine: VllmEngine,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    side: Side = "aligned",
    edits: EditSet | None = None,
) -> Float[Tensor, "dialogue layer d_model"]:
    """As `persona.activations.collect_rows`: means over each dialogue's tokens, in the worker.

    Raises: DataError for no dialogues, or what is not finite; EngineError for a block the model
        does not have, and as `VllmEngine.read`.
    """
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    hooks = [resid_post(layer) for layer in layers]
    rows = torch.empty(len(dialogues), len(hooks), engine.d_model)
    for start in range(0, len(dialogues), AT_ONCE):
        part = dialogues[start : start + AT_ONCE]
        found = engine.read(
            [dialogue.ids for dialogue in part],
            hooks,
            [[token_span(dialogue, token_set)] for dialogue in part],
            side=side,
            edits=edits,
            answer_begins=[dialogue.response[0] for dialogue in part],
        )
        for i, by_hook in enumerate(found, start):
            rows[i] = torch.stack([by_hook[hook][0] for hook in hooks])
    return rows


def sets_by_vllm(
    engine: VllmEngine,
    dialogues: Sequence[TokenizedDialogue],
    token_sets: Sequence[str],
    layers: Sequence[int],
    *,
    side: Side = "aligned",
    description: str = "Reading activations",
) -> Float[Tensor, "dialogue set layer d_model"]:
    """As `persona.activations.collect_sets`: several token sets at the cost of one pass.

    Raises: as `rows_by_vllm`.
    """
    hooks = [resid_post(layer) for layer in layers]
    rows = torch.empty(len(dialogues), len(token_sets), len(hooks), engine.d_model)
    for start in range(0, len(dialogues), AT_ONCE):
        part = dialogues[start : start + AT_ONCE]
        found = engine.read(
            [dialogue.ids for dialogue in part],
            hooks,
            [[token_span(dialogue, one) for one in token_sets] for dialogue in part],
            side=side,
            answer_begins=[dialogue.response[0] for dialogue in part],
            description=description,
        )
        for i, by_hook in enumerate(found, start):
            rows[i] = torch.stack([by_hook[hook] for hook in hooks], dim=1)
    return rows


def moments_by_vllm(
    engine: VllmEngine,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    side: Side = "aligned",
    edits: EditSet | None = None,
) -> Moments:
    """As `persona.activations.collect_moments`; memory does not grow with the texts."""
    moments = Moments.none(len(layers), engine.d_model)
    for start in range(0, len(dialogues), AT_ONCE):
        part = dialogues[start : start + AT_ONCE]
        moments = moments + Moments.of(
            rows_by_vllm(engine, part, layers, token_set=token_set, side=side, edits=edits)
        )
    return moments


def answer_scores_by_vllm(
    engine: VllmEngine,
    dialogues: Sequence[TokenizedDialogue],
    *,
    side: Side = "aligned",
    edits: EditSet | None = None,
    description: str = "Scoring",
) -> Float[Tensor, " dialogue"]:
    """As `Readings.log_prob`: mean log-probability of each dialogue's response tokens, nats.

    Raises: DataError for a dialogue without response tokens; as `VllmEngine.log_probs`.
    """
    for dialogue in dialogues:
        if dialogue.response[0] >= dialogue.response[1]:
            raise DataError(f"dialogue {dialogue.id!r} has no answer to score")
    found = engine.log_probs(
        [dialogue.ids for dialogue in dialogues],
        side=side,
        edits=edits,
        answer_begins=[dialogue.response[0] for dialogue in dialogues],
        description=description,
    )
    means = [
        of[dialogue.response[0] - 1 : dialogue.response[1] - 1].mean()
        for of, dialogue in zip(found, dialogues, strict=True)
    ]
    return torch.stack(means) if means else torch.empty(0)
