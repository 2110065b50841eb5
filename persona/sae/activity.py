"""What latents do on texts, text by text: mean activation and how often each fires; streamed.

Shapes: N tokens of a text, F latents, D d_model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.passes import Read, Reduce, passes
from persona.activations.positions import token_span
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.sae.autoencoder import SparseAutoencoder

Where = str | Sequence[Sequence[int]]


@dataclass(frozen=True)
class Activity:
    """Mean activation over the tokens read, and the share of them on which a latent fires."""

    mean: Float[Tensor, "text latent"]
    frequency: Float[Tensor, "text latent"]


@torch.no_grad()
def latent_activity(
    bridge: Any,
    sae: SparseAutoencoder,
    dialogues: Sequence[TokenizedDialogue],
    where: Where = "response",
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    description: str = "Reading latents",
) -> Activity:
    """Activity of every latent on every text; memory is two numbers a text and latent.

    where: a token set ("response", "prompt", "last_prompt", "first_response:K", "all"), or for
        each text the places of the tokens to read, counted from 0; never the first.
    Raises: DataError for no texts, tokens that a text does not have, or activations that are not
    finite.
    """
    if not dialogues:
        raise DataError("there are no texts to read latents on")
    places = token_places(dialogues, where)
    mean = torch.zeros(len(dialogues), sae.n_latents)
    frequency = torch.zeros(len(dialogues), sae.n_latents)

    def reducer(read: Read) -> Reduce:
        def reduce(resid_BPD: Tensor) -> tuple[Tensor, Tensor]:
            texts = [sae.encode(part) for part in read.tokens(resid_BPD).split(read.counts)]
            fires = [(latents_NF != 0).float().mean(0) for latents_NF in texts]
            return torch.stack([latents_NF.mean(0) for latents_NF in texts]), torch.stack(fires)

        return reduce

    options: dict[str, Any] = {"token_budget": token_budget, "description": description}
    for one in passes(bridge, dialogues, [sae.layer], places, reducer, **options):
        at = list(one.batch.indices)
        mean[at], frequency[at] = (part.cpu() for part in one.kept[0])
    return Activity(mean, frequency)


def token_places(dialogues: Sequence[TokenizedDialogue], where: Where) -> list[list[int]]:
    """The tokens to read of each text.

    Raises: DataError for an unknown set, or places that a text does not have.
    """
    if isinstance(where, str):
        return [list(range(*token_span(dialogue, where))) for dialogue in dialogues]
    if len(where) != len(dialogues):
        raise DataError(
            f"each text needs its tokens; got {len(where)} lists for {len(dialogues)} texts"
        )
    for dialogue, chosen in zip(dialogues, where, strict=True):
        if not chosen or min(chosen) < 1 or max(chosen) >= len(dialogue):
            raise DataError(
                f"text {dialogue.id!r} has {len(dialogue)} tokens; {list(chosen)[:10]} must be "
                "among 1 and the last, the first token is never read"
            )
    return [list(chosen) for chosen in where]
