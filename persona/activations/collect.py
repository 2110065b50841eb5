"""Reading the residual stream: one pass, pooled inside the hook, nothing else kept.

Shapes: B batch, P position, L layers asked for, D d_model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, token_batches
from persona.activations.moments import Moments
from persona.activations.positions import token_span
from persona.errors import DataError, ModelError
from persona.models.chat import TokenizedDialogue
from persona.models.hooks import Hook, hooked, model_device, resid_post
from persona.progress import progress


def collect_rows(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Float[Tensor, "dialogue layer d_model"]:
    """Mean activation of each dialogue's tokens at the output of each block, float32 on the CPU.

    Every dialogue weighs one, whatever its length. Rows follow the order of `dialogues`, layers
    the order of `layers`.
    Raises: DataError for no dialogues or activations that are not finite; ModelError for a layer
    out of range.
    """
    rows = torch.empty(len(dialogues), len(layers), bridge.cfg.d_model)
    for batch, pooled in _pooled(bridge, dialogues, layers, token_set, token_budget, description):
        rows[list(batch.indices)] = pooled.cpu()
    return rows


def collect_moments(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading activations",
) -> Moments:
    """The same pooled activations as `collect_rows`, kept as mergeable float64 sums only."""
    shape = (len(layers), bridge.cfg.d_model)
    moments = Moments(0, torch.zeros(shape).double(), torch.zeros(shape).double())
    for _, pooled in _pooled(bridge, dialogues, layers, token_set, token_budget, description):
        moments = moments + Moments.of(pooled)
    return moments


def _pooled(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    token_set: str,
    token_budget: int,
    description: str,
) -> Iterator[tuple[Batch, Float[Tensor, "batch layer d_model"]]]:
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    n_layers = int(bridge.cfg.n_layers)
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ModelError(
                f"layer {layer} is out of range: the model has blocks 0 to {n_layers - 1}"
            )
    spans = [token_span(dialogue, token_set) for dialogue in dialogues]
    device = model_device(bridge)
    pad_id = bridge.tokenizer.pad_token_id or 0
    batches = token_batches(dialogues, pad_id, token_budget, device)
    for batch in progress(batches, description):
        weights_BP = torch.zeros(batch.ids.shape, device=device)
        for row, i in enumerate(batch.indices):
            start, end = spans[i]
            weights_BP[row, start:end] = 1 / (end - start)
        pooled_BLD = run_pooled(bridge, batch.ids, weights_BP, layers)
        finite_BL = pooled_BLD.isfinite().all(-1)
        if not finite_BL.all():
            row, place = (~finite_BL).nonzero()[0].tolist()
            raise DataError(
                f"activations of dialogue {dialogues[batch.indices[row]].id!r} at "
                f"{resid_post(layers[place])} are not finite; try --dtype float32"
            )
        yield batch, pooled_BLD


@torch.no_grad()
def run_pooled(
    bridge: Any,
    ids_BP: Tensor,
    weights_BP: Float[Tensor, "batch pos"],
    layers: Sequence[int],
) -> Float[Tensor, "batch layer d_model"]:
    """Weighted sum over positions at each block output, float32; stops after the last block needed.

    Right padding needs no attention mask under causal attention, and gets weight 0 here.
    """
    pooled: dict[int, Tensor] = {}

    def pool_into(layer: int) -> Hook:
        def hook(resid_BPD: Tensor) -> None:
            pooled[layer] = einsum(
                resid_BPD.float(), weights_BP, "batch pos d_model, batch pos -> batch d_model"
            )

        return hook

    stop = max(layers) + 1
    n_layers = int(bridge.cfg.n_layers)
    with hooked(bridge, [(resid_post(layer), pool_into(layer)) for layer in set(layers)]):
        # stop_at_layer == n_layers is no stop but means logits: then one position's logits will do.
        if stop < n_layers:
            bridge(ids_BP, return_type=None, stop_at_layer=stop, use_cache=False)
        else:
            bridge(ids_BP, return_type=None, logits_to_keep=1, use_cache=False)
    return torch.stack([pooled[layer] for layer in layers], dim=1)
