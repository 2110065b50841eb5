"""Sampled answers, batched and seeded, steered or not.

An answer is what a model writes behind its block of thoughts, where it writes one: that is what is
judged and scored.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from persona.data.types import Dialogue
from persona.errors import DataError, ModelError
from persona.models.chat.answer_span import THINK_TAGS, after_thoughts
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.chat.turn_end import before_plain_end, end_tokens, until_end
from persona.models.hooks import InContext, hf_model, is_hooked, model_device
from persona.models.samplers import AnswerRequest, sampler_of, seeds_of_answers
from persona.progress import progress

logger = logging.getLogger("persona")


@torch.no_grad()
def sample_answers(
    bridge: Any,
    chat: ChatFormat,
    prompts: Sequence[Dialogue],
    *,
    intervene: InContext | None = None,
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    batch_size: int = 32,
    seed: int = 0,
    description: str = "Sampling answers",
) -> list[str]:
    """One answer per prompt; temperature 0 is greedy. Ends at the end of the turn or the limit.

    A block of thoughts that an answer begins with is left out; where it is never closed the answer
    is empty, and a warning says for how many. An answer ends with the model's context too.
    The same seed, prompts and batch size on the same machine give the same answers, whatever the
    state of the global random generator, which is left as it was. Where an engine answers for the
    side of a pair that is open (`ModelPair.sampler`), it is asked in place of the bridge.
    Raises: DataError for a prompt that fills the model's context; ModelError where the model's
    logits are not finite, or hooks are open that an engine would not run.
    """
    prompts = [prompt.prompt for prompt in prompts]
    encoded = chat.encode_all(prompts)
    room = _room(chat, encoded, max_new_tokens)
    ends = end_tokens(bridge, chat)
    batches = _chunks(encoded, room, max_new_tokens, batch_size)
    how = _Drawing(room, batches, ends, temperature, seed, description)
    if (bound := sampler_of(bridge)) is not None:
        sampler, side = bound
        if is_hooked(bridge):
            raise ModelError(
                f"hooks are open on this model, and {sampler.name}, which writes its answers, does "
                "not run them; give the edits as sample_answers(..., intervene=steered_by(edits)), "
                "or set pair.sampler to None"
            )
        requests = [
            AnswerRequest(side, prompt.ids, intervene, most, ends, temperature, its_own)
            for prompt, most, its_own in zip(
                encoded, room, seeds_of_answers(seed, len(room)), strict=True
            )
        ]
        written = sampler.answers(requests, batches=batches, description=description)
    else:
        written = _generated(bridge, chat, encoded, intervene, how)
    answers = [
        _text(chat, until_end(ids, ends), chat.render(prompt, open_answer=True))
        for ids, prompt in zip(written, prompts, strict=True)
    ]
    if lost := answers.count(None):
        logger.warning(
            "%d of %d answers are empty: the model did not close its block of thoughts in %d "
            "tokens; allow more, or tell the chat template not to think "
            "(--template-argument enable_thinking=false)",
            lost,
            len(answers),
            max_new_tokens,
        )
    return [answer or "" for answer in answers]


@dataclass(frozen=True)
class _Drawing:
    """How answers are drawn. room: most tokens of each; batches: prompts that go together."""

    room: list[int]
    batches: list[list[int]]
    ends: frozenset[int]
    temperature: float
    seed: int
    description: str


def _generated(
    bridge: Any,
    chat: ChatFormat,
    encoded: Sequence[TokenizedDialogue],
    intervene: InContext | None,
    how: _Drawing,
) -> list[list[int]]:
    """What the bridge's own `generate` writes behind each prompt."""
    written: list[list[int]] = [[] for _ in encoded]
    device = model_device(bridge)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), finite_logits(bridge):
        torch.manual_seed(how.seed)
        for chunk in progress(how.batches, how.description):
            ids, mask = left_padded([encoded[i] for i in chunk], _pad_id(chat))
            drawn = (
                {"temperature": how.temperature} if how.temperature > 0 else {"do_sample": False}
            )
            with intervene(bridge) if intervene else contextlib.nullcontext():
                output = bridge.generate(
                    ids.to(device),
                    attention_mask=mask.to(device),
                    max_new_tokens=how.room[chunk[0]],
                    stop_at_eos=bool(how.ends),
                    eos_token_id=sorted(how.ends) or None,
                    return_type="tokens",
                    verbose=False,
                    **drawn,
                )
            for row, i in enumerate(chunk):
                written[i] = output[row, ids.shape[1] :].tolist()
    return written


def _room(chat: ChatFormat, prompts: Sequence[TokenizedDialogue], max_new_tokens: int) -> list[int]:
    """How many tokens each answer may have: those asked for, or what the context leaves."""
    if chat.max_length is None:
        return [max_new_tokens] * len(prompts)
    room = [min(max_new_tokens, chat.max_length - len(prompt)) for prompt in prompts]
    for prompt, left in zip(prompts, room, strict=True):
        if left < 1:
            raise DataError(
                f"the prompt {prompt.id or '(no id)'} fills the model's context of "
                f"{chat.max_length} tokens, which leaves no room for an answer; shorten it"
            )
    if short := sum(left < max_new_tokens for left in room):
        logger.warning(
            "%d of %d answers end before %d tokens: the model's context of %d tokens is full",
            short,
            len(room),
            max_new_tokens,
            chat.max_length,
        )
    return room


def _chunks(
    prompts: Sequence[TokenizedDialogue], room: Sequence[int], wanted: int, batch_size: int
) -> list[list[int]]:
    """Places of prompts to be answered together, shorter ones first.

    One near the end of the context goes alone, for it would cut the others of its batch off.
    """
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    roomy = [i for i in order if room[i] >= wanted]
    together = [roomy[i : i + batch_size] for i in range(0, len(roomy), batch_size)]
    return [*together, *([i] for i in order if room[i] < wanted)]


@contextlib.contextmanager
def finite_logits(model: Any) -> Iterator[None]:
    """Raise ModelError at the first pass whose logits are not finite: greedy would go on in it.

    model: a bridge or a plain causal LM.
    """

    def check(module: Any, inputs: Any, output: Any) -> None:
        logits = getattr(output, "logits", None)
        if logits is None:
            return
        last = logits[:, -1]
        # -inf is a token that the model never writes.
        if bool((last.isnan() | last.isposinf()).any()):
            raise ModelError(
                f"the model's logits are not finite while it answers ({last.dtype}); its weights "
                "are damaged, an edit is too strong, or the number format is too narrow for it "
                "(--dtype float32)"
            )

    handle = hf_model(model).register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


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


def _text(chat: ChatFormat, ids: list[int], prompt: str) -> str | None:
    """The answer's text, None where it is a block of thoughts that was never closed."""
    behind = _behind_special_tags(chat, ids, prompt)
    if behind is None:
        return None
    text = str(chat.tokenizer.decode(behind, skip_special_tokens=True))
    if behind == ids:
        answer = after_thoughts(text, prompt)
        if answer is None:
            return None
        text = answer
    return before_plain_end(chat, text).strip()


def _behind_special_tags(chat: ChatFormat, ids: list[int], prompt: str) -> list[int] | None:
    """The tokens behind a block whose tags are special tokens, which decoding would drop."""
    special = chat.tokenizer.all_special_tokens
    for opens, closes in THINK_TAGS:
        if opens not in special or closes not in special:
            continue
        first, last = chat.tokenizer.convert_tokens_to_ids([opens, closes])
        if ids[:1] == [first] or prompt.rstrip().endswith(opens):
            return ids[ids.index(last) + 1 :] if last in ids else None
    return ids
