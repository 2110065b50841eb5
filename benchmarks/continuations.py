"""Answers read after prompts that were computed once, from any block up.

An edit of the tokens that predict an answer touches neither the tokens before them nor the blocks
below it. Both are computed once: the prompts fill a key-value cache, one plain pass over the
answers leaves the output of every block, and each edit then costs the blocks above it, over the
answers' tokens alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona.activations.passes import log_probs
from persona.errors import SteeringError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.hooks import hf_model, hooked, resid_post
from persona.models.prefix import starting_at


@dataclass(frozen=True)
class Continuations:
    """Texts of one batch, cut before the last prompt token, which predicts the answer's first.

    prompt_ids: left-padded. answer_ids: that token and the answer but for its last, right-padded.
    real: [row, prompt and answer]. targets: the answer, where `scored` says so.
    indices: the places of the rows in the input list.
    """

    indices: tuple[int, ...]
    prompt_ids: Int[Tensor, "row prompt"]
    answer_ids: Int[Tensor, "row answer"]
    real: Bool[Tensor, "row pos"]
    targets: Int[Tensor, "row answer"]

    @property
    def scored(self) -> Bool[Tensor, "row answer"]:
        return self.real[:, self.prompt_ids.shape[1] :]

    @property
    def places(self) -> Int[Tensor, "row pos"]:
        """Place of each token in its own text."""
        return (self.real.long().cumsum(-1) - 1).clamp(min=0)


def continuations(
    dialogues: Sequence[TokenizedDialogue],
    pad_id: int,
    token_budget: int,
    device: torch.device | str = "cpu",
) -> list[Continuations]:
    """Batches of at most `token_budget` padded answer tokens, of prompts of similar length.

    Raises: SteeringError for a dialogue with no answer, or with less than two tokens before it.
    """
    for dialogue in dialogues:
        start, end = dialogue.response
        if not 2 <= start < end:
            raise SteeringError(
                f"dialogue {dialogue.id!r} has {start} tokens before an answer of {end - start}; "
                "at least two and one are needed to edit the answer alone"
            )
    longest = max(d.response[1] - d.response[0] for d in dialogues)
    rows = max(token_budget // longest, 1)
    order = sorted(range(len(dialogues)), key=lambda i: dialogues[i].response[0])
    return [
        _batch(dialogues, order[i : i + rows], pad_id, device) for i in range(0, len(order), rows)
    ]


def _batch(
    dialogues: Sequence[TokenizedDialogue],
    indices: Sequence[int],
    pad_id: int,
    device: torch.device | str,
) -> Continuations:
    starts = [dialogues[i].response[0] for i in indices]
    lengths = [dialogues[i].response[1] - dialogues[i].response[0] for i in indices]
    n_before, n_answer = max(starts) - 1, max(lengths)
    ids = torch.full((len(indices), n_before + n_answer + 1), pad_id)
    real = torch.zeros(len(indices), n_before + n_answer, dtype=torch.bool)
    for row, i in enumerate(indices):
        first = n_before + 1 - starts[row]
        text = torch.tensor(dialogues[i].ids[: dialogues[i].response[1]])
        ids[row, first : first + len(text)] = text
        real[row, first : first + len(text) - 1] = True
    ids, real = ids.to(device), real.to(device)
    return Continuations(
        tuple(indices), ids[:, :n_before], ids[:, n_before:-1], real, ids[:, n_before + 1 :]
    )


@dataclass(frozen=True)
class Foundation:
    """What all edits share: the cache of the prompts, each block's output over the answers."""

    cache: Any
    resid: dict[int, Float[Tensor, "row answer d_model"]]
    log_probs: Float[Tensor, "row answer vocabulary"]


@torch.no_grad()
def lay_foundation(bridge: Any, batch: Continuations, layers: Sequence[int]) -> Foundation:
    """Run the prompts, then the answers unedited; the outputs of `layers` are kept."""
    from transformers import DynamicCache

    model = hf_model(bridge)
    n_before = batch.prompt_ids.shape[1]
    cache = DynamicCache(config=model.config)
    options = {"logits_to_keep": 1} if _keeps_logits(model) else {}
    model(
        input_ids=batch.prompt_ids,
        attention_mask=batch.real[:, :n_before].long(),
        position_ids=batch.places[:, :n_before],
        past_key_values=cache,
        use_cache=True,
        **options,
    )
    resid: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(value: Tensor) -> None:
            resid[layer] = value

        return hook

    with hooked(bridge, [(resid_post(layer), keep(layer)) for layer in sorted(set(layers))]):
        log_probs = _answer_log_probs(bridge, batch, cache)
    return Foundation(cache, resid, log_probs)


@torch.no_grad()
def log_probs_from(
    bridge: Any,
    batch: Continuations,
    foundation: Foundation,
    layer: int,
    resid: Float[Tensor, "row answer d_model"],
) -> Float[Tensor, "row answer vocabulary"]:
    """Log-probabilities where the output of block `layer` over the answers is `resid`."""
    with starting_at(bridge, layer + 1, resid):
        return _answer_log_probs(bridge, batch, foundation.cache)


def _answer_log_probs(bridge: Any, batch: Continuations, cache: Any) -> Tensor:
    output = hf_model(bridge)(
        input_ids=batch.answer_ids,
        attention_mask=batch.real.long(),
        position_ids=batch.places[:, batch.prompt_ids.shape[1] :],
        past_key_values=_forked(cache),
        use_cache=True,
    )
    return log_probs(output.logits)


def _forked(cache: Any) -> Any:
    """A cache that grows by itself: layers bind new tensors as they grow, and never write to old.

    (What `crop` takes differs between versions of transformers, and sliding windows refuse it.)
    """
    fork = copy.copy(cache)
    fork.layers = [copy.copy(layer) for layer in cache.layers]
    return fork


def _keeps_logits(model: Any) -> bool:
    import inspect

    return "logits_to_keep" in inspect.signature(model.forward).parameters
