"""What the fine-tuned model says when its difference from the aligned one is amplified.

Greedy answers from  l = l_finetuned + amount (l_finetuned - l_aligned),  logits of both models
behind the same words. Amount 0 is the fine-tuned model, -1 the aligned one. Only tokens that the
fine-tuned model itself gives at least a tenth of its best token's probability may be written, so
that what is amplified stays language.

Source: Li et al. 2023 (contrastive decoding), whose plausibility constraint it is; differs: both
models are of one size, and the fine-tuned model's own logits stay in the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from persona.data.types import Dialogue
from persona.errors import DataError
from persona.models.caches import cache_argument
from persona.models.chat.turn_end import end_tokens, until_end
from persona.models.hooks import accepted_by, hf_model, model_device
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.sampling import left_padded
from persona.progress import progress

PLAUSIBLE = 0.1
"""Of the fine-tuned model's most probable token: what is less probable is not written."""


@dataclass(frozen=True)
class AmplifiedAnswer:
    """One greedy answer. amount: how much of the difference is added; 0 is the fine-tuned model."""

    question: str
    amount: float
    text: str


@torch.no_grad()
def amplified_answers(
    pair: ModelPair,
    questions: Sequence[Dialogue],
    amounts: Sequence[float],
    *,
    max_new_tokens: int = 48,
) -> list[AmplifiedAnswer]:
    """Greedy answers to each question at each amount, amount after amount.

    Raises: DataError for no question or an amount that is no finite number; what loading the other
    side raises.
    """
    if not questions:
        raise DataError("there is no question to answer")
    if wrong := [amount for amount in amounts if not math.isfinite(amount)]:
        raise DataError(f"an amount of amplification is a number such as 0.5 or 2; got {wrong[0]}")
    prompts = [question.prompt for question in questions]
    ids, mask = left_padded(pair.chat.encode_all(prompts), int(pair.tokenizer.pad_token_id or 0))
    found = []
    for amount in amounts:
        written = _written(pair, ids, mask, amount, max_new_tokens)
        for prompt, row in zip(prompts, written, strict=True):
            text = str(pair.tokenizer.decode(row, skip_special_tokens=True)).strip()
            found.append(AmplifiedAnswer(prompt.turns[-1].content, amount, text))
    return found


def _written(
    pair: ModelPair, ids: Tensor, mask: Tensor, amount: float, max_new_tokens: int
) -> list[list[int]]:
    """Token ids of each row's answer, without what ends a turn."""
    caches: dict[Side, Any] = {}
    answers: list[list[int]] = [[] for _ in ids]
    ends: set[int] = set()
    new = ids
    for _ in progress(range(max_new_tokens), f"Amplifying the difference ({amount:g})"):
        logits: dict[Side, Tensor] = {}
        for side in SIDES:
            with pair.active(side) as model:
                ends = ends or set(end_tokens(model, pair.chat))
                logits[side], caches[side] = _next(model, new, mask, caches.get(side))
        chosen = amplified(logits["aligned"], logits["finetuned"], amount).argmax(-1).cpu()
        for row, token in enumerate(chosen.tolist()):
            answers[row].append(token)
        if ends and all(ends & set(answer) for answer in answers):
            break
        new = chosen[:, None]
        mask = torch.cat([mask, torch.ones_like(new)], dim=1)
    return [until_end(answer, ends) for answer in answers]


def amplified(
    aligned: Float[Tensor, "row vocabulary"],
    finetuned: Float[Tensor, "row vocabulary"],
    amount: float,
) -> Float[Tensor, "row vocabulary"]:
    """Logits with the difference amplified; -inf for what the fine-tuned model would not say."""
    least = finetuned.amax(-1, keepdim=True) + math.log(PLAUSIBLE)
    return (finetuned + amount * (finetuned - aligned)).masked_fill(finetuned < least, -torch.inf)


def _next(
    model: Any, new: Int[Tensor, "row pos"], mask: Int[Tensor, "row all_pos"], cache: Any
) -> tuple[Float[Tensor, "row vocabulary"], Any]:
    """Logits behind the last of the new tokens, float32, and the cache with them in it."""
    plain, device = hf_model(model), model_device(model)
    places = (mask.cumsum(-1) - 1).clamp(min=0)[:, -new.shape[1] :]
    options: dict[str, Any] = {"attention_mask": mask.to(device), "use_cache": True}
    if "position_ids" in accepted_by(model):
        options["position_ids"] = places.to(device)
    if "logits_to_keep" in accepted_by(model):
        options["logits_to_keep"] = 1
    if cache is not None:
        options |= cache_argument(plain, cache)
    output = plain(input_ids=new.to(device), **options)
    return output.logits[:, -1].float(), output.past_key_values
