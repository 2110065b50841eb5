"""What one call of a model was given: its tokens, and how many came before them in the cache.

Arguments are known by what they are, not by their names: versions of Transformers and models name
the cache differently. Where the evidence (cache, attention mask, cache positions, position ids)
disagrees, or an argument might be a cache that cannot be read, the call is refused: a decoding
step taken for the first pass of a text would be steered nowhere, in silence.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from persona.errors import SteeringError
from persona.models.caches import cached_length, find_cache, is_cache


@dataclass(frozen=True)
class Call:
    """One forward pass: its tokens, and where they stand in their texts.

    tokens: ids [batch pos], or embeddings [batch pos d_model]. past: tokens of the cache before
    them, pads among them. real: which of the tokens are no pads. before: real tokens of each row
    in the cache; None where a mask [batch head pos key] alone was given, which does not say.
    one_text_a_row: False where a row is several texts, none of which sees the others.
    logits_to_keep: at how many of the last tokens logits are asked for; 0 for all.
    """

    tokens: Tensor
    past: int
    real: Bool[Tensor, "batch pos"]
    before: Int[Tensor, " batch"] | None
    one_text_a_row: bool
    logits_to_keep: int

    @property
    def end(self) -> int:
        """How long the cache is after this pass."""
        return self.past + self.real.shape[1]


def read_call(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
    """What `module(*args, **kwargs)` is given.

    Raises: SteeringError where it cannot be known how many tokens came before.
    """
    given = _bound(module, args, kwargs)
    tokens = next(
        (given[name] for name in ("input_ids", "inputs_embeds") if given.get(name) is not None),
        None,
    )
    if not isinstance(tokens, Tensor):
        raise SteeringError("steering needs input_ids or inputs_embeds in every pass; got neither")
    batch, width = tokens.shape[:2]
    if width == 0:
        raise SteeringError(f"there is nothing to steer in a text of no tokens; got {batch} rows")
    mask = _one_mask(given.get("attention_mask"))
    past = _tokens_before(given, mask, width)
    keep = given.get("logits_to_keep")
    real, before, one_text = _real_tokens(mask, batch, width, past, tokens.device)
    call = Call(tokens, past, real, before, one_text, keep if type(keep) is int else 0)
    _require_same_start(call, given.get("position_ids"))
    return call


def length_after(output: Any) -> int | None:
    """How many tokens the cache holds that a pass gave back; None where it gave none."""
    if not isinstance(output, Mapping | tuple):
        return None
    cache = find_cache(output.values() if isinstance(output, Mapping) else output)
    return None if cache is None else cached_length(cache)


def require_finite_logits(call: Call, output: Any) -> None:
    """Raise SteeringError where the logits that follow a text are not finite.

    Rows that end in a pad token are left out: what such a token computes is nobody's.
    """
    logits = getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 3:
        return
    ends_here = call.real[:, -1].to(logits.device)
    last = logits[ends_here, -1]
    if bool((last.isnan() | last.isposinf()).any()):  # -inf is a token that is never written
        raise SteeringError(
            f"the steered model's logits are not finite in {str(logits.dtype).split('.')[-1]}; "
            "take a smaller coefficient, or --dtype float32 or bfloat16 where that is float16"
        )


def _bound(module: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Argument name -> value, positional ones among them."""
    if not args:
        return dict(kwargs)
    named = [
        name
        for name, parameter in inspect.signature(module.forward).parameters.items()
        if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    ]
    if len(named) < len(args):  # a wrapper that takes *args: ids come first in every causal LM
        named = ["input_ids", *(f"argument {place}" for place in range(1, len(args)))]
    return dict(zip(named, args, strict=False)) | dict(kwargs)


