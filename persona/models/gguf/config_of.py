"""What a GGUF's metadata says of its model, as a Hugging Face config.

What llama.cpp computes and a config cannot say is refused by name, never left out. Factors of the
rotary embedding that stand in the file as a tensor (Llama 3, Phi-3) go into the config.
Source: llama.cpp, src/llama-model.cpp and convert_hf_to_gguf.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.errors import ModelError
from persona.models.gguf.gguf_file import GgufFile

_LOGIT_KEYS = ("attn_logit_softcapping", "final_logit_softcapping")
_MOVE_NUMBERS = (
    "expert_count",
    "embedding_scale",
    "residual_scale",
    "logit_scale",
    "attention.scale",
    "attention.clamp_kqv",
    "attention.max_alibi_bias",
    *_LOGIT_KEYS,
)
"""Keys by which a file says that its model computes something more than its family does."""

_LLAMA_3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
_LLAMA_3_CONTEXT = 8192


def config_of(file: GgufFile) -> Any:
    """The Hugging Face config of a GGUF's model.

    Raises: ModelError for an architecture that cannot be dequantised here, and for metadata that
        is missing or that Transformers has no place for.
    """
    from transformers import AutoConfig

    special = _FAMILIES.get(file.architecture)
    if special is None:
        raise ModelError(
            f"{file.path.name} holds a model of the architecture {file.architecture or 'unknown'}; "
            f"{', '.join(_FAMILIES)} can be dequantised. Pass the model as a folder or hub id"
        )
    allowed = _LOGIT_KEYS if file.architecture == "gemma2" else ()
    for key in _MOVE_NUMBERS:
        if key not in allowed and file.of_architecture(key):
            raise ModelError(
                f"{file.path.name} sets {file.architecture}.{key} to {file.of_architecture(key)}, "
                "which cannot be dequantised here; pass the model as a folder or hub id"
            )
    try:
        settings = _common(file) | special(file)
    except KeyError as error:
        raise ModelError(f"{file.path.name} lacks the field {error.args[0]}") from error
    model_type = settings.pop("model_type", file.architecture)
    return AutoConfig.for_model(model_type, **settings)


def _needed(file: GgufFile, key: str) -> Any:
    return file.fields[f"{file.architecture}.{key}"]


def _common(file: GgufFile) -> dict[str, Any]:
    n_heads = _one_number(file, "attention.head_count")
    n_blocks = len({name.split(".")[1] for name in file.tensors if name.startswith("blk.")})
    if _needed(file, "block_count") != n_blocks:
        raise ModelError(
            f"{file.path.name} holds {n_blocks} blocks; its metadata speak of "
            f"{_needed(file, 'block_count')}"
        )
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelError(f"{file.path.name} holds no token_embd.weight: no model, or a part of one")
    settings = {
        "max_position_embeddings": _needed(file, "context_length"),
        "num_hidden_layers": _needed(file, "block_count"),
        "hidden_size": _needed(file, "embedding_length"),
        "intermediate_size": _one_number(file, "feed_forward_length"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": _one_number(file, "attention.head_count_kv", n_heads),
        "rms_norm_eps": _needed(file, "attention.layer_norm_rms_epsilon"),
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "rope_parameters": _rope(file),
    }
    names = {"bos": "bos", "eos": "eos", "padding": "pad", "unknown": "unk"}
    for theirs, ours in names.items():
        settings[f"{ours}_token_id"] = file.fields.get(f"tokenizer.ggml.{theirs}_token_id")
    return settings


def _one_number(file: GgufFile, key: str, otherwise: Any = None) -> int:
    """A number that some architectures give block by block, which Transformers has no place for."""
    found = file.of_architecture(key, otherwise)
    if found is None:
        raise KeyError(f"{file.architecture}.{key}")
    values = set(found) if isinstance(found, list) else {found}
    if len(values) != 1:
        raise ModelError(
            f"{file.path.name}: {key} differs between blocks, which cannot be dequantised here"
        )
    return int(values.pop())


def _head_dim(file: GgufFile) -> int:
    n_heads = _one_number(file, "attention.head_count")
    return int(
        file.of_architecture("attention.key_length", _needed(file, "embedding_length") // n_heads)
    )


def _rope(file: GgufFile) -> dict[str, Any]:
    """The rotary embedding: its base, and how its frequencies are scaled."""
    rope: dict[str, Any] = {
        "rope_theta": float(file.of_architecture("rope.freq_base", 10_000.0)),
        "rope_type": "default",
    }
    kind = file.of_architecture("rope.scaling.type", "none")
    factor = file.of_architecture("rope.scaling.factor") or file.of_architecture(
        "rope.scale_linear"
    )
    original = file.of_architecture("rope.scaling.original_context_length")
    if "rope_freqs.weight" in file.tensors:
        return rope | _scaled_by_tensor(file)
    if kind == "yarn":
        original = original or _needed(file, "context_length")
        return rope | {
            "rope_type": "yarn",
            "factor": float(factor or 1.0),
            "original_max_position_embeddings": int(original),
        }
    if kind == "longrope" or "rope_factors_long.weight" in file.tensors:
        return rope | _long_rope(file)
    if kind not in ("none", "linear"):
        raise ModelError(f"{file.path.name}: rotary scaling {kind!r} cannot be dequantised here")
    if factor and factor != 1.0:
        return rope | {"rope_type": "linear", "factor": float(factor)}
    return rope


def _scaled_by_tensor(file: GgufFile) -> dict[str, Any]:
    """Llama 3's scaling, of which the file holds only what it divides each frequency by."""
    divisors = file.read("rope_freqs.weight").astype(np.float64)
    factor = float(divisors.max())
    if factor == 1.0:
        return {}
    theta = float(file.of_architecture("rope.freq_base", 10_000.0))
    expected = _llama_3_divisors(theta, 2 * len(divisors), factor)
    if np.allclose(divisors, expected, rtol=1e-4):
        return {
            "rope_type": "llama3",
            "factor": factor,
            "original_max_position_embeddings": _LLAMA_3_CONTEXT,
            **_LLAMA_3,
        }
    # Any divisors at all: LongRoPE with the same list for short and long texts, and no rescaling.
    return {
        "rope_type": "longrope",
        "short_factor": divisors.tolist(),
        "long_factor": divisors.tolist(),
        "attention_factor": 1.0,
        "factor": 1.0,
        "original_max_position_embeddings": int(_needed(file, "context_length")),
    }


