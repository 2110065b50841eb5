"""Reading single tokens: the residual at given positions, not pooled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, model_batches
from persona.activations.collect import advice_on_format, require_layers, run_hooked
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import (
    Hook,
    model_device,
    model_width,
    n_layers,
    resid_post,
)
from persona.progress import progress


def collect_at(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    positions: Sequence[Sequence[int]],
    layers: Sequence[int] | None = None,
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading tokens",
) -> Float[Tensor, "dialogue position layer d_model"]:
    """Residual at the output of each block at so many positions of each dialogue, float32.

    positions: for each dialogue as many token indices, counted from 0. layers: default all.
    Raises: DataError for no dialogues, a position outside its dialogue, unequal numbers of
    positions, or activations that are not finite; ModelError for a layer out of range.
    """
    wanted = list(range(n_layers(bridge))) if layers is None else list(layers)
    require_layers(bridge, wanted)
    if not dialogues:
        raise DataError("there are no texts to read activations from")
    counts = {len(places) for places in positions}
    if len(positions) != len(dialogues) or len(counts) != 1 or counts == {0}:
        raise DataError(
            f"each text needs the same number of positions, at least one; got {len(positions)} "
            f"lists of length {sorted(counts)} for {len(dialogues)} texts"
        )
    for dialogue, places in zip(dialogues, positions, strict=True):
        if min(places) < 0 or max(places) >= len(dialogue):
            raise DataError(
                f"text {dialogue.id!r} has {len(dialogue)} tokens; positions {list(places)} are "
                "not all in it"
            )
    (n_positions,) = counts
    rows = torch.empty(len(dialogues), n_positions, len(wanted), model_width(bridge))
    device = model_device(bridge)

    def read(place: int, indices: Sequence[int], at_BK: Tensor) -> Hook:
        def hook(resid_BPD: Tensor) -> None:
            batch_B1 = torch.arange(len(at_BK), device=resid_BPD.device)[:, None]
            at_tokens = resid_BPD[batch_B1, at_BK.to(resid_BPD.device)]
            rows[list(indices), :, place] = at_tokens.float().cpu()

        return hook

    for batch in progress(model_batches(bridge, dialogues, token_budget), description):
        at_BK = torch.tensor([list(positions[i]) for i in batch.indices], device=device)
        hooks = {layer: read(place, batch.indices, at_BK) for place, layer in enumerate(wanted)}
        run_hooked(bridge, batch.ids, hooks)
    finite = rows.isfinite().all(-1)
    if not finite.all():
        row, _, place = (~finite).nonzero()[0].tolist()
        raise DataError(
            f"activations of text {dialogues[row].id!r} at {resid_post(wanted[place])} are not "
            f"finite{advice_on_format(bridge)}"
        )
    return rows
