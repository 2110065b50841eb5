"""Directions fitted block by block, each to what is left once the blocks below are restored.

The model effect at a block is mostly what the blocks below have written. Directions that were all
read from the unedited model therefore correct one difference many times over, and miss what a
block adds when its input is restored already. Here the direction of a block is the mean difference
from the aligned model that remains there while every edited block below is restored:

    d_l = mean h'_l - mean h_l,    h' the fine-tuned model under the edits below l, h the aligned,

over the answer tokens of some texts, such as good answers, each text weighing one. Restoring along
d_l makes the two means equal at block l before block l + 1 is looked at. All texts pass through one
block, a batch after the other, before any passes through the next: that is one forward pass in all,
and what is held between two blocks is one residual stream of each text.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.activations.passes import run_hooked, span_means
from persona.activations.positions import token_span
from persona.data.types import Dialogue
from persona.directions.direction import orthonormal
from persona.directions.sparing import sparing_readout
from persona.errors import DataError
from persona.models.hooks import resid_post
from persona.models.pair import ModelPair
from persona.models.prefix import starting_at
from steering.edits.interventions import restore

ROUNDING = 1e-5
"""Mean differences below this share of the mean itself are float32 rounding."""


@torch.no_grad()
def refit_block_by_block(
    pair: ModelPair,
    texts: Sequence[Dialogue],
    layers: Sequence[int],
    aligned_means: Float[Tensor, "layer d_model"],
    covariance: Mapping[int, Float[Tensor, "d_model d_model"]],
    beside: Mapping[int, Float[Tensor, " d_model"]] | None = None,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    spared: Mapping[int, Float[Tensor, "_ d_model"]] | None = None,
) -> dict[int, Float[Tensor, "rank d_model"]]:
    """layer -> orthonormal rows: what remains of the model effect, then `beside` outside of it.

    aligned_means: the aligned model's mean residual over the answers of the same texts.
    covariance: reads the coordinates while fitting, see `whitened_readout`; the vector made of the
    rows must be read the same way.
    beside: a second direction at each block that is restored along with the first.
    spared: rows to which the reading is blind, see `persona.directions.sparing`.
    Raises: DataError when nothing separates the models at one of the blocks.
    """
    dialogues = pair.chat.encode_all(texts)
    rows: dict[int, Tensor] = {}
    with pair.active("finetuned") as bridge:
        batches = model_batches(bridge, dialogues, token_budget)
        spans = [[token_span(dialogue)] for dialogue in dialogues]
        pools = [span_means(batch, spans) for batch in batches]
        first = min(layers)
        streams = [_through(bridge, batch, first - 1) for batch in batches] if first else []
        for layer in range(first, max(layers) + 1):
            # Below the first block there is nothing to start from but the tokens.
            streams = [
                _through(bridge, batch, layer, streams[place] if layer else None)
                for place, batch in enumerate(batches)
            ]
            if layer not in layers:
                continue
            device = streams[0].device
            aligned_D = aligned_means[layer].to(device)
            means = [pool(resid) for pool, resid in zip(pools, streams, strict=True)]
            left_D = torch.cat(means)[:, 0].mean(0).to(device) - aligned_D
            if left_D.norm() <= ROUNDING * aligned_D.norm():
                raise DataError(f"the two models do not differ at {resid_post(layer)}")
            second = [] if beside is None else [beside[layer].to(device)]
            basis = orthonormal(torch.stack([left_D, *second]))
            rows[layer] = basis.cpu()
            blind_to = (spared or {}).get(layer)
            readout = sparing_readout(basis, blind_to, covariance[layer].to(device))
            streams = [_restored(resid, basis, readout, aligned_D) for resid in streams]
    return rows


def _through(bridge: Any, batch: Batch, layer: int, resid: Tensor | None = None) -> Tensor:
    """Output [B P D] of a block, whose input is `resid`; None runs all blocks up to it."""
    kept: list[Tensor] = []
    skip = contextlib.nullcontext() if resid is None else starting_at(bridge, layer, resid)
    with skip:
        run_hooked(bridge, batch, {layer: kept.append})
    return kept[0]


def _restored(resid_BPD: Tensor, basis: Tensor, readout: Tensor, aligned_D: Tensor) -> Tensor:
    edited = restore(resid_BPD, basis, readout @ aligned_D, 1.0, readout)
    # Edits leave the first token alone.
    return torch.cat([resid_BPD[:, :1], edited[:, 1:]], dim=1)
