"""The training loss: log-probabilities where an answer is scored, and nowhere else.

Half the tokens of a short dialogue are template and question. A table of logits of all of them over
152,000 words, with its gradient, takes 2 GB for eight dialogues, and the LM head a third of the
time of a step. Here the head sees the answers' tokens alone, a slice at a time, and each slice is
computed again for the gradient instead of kept.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from persona.models.readout import Readout
from persona.organisms.examples import NO_LOSS


def answer_loss(
    model: Any,
    input_ids: Int[Tensor, "batch pos"],
    labels: Int[Tensor, "batch pos"],
    attention_mask: Int[Tensor, "batch pos"],
) -> Float[Tensor, ""]:
    """Mean of -log p(token) over all tokens that have a label, nats per token; gradients flow.

    labels: the ids on the answers, -100 elsewhere; the token at position t is predicted at t - 1.
    """
    rows, before = torch.nonzero(labels[:, 1:] != NO_LOSS, as_tuple=True)
    targets = labels[rows, before + 1]
    readout = Readout.of(model)
    found = readout.predict(model, input_ids, rows, before, attention_mask=attention_mask)

    def summed(hidden: Tensor, wanted: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(
            readout.logits(hidden), wanted.to(hidden.device), reduction="sum"
        )

    total = torch.zeros((), device=found.hidden.device)
    for part in readout.slices(len(targets)):
        total = total + checkpoint(
            summed, found.hidden[part], targets[part], use_reentrant=False, preserve_rng_state=False
        )
    return total / len(targets)
