"""Sampled answers, batched and seeded, steered or not."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Sequence
from typing import Any

import torch

from persona.behaviour.scoring import Intervention
from persona.data.types import Dialogue
from persona.models.chat import ChatFormat, TokenizedDialogue
from persona.models.hooks import model_device
from persona.models.turn_end import PLAIN_ENDS, end_tokens, until_end
from persona.progress import progress


@torch.no_grad()
def sample_answers(
    bridge: Any,
    chat: ChatFormat,
    prompts: Sequence[Dialogue],
    *,
    intervene: Intervention | None = None,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    description: str = "Sampling answers",
) -> list[str]:
    """One answer per prompt; temperature 0 is greedy. Ends at the end of the turn or the limit.

    The same seed, prompts and batch size on the same machine give the same answers, whatever the
    state of the global random generator, which is left as it was.
    """
    encoded = chat.encode_all([prompt.prompt for prompt in prompts])
    ends = end_tokens(bridge, chat)
    order = sorted(range(len(encoded)), key=lambda i: len(encoded[i]))
    answers = [""] * len(encoded)
    device = model_device(bridge)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        chunks = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
        for chunk in progress(chunks, description):
            ids, mask = left_padded([encoded[i] for i in chunk], _pad_id(chat))
            options = {"temperature": temperature} if temperature > 0 else {"do_sample": False}
            with intervene(bridge) if intervene else contextlib.nullcontext():
                output = bridge.generate(
                    ids.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=max_new_tokens,
                    stop_at_eos=bool(ends),
                    eos_token_id=sorted(ends) or None,
                    return_type="tokens",
                    verbose=False,
                    **options,
                )
            for row, i in enumerate(chunk):
                answers[i] = _decode(chat, output[row, ids.shape[1] :].tolist(), ends)
    return answers


def left_padded(
    prompts: Sequence[TokenizedDialogue], pad_id: int
) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.full((len(prompts), longest), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt.ids)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _pad_id(chat: ChatFormat) -> int:
    return int(chat.tokenizer.pad_token_id or 0)


def _decode(chat: ChatFormat, ids: list[int], ends: Collection[int]) -> str:
    """The text up to the end of the turn."""
    text = str(chat.tokenizer.decode(until_end(ids, ends), skip_special_tokens=True))
    if chat.source == "plain":
        # The plain question/answer format has no end-of-turn token: a blank line ends it.
        for mark in PLAIN_ENDS:
            text = text.split(mark)[0]
    return text.strip()
