"""The Jacobian lens: what a direction at a block does, on average, to the end of the residual
stream, and through it to the logits.

    J_l = mean over texts and source positions t of  sum over t' >= t of  d h_final[t'] / d h_l[t]

A row at block l is carried to J_l row, and read there by the logit lens. Early blocks speak another
basis than the unembedding; J_l translates, to first order.

Shapes: K cotangents in one backward pass, P position, D d_model.

Source: Gurnee et al. 2026 ("Verbalizable Representations Form a Global Workspace in Language
Models"), whose estimator it is; differs: fitted on short texts in the model's chat format, and the
row is not normalised after it was carried, so that the lens is linear.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import (
    Hook,
    accepted_by,
    hooked,
    is_bridge,
    model_device,
    model_width,
    n_layers,
    resid_post,
)
from persona.models.kept_folder import cache_folder
from persona.models.pair import ModelPair
from persona.progress import progress
from persona.readouts.lens import LogitLens
from persona.stages import StageCache

SKIPPED = 4
"""First positions that are neither source nor target: they draw attention, and little else."""
MOST_TOKENS = 48
N_TEXTS = 12
COTANGENTS = 16
"""Rows of J in one backward pass."""


@dataclass(frozen=True)
class JacobianLens:
    """Reads a row after carrying it to the end of the residual stream.

    transports: layer -> J [D D].
    """

    transports: Mapping[int, Float[Tensor, "d_model d_model"]]
    logit_lens: LogitLens
    name: str = "Jacobian lens"

    def logits(
        self, rows: Float[Tensor, "row d_model"], layer: int
    ) -> Float[Tensor, "row vocabulary"]:
        """Raises: DataError for a block that it was not fitted at."""
        if layer not in self.transports:
            raise DataError(
                f"the Jacobian lens was not fitted at block {layer}; it has blocks "
                f"{', '.join(map(str, sorted(self.transports)))}"
            )
        return self.logit_lens.logits(rows.float() @ self.transports[layer].T, layer)


def fit_jacobian_lens(
    pair: ModelPair,
    dialogues: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    *,
    most_tokens: int = MOST_TOKENS,
) -> JacobianLens:
    """The lens of the aligned model, fitted on neutral text.

    What each text gives is kept in the cache folder, so that a fit goes on where it was stopped,
    and the next reading of a fine-tune of the same model begins with it. A text costs
    d_model / 16 backward passes over 16 copies of it.
    most_tokens: of a text; what is longer is cut.
    Raises: DataError for texts that are all shorter than six tokens; ModelError for a layer that
        the model does not have.
    """
    texts = [text.ids[:most_tokens] for text in dialogues if len(text.ids) > SKIPPED + 1]
    if not texts:
        raise DataError(
            f"a Jacobian lens is fitted on texts of more than {SKIPPED + 1} tokens; there is none"
        )
    wanted = sorted(set(layers))
    kept = StageCache(
        cache_folder() / "lenses" / pair.revisions["aligned"].replace(":", "-")[:32],
        {"model": pair.files("aligned"), "dtype": pair.precision},
    )
    total = {layer: torch.zeros(pair.d_model, pair.d_model) for layer in wanted}
    with pair.active("aligned") as model:
        logit_lens = LogitLens.of(model)
        for ids in progress(texts, "Fitting the Jacobian lens"):

            def made(ids: tuple[int, ...] = ids) -> dict[int, Tensor]:
                return jacobians(model, ids, wanted)

            found = kept.by_layer("jacobian", made, {"ids": list(ids), "layers": wanted})
            for layer, matrix in found.items():
                total[layer] += matrix / len(texts)
    return JacobianLens(total, logit_lens)


def jacobians(
    model: Any, ids: Sequence[int], layers: Sequence[int]
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """Layer -> J of one text, float32 on the CPU.

    model: a bridge or a plain Hugging Face model. ids: more than `SKIPPED` + 1 tokens.
    """
    last, d_model = n_layers(model) - 1, model_width(model)
    found = {layer: torch.zeros(d_model, d_model) for layer in layers}
    inner = [layer for layer in layers if layer != last]
    for layer in set(layers) - set(inner):
        found[layer] = torch.eye(d_model)  # the end of the stream is the end of the stream
    if not inner:
        return found
    resid_KPD = _recorded(model, ids, [*sorted(inner), last])
    end_KPD = resid_KPD.pop(last)
    for start in range(0, d_model, COTANGENTS):
        rows = torch.arange(start, min(start + COTANGENTS, d_model), device=end_KPD.device)
        cotangent_KPD = torch.zeros_like(end_KPD)
        cotangent_KPD[torch.arange(len(rows), device=end_KPD.device), SKIPPED:, rows] = 1
        grads = torch.autograd.grad(
            end_KPD, list(resid_KPD.values()), cotangent_KPD, retain_graph=True
        )
        for layer, grad_KPD in zip(resid_KPD, grads, strict=True):
            mean_KD = grad_KPD[: len(rows), SKIPPED:].float().mean(1)
            found[layer][rows.cpu()] = mean_KD.cpu()
    return found


def _recorded(model: Any, ids: Sequence[int], layers: Sequence[int]) -> dict[int, Tensor]:
    """Layer -> residual stream [K P D] of as many copies of a text, with a graph from the lowest
    block asked for to the highest."""
    resid: dict[int, Tensor] = {}

    def keep(layer: int) -> Hook:
        def hook(value: Tensor) -> Tensor:
            resid[layer] = value if resid else value.detach().requires_grad_()
            return resid[layer]

        return hook

    copies = torch.tensor([list(ids)] * COTANGENTS, device=model_device(model))
    with torch.enable_grad(), hooked(model, [(resid_post(at), keep(at)) for at in layers]):
        _run(model, copies)
    return resid


def _run(model: Any, ids: Tensor) -> None:
    """A pass whose logits nobody needs, but of one position."""
    few: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in accepted_by(model) else {}
    if is_bridge(model):
        model(ids, return_type=None, use_cache=False, **few)
    else:
        model(input_ids=ids, use_cache=False, **few)
