"""Key-value caches, known by what they are and not by the name they are passed under.

Transformers 5.23 hands a cache on as `past_key_values`, 5.24 as `cache`, and some models as
`layer_past`. TransformerBridge 3.9 looks for the first and the last alone.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import Any

from torch import Tensor


def is_cache(value: object) -> bool:
    """Whether this keeps keys and values of earlier tokens: a Cache, or the tuples of old."""
    return callable(getattr(value, "get_seq_length", None)) or _is_legacy(value)


def find_cache(values: Iterable[object]) -> Any | None:
    """The first cache among the values; None where there is none."""
    return next((value for value in values if is_cache(value)), None)


def cached_length(cache: Any) -> int | None:
    """How many tokens the cache holds, pad tokens among them; None where it does not say.

    Layers that keep no keys (linear attention, layers that share those of others, layers that were
    passed over) count as empty, so the longest is taken.
    """
    if _is_legacy(cache):
        return int(cache[0][0].shape[-2])
    layers = getattr(cache, "layers", None) or [None]
    lengths = [_length_of(cache, place) for place in range(len(layers))]
    known = [length for length in lengths if length is not None]
    return max(known, default=None)


def cache_argument(hf_model: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name that this model's own forward gives it."""
    known = inspect.signature(hf_model.forward).parameters
    return {"cache" if "cache" in known else "past_key_values": cache}


def _length_of(cache: Any, layer: int) -> int | None:
    try:
        return int(cache.get_seq_length(layer) if layer else cache.get_seq_length())
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return None


def _is_legacy(value: object) -> bool:
    """((keys, values), ...) by layer, each [batch head pos d_head]."""
    return (
        isinstance(value, tuple)
        and bool(value)
        and isinstance(value[0], tuple)
        and len(value[0]) >= 2
        and all(isinstance(part, Tensor) and part.ndim == 4 for part in value[0][:2])
    )


def accept_any_cache_name(bridge: Any) -> None:
    """Let every attention layer of a bridge find its cache under whatever name it comes.

    Without it, a layer that the bridge computes step by step leaves a cache passed as `cache`
    empty: each decoded token then attends to itself alone, and no error is raised.
    """
    from transformer_lens.model_bridge.generalized_components import AttentionBridge

    for module in bridge.modules():
        if isinstance(module, AttentionBridge):
            kind: Any = type(module)
            module.__class__ = _finding(kind)


@functools.cache
def _finding(kind: Any) -> Any:
    """The same layer, whose own steps are given the cache under the name that they look for."""
    from transformer_lens.model_bridge.generalized_components import MLAAttentionBridge

    class CacheFindingBridge(kind):
        def _update_kv_cache(self, k: Tensor, v: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
            return super()._update_kv_cache(k, v, **_under_the_old_name(kwargs))

    class CacheFindingLatentBridge(kind):  # reads the cache in its forward, and calls no other's
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return super().forward(*args, **_under_the_old_name(kwargs))

    return CacheFindingLatentBridge if issubclass(kind, MLAAttentionBridge) else CacheFindingBridge


def _under_the_old_name(kwargs: dict[str, Any]) -> dict[str, Any]:
    cache = find_cache(kwargs.values())
    return kwargs if cache is None else {**kwargs, "past_key_values": cache}
