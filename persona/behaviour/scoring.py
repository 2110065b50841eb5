"""Teacher-forced readings of many conditions over one set of dialogues.

A condition is a side of the pair and, optionally, an intervention. All conditions of one side
share a pass over the text: what lies below the first edited block is computed once.

Shapes: B batch, P position kept, N response tokens of a batch, V vocabulary.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, token_batches
from persona.behaviour.shared_prompts import (
    PackedBatch,
    packed_batches,
    share_prompts,
    understands_packed_rows,
)
from persona.errors import DataError
from persona.models.chat import TokenizedDialogue
from persona.models.hooks import model_device
from persona.models.pair import ModelPair, Side
from persona.models.prefix import recording_inputs, starting_at
from persona.progress import progress

Intervention = Callable[[Any], contextlib.AbstractContextManager[Any]]

MAX_REFERENCE_BYTES = 1_000_000_000
"""Memory for the aligned model's distributions; dialogues beyond it get no KL (NaN)."""


@dataclass(frozen=True)
class Condition:
    """One way to run the pair.

    intervene: bridge -> context manager under which the forward pass is edited; None for none. One
        that has an attribute `token_by_token` which is true treats all tokens alike, whatever
        their row and place; only then may two answers share a row.
    first_layer: lowest block whose output is edited; the blocks up to it are not run again.
    seed: index of the random draw, where the condition is one.
    """

    name: str
    side: Side
    intervene: Intervention | None = None
    first_layer: int = 0
    seed: int = 0


@dataclass(frozen=True)
class Readings:
    """Per dialogue, in the order given: NaN where a reading was not asked for.

    log_prob: mean log-probability of a response token, nats.
    kl: mean over response tokens of KL(aligned || condition), nats per token.
    """

    log_prob: NDArray[np.float64]
    kl: NDArray[np.float64]


@torch.no_grad()
def score_dialogues(
    pair: ModelPair,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[Condition],
    *,
    kl_of: Sequence[bool] | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    group: int = 1,
    description: str = "Scoring",
) -> list[Readings]:
    """Read every condition on every dialogue; one `Readings` per condition.

    kl_of: which dialogues get a KL from the aligned model (default none); costs one pass of it.
    group: so many consecutive dialogues stay in one batch. At 2, good/bad pairs whose prompts
        are the same share a row, where the model and every intervention allow it.
    Raises: DataError for a dialogue without response tokens.
    """
    for dialogue in dialogues:
        if dialogue.response[0] >= dialogue.response[1]:
            raise DataError(f"dialogue {dialogue.id!r} has no answer to score")
    wants_kl = list(kl_of) if kl_of is not None else [False] * len(dialogues)
    readings = [
        Readings(np.full(len(dialogues), np.nan), np.full(len(dialogues), np.nan))
        for _ in conditions
    ]
    reference: dict[int, Tensor] = {}
    order: tuple[Side, ...] = ("aligned", "finetuned")
    for side in order:
        mine = [(c, r) for c, r in zip(conditions, readings, strict=True) if c.side == side]
        if not mine and not (side == "aligned" and any(wants_kl)):
            continue
        with pair.active(side) as bridge:
            share = group == 2 and _can_share_rows(bridge, pair.dtype, dialogues, conditions)
            batches = _batches(pair, bridge, dialogues, token_budget, group, share)
            if side == "aligned" and any(wants_kl):
                plain = Readings(np.full(len(dialogues), np.nan), np.full(len(dialogues), np.nan))
                mine = [(Condition("reference", "aligned"), plain), *mine]
            for batch in progress(batches, f"{description} ({side})"):
                for condition, reading, log_probs in _run(bridge, batch, dialogues, mine):
                    if condition.name == "reference":
                        _keep_reference(reference, batch, dialogues, log_probs, wants_kl)
                    _read(reading, batch, dialogues, log_probs, reference, wants_kl)
    return readings


def _batches(
    pair: ModelPair,
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    token_budget: int,
    group: int,
    share: bool,
) -> Sequence[Batch | PackedBatch]:
    """One dialogue a row, `group` of them together; with `share`, two answers a row."""
    pad_id, device = pair.tokenizer.pad_token_id or 0, model_device(bridge)
    if share:
        return packed_batches(dialogues, pad_id, token_budget, device, pair.dtype)
    return token_batches(dialogues, pad_id, token_budget, device, group)


def _can_share_rows(
    bridge: Any,
    dtype: torch.dtype,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[Condition],
) -> bool:
    return (
        all(
            c.intervene is None or getattr(c.intervene, "token_by_token", False) for c in conditions
        )
        and share_prompts(dialogues)
        and understands_packed_rows(bridge, dialogues, dtype)
    )


