"""Readings of a plain Hugging Face model in the middle of its training: one pass for all of them.

Shapes: B batch, P position, N response tokens of a batch, V vocabulary, D d_model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import Batch, context_length, token_batches
from persona.behaviour.scoring import predicting_positions
from persona.directions.direction import Direction
from persona.errors import SpaceMismatchError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import hooked, model_device, model_width, n_layers, resid_post


@dataclass(frozen=True)
class AnswerReadings:
    """By dialogue, in the order given.

    log_prob: mean log-probability of a response token, nats.
    projection: mean over response tokens of h . unit direction, residual-stream units; NaN without
        a direction.
    kl: mean over response tokens of KL(reference || model), nats per token; NaN without one.
    """

    log_prob: list[float]
    projection: list[float]
    kl: list[float]


@torch.no_grad()
def read_answers(
    model: Any,
    dialogues: Sequence[TokenizedDialogue],
    *,
    pad_id: int,
    direction: Direction | None = None,
    reference: Sequence[Tensor] | None = None,
) -> AnswerReadings:
    """Reads every dialogue's answer as the model stands, in the mode it is in.

    reference: by dialogue, log-probabilities [response V] to take the KL from.
    """
    n = len(dialogues)
    log_prob, projection, kl = [float("nan")] * n, [float("nan")] * n, [float("nan")] * n
    for batch in token_batches(
        dialogues,
        pad_id,
        device=model_device(model),
        longest_allowed=context_length(model),
    ):
        seen: list[Tensor] = []
        reading = _recording(model, direction, seen) if direction else contextlib.nullcontext()
        with reading:
            log_probs = answer_log_probs(model, batch, dialogues)
        rows, positions = predicting_positions(batch, dialogues)
        targets = batch.ids[rows, positions + 1]
        counts = [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]
        chosen = log_probs.gather(1, targets[:, None])[:, 0]
        for i, part in zip(batch.indices, chosen.split(counts), strict=True):
            log_prob[i] = float(part.double().mean())
        if seen:
            for row, i in enumerate(batch.indices):
                start, end = dialogues[i].response
                projection[i] = float(seen[0][row, start:end].double().mean())
        if reference is not None:
            for i, part in zip(batch.indices, log_probs.split(counts), strict=True):
                kl[i] = float(kl_nats(reference[i].float(), part).double().mean())
    return AnswerReadings(log_prob, projection, kl)


@torch.no_grad()
def answer_distributions(
    model: Any, dialogues: Sequence[TokenizedDialogue], *, pad_id: int
) -> list[Tensor]:
    """By dialogue, log-probabilities [response V] at its answer, float16 on the CPU."""
    kept: list[Tensor] = [torch.empty(0)] * len(dialogues)
    for batch in token_batches(
        dialogues,
        pad_id,
        device=model_device(model),
        longest_allowed=context_length(model),
    ):
        log_probs = answer_log_probs(model, batch, dialogues)
        counts = [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]
        for i, part in zip(batch.indices, log_probs.split(counts), strict=True):
            kept[i] = part.clamp(min=-6e4).half().cpu()
    return kept


def answer_log_probs(
    model: Any, batch: Batch, dialogues: Sequence[TokenizedDialogue]
) -> Float[Tensor, "tokens vocabulary"]:
    """Log-probabilities [N V] where the batch's response tokens are predicted, float32."""
    logits_BPV = model(
        input_ids=batch.ids, attention_mask=batch.attention_mask, use_cache=False
    ).logits
    rows, positions = predicting_positions(batch, dialogues)
    return logits_BPV[rows, positions].float().log_softmax(-1)


def kl_nats(
    reference: Float[Tensor, "tokens vocabulary"], log_probs: Float[Tensor, "tokens vocabulary"]
) -> Float[Tensor, " tokens"]:
    """KL(reference || model) at every token, nats; both are log-probabilities."""
    reference = reference.to(log_probs.device)
    return (reference.exp() * (reference - log_probs)).sum(-1)


def require_fit(model: Any, direction: Direction) -> None:
    """Raises: SpaceMismatchError for a direction of another width, or a block that is not there."""
    width, depth, space = model_width(model), n_layers(model), direction.space
    if space.d_model != width or not 0 <= space.layer < depth:
        raise SpaceMismatchError(
            f"the direction to watch is at {space.hook_name} of {space.model} with d_model="
            f"{space.d_model}, but the model in training has {depth} blocks and d_model={width}. "
            "Extract a direction from this model"
        )


def _recording(model: Any, direction: Direction, seen: list[Tensor]) -> Any:
    """Appends the projections [B P] at the direction's block while open."""

    def hook(resid_BPD: Tensor) -> None:
        seen.append(resid_BPD.float() @ direction.unit.to(resid_BPD.device))

    return hooked(model, [(resid_post(direction.space.layer), hook)])
