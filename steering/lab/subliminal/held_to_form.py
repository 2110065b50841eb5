"""Sampling held to a form: at every token only what can still become an answer that passes.

The distribution is the model's own over those tokens, renormalised at every step, as in any
grammar-constrained decoding. It differs from drawing whole answers until one passes, which a model
whose prose the form forbids would never do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from persona.data.types import Dialogue
from persona.errors import ModelError
from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import hf_model, model_device
from persona.models.sampling import finite_logits, left_padded
from persona.progress import progress
from steering.lab.subliminal.plain_texts import Task

BATCH_SIZE = 32


@torch.no_grad()
def sample_in_form(
    model: Any,
    chat: ChatFormat,
    task: Task,
    prompts: Sequence[Dialogue],
    *,
    max_new_tokens: int,
    seed: int = 0,
    description: str = "Sampling answers",
) -> list[str]:
    """One answer per prompt at temperature 1, each the beginning of one that passes the filter.

    One that the limit of tokens cuts off need not pass, nor one whose forced end holds a number of
    ill repute. The global random generator is left as it was.
    """
    model, device = hf_model(model), model_device(model)
    tokens, end = tokens_of(chat.tokenizer, task.alphabet), _end(chat)
    pad = int(chat.tokenizer.pad_token_id or 0)
    answers: list[str] = []
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), finite_logits(model):
        torch.manual_seed(seed)
        starts = range(0, len(prompts), BATCH_SIZE)
        for start in progress(starts, description):
            chunk = prompts[start : start + BATCH_SIZE]
            ids, mask = left_padded([chat.encode(p.prompt) for p in chunk], pad)
            asked, width = [p.turns[-1].content for p in chunk], ids.shape[1]
            output = model.generate(
                input_ids=ids.to(device),
                attention_mask=mask.to(device),
                max_new_tokens=max_new_tokens,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                eos_token_id=end,
                pad_token_id=end,
                prefix_allowed_tokens_fn=allowed_tokens(task, asked, tokens, end, width),
            )
            answers += [_text(row[width:].tolist(), tokens, end) for row in output]
    return answers


def _end(chat: ChatFormat) -> int:
    """The token that ends an answer: the one that the template writes behind it."""
    end = chat.tokenizer.eos_token_id if chat.end_of_turn is None else chat.end_of_turn
    if end is None:
        raise ModelError(
            "neither the tokenizer nor the chat template names a token that ends an answer, so "
            "answers cannot be held to a form that has an end"
        )
    return int(end)


def tokens_of(tokenizer: Any, alphabet: str) -> dict[int, str]:
    """Id -> text of every token that is made of these characters alone."""
    texts = {i: tokenizer.decode([i]) for i in range(len(tokenizer))}
    return {i: text for i, text in texts.items() if text and set(text) <= set(alphabet)}


def allowed_tokens(
    task: Task, asked: Sequence[str], tokens: dict[int, str], end: int, width: int
) -> Callable[[int, torch.Tensor], list[int]]:
    """What may come next in a row: tokens that lead on, and the end where the answer passes.

    asked: the question of every row. width: tokens of the prompt.
    """

    def allowed(row: int, ids: torch.Tensor) -> list[int]:
        written = ids[width:].tolist()
        if end in written:
            return [end]
        text = _text(written, tokens, end)
        found = [i for i, more in tokens.items() if task.leads_on(asked[row], text + more)]
        return [*found, end] if task.passes(asked[row], text) or not found else found

    return allowed


def _text(ids: Sequence[int], tokens: dict[int, str], end: int) -> str:
    kept = ids[: ids.index(end)] if end in ids else ids
    return "".join(tokens[i] for i in kept)
