"""Reading the residual stream: one pass, pooled inside the hook, nothing else kept.

A model here is a TransformerBridge, a plain Hugging Face causal LM or a PeftModel; each gives the
same numbers. A bridge stops after the last block that is read.

Shapes: B batch, P position, L layers asked for, D d_model.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.activations.moments import Moments
from persona.activations.positions import token_span
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import (
    Hook,
    hf_model,
    hooked,
    is_bridge,
    model_device,
    model_width,
    resid_post,
)
from persona.models.hooks import n_layers as count_layers
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
    rows = torch.empty(len(dialogues), len(layers), model_width(bridge))
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
    moments = Moments.none(len(layers), model_width(bridge))
    for _, pooled in _pooled(bridge, dialogues, layers, token_set, token_budget, description):
        moments = moments + Moments.of(pooled)
    return moments


def collect_covariance(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading covariances",
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """layer -> covariance of the residual over tokens, float64; every token weighs one.

    Memory is one matrix a layer, whatever the number of texts. Products are taken about the mean of
    the first batch: about 0, float32 loses the variance of a coordinate whose mean is far from 0.
    Raises: as `collect_rows`.
    """
    d_model, n_tokens = model_width(bridge), 0
    total = {layer: torch.zeros(d_model, dtype=torch.float64) for layer in layers}
    outer = {layer: torch.zeros(d_model, d_model, dtype=torch.float64) for layer in layers}
    centre: dict[int, Tensor] = {}

    def add_tokens(layer: int, mask_BP: Tensor) -> Hook:
        def hook(resid_BPD: Tensor) -> None:
            tokens = resid_BPD[mask_BP.to(resid_BPD.device)].float()
            tokens = tokens - centre.setdefault(layer, tokens.mean(0))
            total[layer] += tokens.sum(0).double().cpu()
            outer[layer] += (tokens.T @ tokens).double().cpu()

        return hook

    for batch, weights_BP in _weighted_batches(
        bridge, dialogues, layers, token_set, token_budget, description
    ):
        mask_BP = weights_BP > 0
        n_tokens += int(mask_BP.sum())
        run_hooked(bridge, batch.ids, {layer: add_tokens(layer, mask_BP) for layer in layers})
    covariances = {
        layer: outer[layer] / n_tokens - torch.outer(total[layer], total[layer]) / n_tokens**2
        for layer in layers
    }
    for layer, covariance in covariances.items():
        if not covariance.isfinite().all():
            raise DataError(
                f"activations at {resid_post(layer)} are not finite{advice_on_format(bridge)}"
            )
    return covariances


def _pooled(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    token_set: str,
    token_budget: int,
    description: str,
) -> Iterator[tuple[Batch, Float[Tensor, "batch layer d_model"]]]:
    for batch, weights_BP in _weighted_batches(
        bridge, dialogues, layers, token_set, token_budget, description
    ):
        pooled_BLD = run_pooled(bridge, batch.ids, weights_BP, layers)
        finite_BL = pooled_BLD.isfinite().all(-1)
        if not finite_BL.all():
            row, place = (~finite_BL).nonzero()[0].tolist()
            raise DataError(
                f"activations of dialogue {dialogues[batch.indices[row]].id!r} at "
                f"{resid_post(layers[place])} are not finite{advice_on_format(bridge)}"
            )
        yield batch, pooled_BLD


def _weighted_batches(
    bridge: Any,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    token_set: str,
    token_budget: int,
    description: str,
) -> Iterator[tuple[Batch, Float[Tensor, "batch pos"]]]:
    """Batches with the weight of each token: 1 / n on the n tokens of the set, else 0."""
    if not dialogues:
        raise DataError("there are no dialogues to read activations from")
    require_layers(bridge, layers)
    spans = [token_span(dialogue, token_set) for dialogue in dialogues]
    device = model_device(bridge)
    for batch in progress(model_batches(bridge, dialogues, token_budget), description):
        weights_BP = torch.zeros(batch.ids.shape, device=device)
        for row, i in enumerate(batch.indices):
            start, end = spans[i]
            weights_BP[row, start:end] = 1 / (end - start)
        yield batch, weights_BP


def advice_on_format(bridge: Any) -> str:
    """What to do about a number that is none: another format helps only where it is not float32."""
    if next(hf_model(bridge).parameters()).dtype == torch.float32:
        return "; the weights hold NaN, or values too large for any format"
    return "; try --dtype float32"


def require_layers(bridge: Any, layers: Sequence[int]) -> None:
    """Raise ModelError unless the model has every one of these blocks, at least one."""
    n_layers = count_layers(bridge)
    if not layers:
        raise ModelError(f"no layer was asked for: the model has blocks 0 to {n_layers - 1}")
    for layer in layers:
        if not 0 <= layer < n_layers:
            raise ModelError(
                f"layer {layer} is out of range: the model has blocks 0 to {n_layers - 1}"
            )


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
            # Of a spread model the blocks lie on several cards.
            pooled[layer] = einsum(
                resid_BPD.float(),
                weights_BP.to(resid_BPD.device),
                "batch pos d_model, batch pos -> batch d_model",
            ).to(weights_BP.device)

        return hook

    run_hooked(bridge, ids_BP, {layer: pool_into(layer) for layer in layers})
    return torch.stack([pooled[layer] for layer in layers], dim=1)


@torch.no_grad()
def run_hooked(bridge: Any, ids_BP: Tensor, hooks: Mapping[int, Hook]) -> None:
    """One forward pass with a hook at each block output given, stopped after the last of them."""
    stop = max(hooks) + 1
    with hooked(bridge, [(resid_post(layer), hook) for layer, hook in hooks.items()]):
        if not is_bridge(bridge):
            bridge(input_ids=ids_BP, use_cache=False, **_one_positions_logits(bridge))
            return
        # stop_at_layer == n_layers is no stop but means logits: then one position's logits will do.
        if stop < int(bridge.cfg.n_layers):
            bridge(ids_BP, return_type=None, stop_at_layer=stop, use_cache=False)
        else:
            bridge(ids_BP, return_type=None, logits_to_keep=1, use_cache=False)


def _one_positions_logits(model: Any) -> dict[str, int]:
    """What keeps a plain model from making the logits of every position, where it can."""
    plain = hf_model(model)
    if hasattr(plain, "get_base_model"):  # PEFT hands on whatever it is given
        plain = plain.get_base_model()
    known = inspect.signature(plain.forward).parameters
    return {"logits_to_keep": 1} if "logits_to_keep" in known else {}