def _tokens_before(given: Mapping[str, Any], mask: Tensor | None, width: int) -> int:
    """Length of the cache before this pass, on which all that was given must agree."""
    evidence: dict[str, int] = {}
    for name, value in given.items():
        if is_cache(value) and (length := cached_length(value)) is not None:
            evidence[name] = length
    if mask is not None and mask.ndim == 2:
        evidence["attention_mask"] = mask.shape[1] - width
    if isinstance(at := given.get("cache_position"), Tensor) and at.numel():
        evidence["cache_position"] = int(at.flatten()[0])
    if len(set(evidence.values())) > 1:
        told = ", ".join(f"{name} {length}" for name, length in evidence.items())
        raise SteeringError(
            "steering cannot know where this pass stands in its text: tokens before it are, by "
            f"{told}"
        )
    if evidence:
        return next(iter(evidence.values()))
    for name, value in given.items():
        if not _is_plain(value):
            raise SteeringError(
                "steering cannot know where this pass stands in its text: its argument "
                f"{name!r} is a {type(value).__name__}, which may hold earlier tokens. Pass a "
                "Transformers cache, or an attention mask over all tokens"
            )
    if mask is not None and mask.shape[-1] != width:
        raise SteeringError(
            f"steering cannot know where this pass stands in its text: {width} tokens see "
            f"{mask.shape[-1]}, and no cache was passed that holds the others"
        )
    return 0


def _is_plain(value: object) -> bool:
    """Whether it cannot hold earlier tokens: numbers, text, tensors, and plain collections."""
    if isinstance(value, Mapping):
        return all(_is_plain(part) for part in value.values())
    if isinstance(value, list | tuple):
        return all(_is_plain(part) for part in value)
    return value is None or isinstance(
        value, bool | int | float | str | Tensor | torch.dtype | torch.device
    )


def _one_mask(attention: Any) -> Tensor | None:
    """The attention mask; of masks by kind of layer, the one that sees most."""
    if isinstance(attention, Mapping):
        masks = [mask for mask in attention.values() if mask is not None]
        full = attention.get("full_attention")
        attention = full if full is not None else masks[0] if masks else None
    if attention is None:
        return None
    if isinstance(attention, Tensor) and attention.ndim in (2, 4):
        return attention
    shape = tuple(attention.shape) if isinstance(attention, Tensor) else type(attention)
    raise SteeringError(f"steering needs a [batch, pos] attention mask; got {shape}")


def _real_tokens(
    mask: Tensor | None, batch: int, width: int, past: int, device: torch.device
) -> tuple[Tensor, Tensor | None, bool]:
    """[batch pos] of this pass's real tokens, how many came before in each row, one text a row."""
    if mask is None:
        real = torch.ones(batch, width, dtype=torch.bool, device=device)
        return real, torch.full((batch,), past, device=device), True
    if mask.ndim == 2:
        whole = mask.bool().to(device)
        return whole[:, past:], whole[:, :past].sum(-1), True
    allowed = (mask if mask.dtype is torch.bool else mask == 0)[:, 0].to(device)
    allowed = allowed[..., past : past + width].expand(batch, width, width)
    real = allowed.diagonal(dim1=1, dim2=2)  # a token sees itself, a pad token sees nothing
    causal = torch.ones(width, width, dtype=torch.bool, device=device).tril()
    one_text = bool((allowed == (causal & real[:, None] & real[..., None])).all())
    before = torch.zeros(batch, dtype=torch.long, device=device) if past == 0 else None
    return real, before, one_text


def _require_same_start(call: Call, position_ids: Any) -> None:
    """Position ids that begin past 0 where no token came before tell of a cache that is hidden."""
    if call.past or not isinstance(position_ids, Tensor) or position_ids.ndim != 2:
        return
    real = call.real.to(position_ids.device)
    at = position_ids.expand(len(real), -1)[real]
    if at.numel() and int(at.min()) > 0:
        raise SteeringError(
            f"steering cannot know where this pass stands in its text: its position ids begin at "
            f"{int(at.min())}, but no cache was passed that holds the tokens before"
        )