def _llama_3_divisors(theta: float, head_dim: int, factor: float) -> NDArray[np.float64]:
    """What Llama 3.1 and later divide each frequency by.

    Source: convert_hf_to_gguf.py of llama.cpp, and Transformers' rope type "llama3".
    """
    wavelengths = 2 * math.pi * theta ** (np.arange(0, head_dim, 2) / head_dim)
    low, high = _LLAMA_3["low_freq_factor"], _LLAMA_3["high_freq_factor"]
    smooth = (_LLAMA_3_CONTEXT / wavelengths - low) / (high - low)
    between = 1 / ((1 - smooth) / factor + smooth)
    divisors = np.where(wavelengths > _LLAMA_3_CONTEXT / low, factor, between)
    return np.where(wavelengths < _LLAMA_3_CONTEXT / high, 1.0, divisors)


def _long_rope(file: GgufFile) -> dict[str, Any]:
    factors = {
        f"{name}_factor": file.read(f"rope_factors_{name}.weight").astype(float).tolist()
        for name in ("short", "long")
        if f"rope_factors_{name}.weight" in file.tensors
    }
    if len(factors) != 2:
        raise ModelError(f"{file.path.name} scales by LongRoPE but lacks its factors")
    original = file.of_architecture("rope.scaling.original_context_length")
    attention = file.of_architecture("rope.scaling.attn_factor")
    scaled = {"rope_type": "longrope", **factors}
    if original:
        scaled["original_max_position_embeddings"] = int(original)
    if attention:
        scaled["attention_factor"] = float(attention)
    return scaled


def _llama(file: GgufFile) -> dict[str, Any]:
    if file.of_architecture("attention.sliding_window"):
        raise ModelError(
            f"{file.path.name} is a llama with a sliding window, which cannot be dequantised here"
        )
    head_dim = file.of_architecture("attention.key_length") or file.of_architecture(
        "rope.dimension_count"
    )
    return {
        "head_dim": int(head_dim or _head_dim(file)),
        "attention_bias": _has_bias(file, "attn_"),
        "mlp_bias": _has_bias(file, "ffn_"),
    }


def _has_bias(file: GgufFile, part: str) -> bool:
    return any(f".{part}" in name and name.endswith(".bias") for name in file.tensors)


def _qwen2(file: GgufFile) -> dict[str, Any]:
    return {}


def _qwen3(file: GgufFile) -> dict[str, Any]:
    return {"head_dim": _head_dim(file), "attention_bias": _has_bias(file, "attn_")}


def _phi3(file: GgufFile) -> dict[str, Any]:
    rotated = file.of_architecture("rope.dimension_count", _head_dim(file))
    original = file.of_architecture("rope.scaling.original_context_length")
    settings: dict[str, Any] = {
        "rope_parameters": _rope(file) | {"partial_rotary_factor": rotated / _head_dim(file)},
        "sliding_window": file.of_architecture("attention.sliding_window") or None,
        "original_max_position_embeddings": int(original or _needed(file, "context_length")),
    }
    return settings


def _gemma2(file: GgufFile) -> dict[str, Any]:
    return {
        "head_dim": _head_dim(file),
        "query_pre_attn_scalar": _attention_scalar(file, largest=46),
        "sliding_window": file.of_architecture("attention.sliding_window", 4096),
        "attn_logit_softcapping": file.of_architecture("attn_logit_softcapping", 50.0),
        "final_logit_softcapping": file.of_architecture("final_logit_softcapping", 30.0),
        "tie_word_embeddings": True,
    }


def _gemma3(file: GgufFile) -> dict[str, Any]:
    local = float(file.of_architecture("rope.freq_base_swa", 10_000.0))
    pattern = file.of_architecture("attention.sliding_window_pattern", 6)
    if isinstance(pattern, list):
        layers = ["sliding_attention" if sliding else "full_attention" for sliding in pattern]
    else:
        every = range(1, _needed(file, "block_count") + 1)
        layers = ["sliding_attention" if i % pattern else "full_attention" for i in every]
    return {
        "model_type": "gemma3_text",
        "head_dim": _head_dim(file),
        "query_pre_attn_scalar": _attention_scalar(file, largest=62),
        "sliding_window": file.of_architecture("attention.sliding_window", 1024),
        "layer_types": layers,
        "rope_parameters": {
            "full_attention": _rope(file),
            "sliding_attention": {"rope_type": "default", "rope_theta": local},
        },
        "tie_word_embeddings": True,
    }


def _attention_scalar(file: GgufFile, largest: int) -> int:
    """What attention scores are divided by the root of: the head's width, but for the 27B model,
    which llama.cpp knows by its number of blocks."""
    if _needed(file, "block_count") == largest:
        return int(_needed(file, "embedding_length") // _one_number(file, "attention.head_count"))
    return _head_dim(file)


_FAMILIES: dict[str, Callable[[GgufFile], dict[str, Any]]] = {
    "llama": _llama,  # and mistral, whose files carry this name
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
}
