"""What a model would write next behind many prompts that begin alike; a beginning is run once.

A judge puts the same instructions before every answer, and the same question before many of them.
The keys and values of what prompts share are kept, so that each prompt costs its own tokens alone.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.models.caches import cache_argument
from persona.models.hooks import accepted_by, hf_model, model_device

ROWS = 8
"""Prompts in one pass."""
STEP = 16
"""Rows are as long as a multiple of this; why stands at `persona.activations.batches.LENGTH_STEP`.
"""


@dataclass(frozen=True)
class Beginning:
    """Tokens that were run, and their keys and values (None for no tokens)."""

    ids: tuple[int, ...] = ()
    cache: Any = None

    def copied(self, n_rows: int) -> Any:
        """The cache for `n_rows` prompts, which a pass may write on."""
        if self.cache is None:
            return None
        cache = copy.deepcopy(self.cache)
        cache.batch_repeat_interleave(n_rows)
        return cache


def shared_start(prompts: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Returns the tokens that all prompts begin with; each keeps at least one of its own."""
    ordered = [tuple(prompt) for prompt in prompts]
    first, last = min(ordered), max(ordered)  # in the order of words all others lie between
    n = min(map(len, prompts)) - 1
    same = 0
    while same < n and first[same] == last[same]:
        same += 1
    return tuple(first[:same])


@torch.no_grad()
def run_beginning(model: Any, ids: Sequence[int], after: Beginning | None = None) -> Beginning:
    """Runs the tokens `ids`, of which those of `after` have been run already.

    model: a plain Hugging Face causal LM.
    Raises: ValueError where `ids` do not begin with those of `after`.
    """
    after = after or Beginning()
    n = len(after.ids)
    if tuple(ids[:n]) != after.ids:
        raise ValueError("the tokens do not begin with what was run")
    if len(ids) == n:
        return after
    own = torch.tensor([list(ids[n:])], device=model_device(model))
    return Beginning(tuple(ids), _run(model, own, after.copied(1), keep=1).past_key_values)


@torch.no_grad()
def next_logits(
    model: Any,
    prompts: Sequence[Sequence[int]],
    beginning: Beginning | None = None,
    *,
    longest_allowed: int | None = None,
) -> Float[Tensor, "prompt vocabulary"]:
    """Returns the logits behind each prompt, float32, on the CPU.

    What all of them share is run once, then `ROWS` prompts at a time, padded on the right.

    beginning: tokens that every prompt begins with and that were run already.
    longest_allowed: context of the model, which padding must not exceed.
    Raises: ValueError for a prompt without tokens of its own, or that begins otherwise.
    """
    if not all(prompts):
        raise ValueError("a prompt has no tokens")
    shared = shared_start(prompts)
    beginning = beginning or Beginning()
    if len(shared) > len(beginning.ids) and len(prompts) > 1:
        beginning = run_beginning(model, shared, beginning)
    n = len(beginning.ids)
    if any(len(prompt) <= n or tuple(prompt[:n]) != beginning.ids for prompt in prompts):
        raise ValueError("a prompt does not go on from the tokens that were run")
    found: list[Tensor | None] = [None] * len(prompts)
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), ROWS):
        places = order[start : start + ROWS]
        own = [list(prompts[i][n:]) for i in places]
        length = -(-max(map(len, own)) // STEP) * STEP
        if longest_allowed is not None:
            length = max(min(length, longest_allowed - n), max(map(len, own)))
        ids = torch.zeros(len(own), length, dtype=torch.long)
        for row, tokens in enumerate(own):
            ids[row, : len(tokens)] = torch.tensor(tokens)
        ends = torch.tensor([len(tokens) - 1 for tokens in own])
        logits = _at(model, ids.to(model_device(model)), beginning.copied(len(own)), ends)
        for row, place in enumerate(places):
            found[place] = logits[row].float().cpu()
    return torch.stack([one for one in found if one is not None])


def _at(model: Any, ids: Tensor, cache: Any, ends: Tensor) -> Float[Tensor, "row vocabulary"]:
    """Logits of each row [row pos] at its end, with the LM head run at no other row's place."""
    kept, column = torch.unique(ends, return_inverse=True)
    if "logits_to_keep" in accepted_by(model):
        logits = _run(model, ids, cache, keep=kept.to(ids.device)).logits
    else:
        logits, column = _run(model, ids, cache).logits, ends
    return logits[torch.arange(len(ids)), column.to(logits.device)]


def _run(model: Any, ids: Tensor, cache: Any, keep: int | Tensor | None = None) -> Any:
    options: dict[str, Any] = {"use_cache": True}
    if keep is not None and "logits_to_keep" in accepted_by(model):
        options["logits_to_keep"] = keep
    if cache is not None:
        options |= cache_argument(hf_model(model), cache)
    return model(input_ids=ids, **options)