def _run(
    bridge: Any,
    batch: Batch | PackedBatch,
    dialogues: Sequence[TokenizedDialogue],
    conditions: Sequence[tuple[Condition, Readings]],
) -> Any:
    """Yield (condition, readings, log-probabilities [N V] of the response tokens) of one batch."""
    unedited = [(c, r) for c, r in conditions if c.intervene is None]
    edited = [(c, r) for c, r in conditions if c.intervene is not None]
    # The input of block first_layer is untouched by an edit of that block's output.
    starts = {c.first_layer for c, _ in edited if c.first_layer > 0}
    with recording_inputs(bridge, starts) as inputs:
        if unedited:
            log_probs = response_log_probs(bridge, batch, dialogues)
        elif starts:
            options = batch.options if isinstance(batch, PackedBatch) else {}
            bridge(
                batch.ids, return_type=None, stop_at_layer=max(starts), use_cache=False, **options
            )
    for condition, reading in unedited:
        yield condition, reading, log_probs
    for condition, reading in edited:
        assert condition.intervene is not None
        start = condition.first_layer
        skip = starting_at(bridge, start, inputs[start]) if start else contextlib.nullcontext()
        with skip, condition.intervene(bridge):
            yield condition, reading, response_log_probs(bridge, batch, dialogues)


def response_log_probs(
    bridge: Any, batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]
) -> Tensor:
    """Log-probabilities [N V] at the positions that predict the batch's response tokens, float32.

    Dialogue after dialogue of the batch. Only those positions go through the LM head when the
    model can leave out the others.
    """
    n_positions = batch.ids.shape[1]
    rows, positions = predicting_positions(batch, dialogues)
    options: dict[str, Any] = batch.options if isinstance(batch, PackedBatch) else {}
    if _keeps_logits(bridge):
        options["logits_to_keep"] = n_positions - int(positions.min())
    logits_BPV = bridge(batch.ids, return_type="logits", use_cache=False, **options)
    offset = n_positions - logits_BPV.shape[1]
    return logits_BPV[rows, positions - offset].float().log_softmax(-1)


def _keeps_logits(bridge: Any) -> bool:
    return "logits_to_keep" in inspect.signature(bridge.original_model.forward).parameters


def predicting_positions(
    batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]
) -> tuple[Tensor, Tensor]:
    """Row and column of each position whose logits predict a response token."""
    if isinstance(batch, PackedBatch):
        return batch.rows, batch.positions
    rows, positions = [], []
    for row, i in enumerate(batch.indices):
        start, end = dialogues[i].response
        positions.append(torch.arange(start - 1, end - 1))
        rows.append(torch.full((end - start,), row))
    return torch.cat(rows), torch.cat(positions)


def response_targets(batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]) -> Tensor:
    """Token ids [N] of the responses, in the order of `response_log_probs`."""
    responses = [dialogues[i].ids[slice(*dialogues[i].response)] for i in batch.indices]
    return torch.tensor([token for ids in responses for token in ids], device=batch.ids.device)


def _token_counts(batch: Batch | PackedBatch, dialogues: Sequence[TokenizedDialogue]) -> list[int]:
    return [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]


def _keep_reference(
    reference: dict[int, Tensor],
    batch: Batch | PackedBatch,
    dialogues: Sequence[TokenizedDialogue],
    log_probs: Tensor,
    wants_kl: Sequence[bool],
) -> None:
    """Store the aligned distributions of this batch, in half precision, while there is room."""
    used = sum(kept.nbytes for kept in reference.values())
    parts = log_probs.split(_token_counts(batch, dialogues))
    for i, part in zip(batch.indices, parts, strict=True):
        if wants_kl[i] and used + part.numel() * 2 <= MAX_REFERENCE_BYTES:
            # float16 log-probabilities are good to 1 in 2,000; the clamp keeps them finite.
            reference[i] = part.clamp(min=-6e4).half()
            used += reference[i].nbytes


def _read(
    reading: Readings,
    batch: Batch | PackedBatch,
    dialogues: Sequence[TokenizedDialogue],
    log_probs: Tensor,
    reference: dict[int, Tensor],
    wants_kl: Sequence[bool],
) -> None:
    counts = _token_counts(batch, dialogues)
    chosen = log_probs.gather(1, response_targets(batch, dialogues)[:, None])[:, 0]
    for i, part in zip(batch.indices, chosen.split(counts), strict=True):
        reading.log_prob[i] = float(part.double().mean())
    for i, part in zip(batch.indices, log_probs.split(counts), strict=True):
        if wants_kl[i] and i in reference:
            aligned = reference[i].float()
            reading.kl[i] = float((aligned.exp() * (aligned - part)).sum(-1).double().mean())
