"""Reading every token of a set, not pooled: texts of different lengths stay ragged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, model_batches
from persona.activations.collect import require_layers, run_hooked
from persona.activations.positions import token_span
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import Hook, model_width, resid_post
from persona.progress import progress


def collect_tokens(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading tokens",
) -> list[Float[Tensor, "tokens layer d_model"]]:
    """Residual of each token of the set at the output of each block, float32 on the CPU.

    One tensor a dialogue, in their order; 4 bytes a token, layer and coordinate are kept.
    Raises: as `collect_rows`.
    """
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    require_layers(bridge, layers)
    spans = [token_span(dialogue, token_set) for dialogue in dialogues]
    d_model = model_width(bridge)
    rows = [torch.empty(end - start, len(layers), d_model) for start, end in spans]

    def read(place: int, indices: Sequence[int]) -> Hook:
        def hook(resid_BPD: Tensor) -> None:
            for resid_PD, i in zip(resid_BPD, indices, strict=True):
                start, end = spans[i]
                rows[i][:, place] = resid_PD[start:end].float().cpu()

        return hook

    batches = model_batches(bridge, dialogues, token_budget)
    for batch in progress(batches, description):
        hooks = {layer: read(place, batch.indices) for place, layer in enumerate(layers)}
        run_hooked(bridge, batch.ids, hooks)
    for dialogue, tokens in zip(dialogues, rows, strict=True):
        finite = tokens.isfinite().all(-1).all(0)
        if not finite.all():
            layer = layers[int((~finite).nonzero()[0])]
            raise DataError(
                f"activations of dialogue {dialogue.id!r} at {resid_post(layer)} are not finite; "
                "try --dtype float32"
            )
    return rows
