"""Several token sets of the same texts in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, model_batches
from persona.activations.collect import require_layers, run_hooked
from persona.activations.positions import token_span
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import Hook, model_width, resid_post


def collect_sets(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    token_sets: Sequence[str],
    layers: Sequence[int],
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> Float[Tensor, "dialogue set layer d_model"]:
    """Mean activation of each token set at the output of each block, float32 on the CPU.

    What `collect_rows` gives for each of `token_sets`, at the cost of one of them. The same
    dialogues give the same bits, as they fall into the same batches.
    Raises: as `collect_rows`.
    """
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    require_layers(bridge, layers)
    spans = [[token_span(dialogue, one) for one in token_sets] for dialogue in dialogues]
    rows = torch.empty(len(dialogues), len(token_sets), len(layers), model_width(bridge))
    for batch in model_batches(bridge, dialogues, token_budget):
        weights_BSP = torch.zeros(len(batch.ids), len(token_sets), batch.ids.shape[1])
        for row, i in enumerate(batch.indices):
            for place, (start, end) in enumerate(spans[i]):
                weights_BSP[row, place, start:end] = 1 / (end - start)
        hooks = {
            layer: _pool_into(rows, list(batch.indices), place, weights_BSP)
            for place, layer in enumerate(layers)
        }
        run_hooked(bridge, batch.ids, hooks)
    finite = rows.isfinite().all(-1).all(1)
    if not finite.all():
        row, place = (~finite).nonzero()[0].tolist()
        raise DataError(
            f"activations of dialogue {dialogues[row].id!r} at {resid_post(layers[place])} are "
            "not finite; try --dtype float32"
        )
    return rows


def _pool_into(
    rows: Tensor, indices: list[int], place: int, weights_BSP: Float[Tensor, "batch set pos"]
) -> Hook:
    def hook(resid_BPD: Tensor) -> None:
        rows[indices, :, place] = einsum(
            resid_BPD.float(),
            weights_BSP.to(resid_BPD.device),
            "batch pos d_model, batch set pos -> batch set d_model",
        ).cpu()

    return hook
