"""Directions fitted block by block, each to what is left once the blocks below are restored.

The model effect at a block is mostly what the blocks below have written. Directions that were all
read from the unedited model therefore correct one difference many times over, and miss what a
block adds when its input is restored already. Here the direction of a block is the mean difference
from the aligned model that remains there while every edited block below is restored:

    d_l = mean h'_l - mean h_l,    h' the fine-tuned model under the edits below l, h the aligned,

over the answer tokens of good answers, each answer weighing one. Restoring along d_l makes the two
means equal at block l before block l + 1 is looked at. One forward pass fits all blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import token_batches
from persona.activations.positions import token_span
from persona.data.types import AnswerPair
from persona.directions.direction import orthonormal, whitened_readout
from persona.errors import DataError
from persona.models.hooks import Hook, hooked, model_device, resid_post
from persona.models.pair import ModelPair
from steering.interventions import restore

ROUNDING = 1e-5
"""Mean differences below this share of the mean itself are float32 rounding."""


def refit_block_by_block(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    layers: Sequence[int],
    aligned_means: Float[Tensor, "layer d_model"],
    covariance: Mapping[int, Float[Tensor, "d_model d_model"]],
    beside: Mapping[int, Float[Tensor, " d_model"]] | None = None,
) -> dict[int, Float[Tensor, "rank d_model"]]:
    """layer -> orthonormal rows: what remains of the model effect, then `beside` outside of it.

    aligned_means: the aligned model's mean residual over the good answers of the same questions.
    covariance: reads the coordinates while fitting, see `whitened_readout`; the vector made of the
    rows must be read the same way.
    beside: a second direction at each block that is restored along with the first.
    All answers go through in one batch, since a block is fitted to all of them at once.
    Raises: DataError when nothing separates the models at one of the blocks.
    """
    dialogues = pair.chat.encode_all([q.good_dialogue for q in questions])
    rows: dict[int, Tensor] = {}
    with pair.active("finetuned") as bridge, torch.no_grad():
        device = model_device(bridge)
        everything = len(dialogues) * max(len(d) for d in dialogues)
        (batch,) = token_batches(dialogues, pair.tokenizer.pad_token_id or 0, everything, device)
        weights_BP = torch.zeros(batch.ids.shape, device=device)
        for row, i in enumerate(batch.indices):
            start, end = token_span(dialogues[i], "response")
            weights_BP[row, start:end] = 1 / (end - start) / len(dialogues)

        def fit(layer: int) -> Hook:
            aligned_D = aligned_means[layer].to(device)

            def hook(resid_BPD: Tensor) -> Tensor:
                at = "batch pos d_model, batch pos -> d_model"
                left_D = einsum(resid_BPD.float(), weights_BP, at) - aligned_D
                if left_D.norm() <= ROUNDING * aligned_D.norm():
                    raise DataError(f"the two models do not differ at {resid_post(layer)}")
                second = [] if beside is None else [beside[layer].to(device)]
                basis = orthonormal(torch.stack([left_D, *second]))
                rows[layer] = basis.cpu()
                readout = whitened_readout(basis, covariance[layer].to(device))
                edited = restore(resid_BPD, basis, readout @ aligned_D, 1.0, readout)
                # Edits leave the first token alone.
                return torch.cat([resid_BPD[:, :1], edited[:, 1:]], dim=1)

            return hook

        with hooked(bridge, [(resid_post(layer), fit(layer)) for layer in sorted(layers)]):
            bridge(batch.ids, return_type=None, stop_at_layer=max(layers) + 1, use_cache=False)
    return rows
