"""One forward pass over a text, steered or not: projections, the next token, the answer's log p."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.passes import chosen, log_probs
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import Hook, hooked, model_device, resid_post
from persona.models.pair import ModelPair, Side
from persona.models.readout import Readout
from persona.models.space import ActivationSpace
from steering.edits.edit import Edit
from steering.edits.steer import steer


@dataclass(frozen=True)
class TextPass:
    """What is kept of one pass, by block after its edits, on the CPU.

    projections: of every token on the row that was asked for; residuals: where none was.
    next_log_probs: log p (nats) of the token that the answer begins with.
    answer_log_prob: mean log p per token of the answer (nats), None without one.
    """

    projections: dict[int, list[float]]
    residuals: dict[int, Float[Tensor, "position d_model"]]
    next_log_probs: Float[Tensor, " vocabulary"]
    answer_log_prob: float | None


def pass_over_text(
    pair: ModelPair,
    side: Side,
    text: TokenizedDialogue,
    edits: Sequence[Edit],
    layers: Sequence[int],
    row: Float[Tensor, " d_model"] | None = None,
    *,
    space: ActivationSpace | None = None,
) -> TextPass:
    """Run one side over a text under `edits`, reading the outputs of `layers`.

    space: that edits are checked against, None where the model has no name.
    Raises: SteeringError as `steer`; ModelError for a block that the model does not have.
    """
    resid_PD: dict[int, Tensor] = {}

    def keeping(layer: int) -> Hook:
        def keep(resid_BPD: Tensor) -> None:
            resid_PD[layer] = resid_BPD[0].detach().cpu()

        return keep

    start, end = text.response
    positions = torch.arange(start - 1, max(end - 1, start))
    # After the edits: what later blocks are given.
    hooks = [(resid_post(layer), keeping(layer)) for layer in layers]
    with pair.active(side) as model, torch.no_grad():
        readout = Readout.of(model)  # found before an edit is there to be fired
        ids = torch.tensor([text.ids], device=model_device(model))
        steered = steer(model, edits, space=space) if edits else contextlib.nullcontext()
        with steered, hooked(model, hooks):
            found = readout.predict(model, ids, torch.zeros_like(positions), positions)
        parts = readout.slices(len(positions))
        tables = [log_probs(readout.checked_logits(found, part)) for part in parts]
    read = torch.cat(tables).cpu()
    mean = float(chosen(read, torch.tensor(text.ids[start:end])).mean()) if end > start else None
    if row is None:
        return TextPass({}, resid_PD, read[0].clone(), mean)
    projections = {layer: (x.float() @ row).tolist() for layer, x in resid_PD.items()}
    return TextPass(projections, {}, read[0].clone(), mean)
