"""Short runs of a model that look at the residual stream from outside the steering machinery.

What is seen is the input of the next block (of the final norm, after the last), read with torch
hooks on the modules themselves: no hook table and no position tracker lies in between.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from persona.activations.passes import log_probs
from persona.data.types import Dialogue, Turn
from persona.models.caches import cache_argument, find_cache
from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import hf_model, is_bridge, model_device
from persona.models.sites import residual_readers

_QUESTION = "why does the kettle sing when water boils and fall silent once it is poured out"


@dataclass(frozen=True)
class Texts:
    """Padded token ids [row pos] and which of them are real."""

    ids: Int[Tensor, "row pos"]
    mask: Int[Tensor, "row pos"]

    @property
    def real(self) -> Bool[Tensor, "row pos"]:
        return self.mask.bool()

    @property
    def index(self) -> Int[Tensor, "row pos"]:
        """Place of each token in its own text, from 0; pad tokens before it have -1."""
        return self.mask.cumsum(-1) - 1

    @property
    def lengths(self) -> list[int]:
        return self.mask.sum(-1).tolist()

    def row(self, place: int) -> Texts:
        """One text alone, without padding."""
        ids = self.ids[place][self.real[place]][None]
        return Texts(ids, torch.ones_like(ids))


def padded_prompts(chat: ChatFormat, n: int, *, side: str = "left") -> Texts:
    """`n` prompts of different lengths (1 to 12 words), padded on one side."""
    words = _QUESTION.split()
    questions = [
        " ".join(words[(i + k) % len(words)] for k in range(1 + 5 * i % 12)) for i in range(n)
    ]
    encoded = chat.encode_all([Dialogue((Turn("user", q),)) for q in questions])
    longest = max(len(text) for text in encoded)
    ids = torch.full((n, longest), int(chat.tokenizer.pad_token_id or 0))
    mask = torch.zeros_like(ids)
    for row, text in enumerate(encoded):
        place = slice(longest - len(text), longest) if side == "left" else slice(0, len(text))
        ids[row, place], mask[row, place] = torch.tensor(text.ids), 1
    return Texts(ids, mask)


@contextlib.contextmanager
def watching_residuals(
    model: Any, going_on_from: Tensor | None = None
) -> Iterator[list[list[Tensor]]]:
    """While open, every pass adds the residual [row pos d_model] after each block to its list.

    going_on_from: [layer pos d_model], which each next block then reads in place of what was seen:
    every block is run alone, from given states.
    """
    readers = residual_readers(model)
    seen: list[list[Tensor]] = [[] for _ in readers]

    def reader(layer: int) -> Any:
        def hook(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            resid = args[0] if args else kwargs["hidden_states"]
            seen[layer].append(resid.detach().clone())
            if going_on_from is None:
                return None
            given = going_on_from[layer][None].to(resid)
            return ((given, *args[1:]), kwargs) if args else ((), kwargs | {"hidden_states": given})

        return hook

    handles = [
        module.register_forward_pre_hook(reader(layer), with_kwargs=True)
        for layer, module in enumerate(readers)
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def log_probs_of(model: Any, texts: Texts) -> Float[Tensor, "row pos vocabulary"]:
    """Log-probabilities at every position, float32, through the model's own forward."""
    device = model_device(model)
    options: dict[str, Any] = {"attention_mask": texts.mask.to(device)}
    if not is_bridge(model):
        options["position_ids"] = texts.index.clamp(min=0).to(device)
    output = model(texts.ids.to(device), **options)
    logits = output if isinstance(output, Tensor) else output.logits
    return log_probs(logits).cpu()


@torch.no_grad()
def decoded(
    model: Any, texts: Texts, n_tokens: int, *, cache: bool, forced: Tensor | None = None
) -> tuple[Int[Tensor, "row step"], Float[Tensor, "row step vocabulary"]]:
    """Tokens and log-probabilities of greedy decoding, pass by pass; texts are left-padded.

    forced: tokens [row step] to go on with in place of the most likely ones.
    """
    lm, device = hf_model(model), model_device(model)
    ids, mask = texts.ids.to(device), texts.mask.to(device)
    past, tokens, predicted = None, [], []
    for step in range(n_tokens):
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        shown = ids if past is None else ids[:, -1:]
        output = lm(
            input_ids=shown,
            attention_mask=mask,
            position_ids=positions[:, -shown.shape[1] :],
            use_cache=cache,
            **({} if past is None else cache_argument(lm, past)),
        )
        past = find_cache(output.values()) if cache else None
        predicted.append(log_probs(output.logits[:, -1]).cpu())
        following = predicted[-1].argmax(-1) if forced is None else forced[:, step]
        tokens.append(following)
        ids = torch.cat([ids, following[:, None].to(device)], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return torch.stack(tokens, dim=1), torch.stack(predicted, dim=1)


def generation_paths(model: Any) -> tuple[str, ...]:
    """The methods of the model that generate, each with its own way to hand a cache on."""
    return ("generate", "hf_generate") if is_bridge(model) else ("generate",)


@torch.no_grad()
def generated(model: Any, texts: Texts, n_tokens: int, path: str) -> Int[Tensor, "row step"]:
    """Greedy tokens by the model's own method, with its cache; may end early, all rows done."""
    device = model_device(model)
    options: dict[str, Any] = {"attention_mask": texts.mask.to(device), "do_sample": False}
    if is_bridge(model):
        options |= {"stop_at_eos": False, "return_type": "tokens"}
        options |= {"verbose": False} if path == "generate" else {}
    else:
        options |= {"pad_token_id": int(texts.ids[0, 0])}
    output = getattr(model, path)(texts.ids.to(device), max_new_tokens=n_tokens, **options)
    return output[:, texts.ids.shape[1] :].cpu()


def answer_starts(texts: Texts) -> Sequence[int]:
    """Row -> where an answer could begin: past the middle of each text."""
    return [1 + length // 2 for length in texts.lengths]


def meant_tokens(texts: Texts, positions: str) -> Bool[Tensor, "row pos"]:
    """The tokens that a position set names, by each token's place in its own text."""
    index = texts.index
    start = torch.tensor(answer_starts(texts))[:, None]
    length = torch.tensor(texts.lengths)[:, None]
    meant = {
        "all": index >= 0,
        "asking": index < start - 1,
        "answering": index >= start - 1,
        "last": index == length - 1,
        "answering:2": (index >= start - 1) & (index < start + 1),
        "from:3": index >= 3,
    }[positions]
    return meant & texts.real & (index > 0)
