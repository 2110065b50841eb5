"""The exact sweep over the first tokens of each answer: prompts and lower blocks computed once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from continuations import Continuations, continuations, lay_foundation, log_probs_from
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.passes import chosen, kl_nats
from persona.data.types import AnswerPair
from persona.directions.direction import PersonaVector
from persona.models.chat.chat_format import shortened
from persona.models.hooks import model_device
from persona.models.pair import ModelPair
from persona.progress import progress
from steering.edits.from_directions import restore
from steering.identification.attribution import Objective, texts_for

Cell = tuple[str, int]


def answer_effects(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    alone: Sequence[PersonaVector],
    objective: Objective,
    answer_tokens: int,
    token_budget: int,
) -> NDArray[np.float64]:
    """[question cell]: change of the objective when each one-block vector is restored alone.

    Only the tokens that predict the first `answer_tokens` of each answer are restored and read.
    """
    texts = [
        shortened(dialogue, answer_tokens)
        for dialogue in pair.chat.encode_all(texts_for(questions, objective))
    ]
    per_question = len(texts) // len(questions)
    with pair.active("finetuned") as bridge:
        device = model_device(bridge)
    batches = continuations(texts, pair.tokenizer.pad_token_id or 0, token_budget, device)
    aligned: list[Tensor | None] = [None] * len(batches)
    if objective == "kl":
        with pair.active("aligned") as bridge:
            aligned = [lay_foundation(bridge, batch, []).log_probs for batch in batches]
    # [text, plain and cells]
    readings = np.empty((len(texts), 1 + len(alone)))
    edits = [restore(vector, 1.0)[0] for vector in alone]
    layers = [edit.layer for edit in edits]
    with pair.active("finetuned") as bridge:
        for batch, reference in zip(
            progress(batches, "Measuring every candidate"), aligned, strict=True
        ):
            ground = lay_foundation(bridge, batch, layers)
            rows = list(batch.indices)
            readings[rows, 0] = _read(ground.log_probs, batch, reference)
            for place, edit in enumerate(edits, start=1):
                with torch.no_grad():
                    resid = edit.apply(ground.resid[edit.layer])
                found = log_probs_from(bridge, batch, ground, edit.layer, resid)
                readings[rows, place] = _read(found, batch, reference)
    changes = (readings[:, 1:] - readings[:, :1]).reshape(len(questions), per_question, -1)
    # Texts of a question are good, then bad: the gap is bad minus good.
    return changes[:, 1] - changes[:, 0] if objective == "gap" else changes[:, 0]


def _read(log_probs: Tensor, batch: Continuations, reference: Tensor | None) -> NDArray[np.float64]:
    """Mean by text: log-probability of the answer's tokens, or KL from the reference."""
    if reference is None:
        values = chosen(log_probs, batch.targets)
    else:
        values = kl_nats(reference, log_probs)
    total = torch.where(batch.scored, values.double(), 0.0).sum(-1)
    return (total / batch.scored.sum(-1)).cpu().numpy()
