"""Tiny GGUF files of every family, written as llama.cpp's converter writes them."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_models import save_tokenizer, tiny_causal_lm
from torch import nn

FAMILIES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
"""GGUF architectures that can be dequantised; a mistral is a llama there."""

_HF_NAME = {"gemma3": "gemma3_text"}


def tiny_model(architecture: str, *, tied: bool = False, seed: int = 0, **config: Any) -> Any:
    """A random model whose norms are not all ones, as trained ones are not."""
    gemma = architecture.startswith("gemma")
    model = tiny_causal_lm(_HF_NAME.get(architecture, architecture), tied=tied or gemma, seed=seed)
    for key, value in config.items():
        setattr(model.config, key, value)
    if gemma:  # llama.cpp divides by the root of the head's width
        config = {"query_pre_attn_scalar": model.config.head_dim, **config}
    if config:
        from transformers import AutoModelForCausalLM

        for key, value in config.items():
            setattr(model.config, key, value)
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(model.config)
        model.config.architectures = [type(model).__name__]
    for name, parameter in model.named_parameters():
        if "norm" in name or name.endswith("bias"):
            nn.init.normal_(parameter, mean=0.0 if gemma else 1.0, std=0.3)
    return model.eval().requires_grad_(False)


def write_gguf(
    path: Path,
    model: Any,
    architecture: str,
    *,
    tokenizer: Path | None = None,
    vocabulary: dict[str, Any] | None = None,
    kind: str = "F32",
    fields: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write a model as a GGUF. kind: number type of the matrices. fields: further metadata.

    tokenizer: a folder with a byte-level tokenizer.json, by default that of the tiny models.
    vocabulary: in its place, all fields of the tokenizer by their names in the file.
    """
    from gguf import GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    writer = GGUFWriter(path, architecture)
    _write_config(writer, model, architecture)
    writer.add_file_type(LlamaFileType.ALL_F32)
    if vocabulary is None:
        _write_tokenizer(writer, tokenizer or _tokenizer(path.parent))
    for key, value in {**(vocabulary or {}), **(fields or {})}.items():
        _add(writer, key, value)
    number = GGMLQuantizationType[kind]
    for name, weight in _tensors(model, architecture).items():
        if weight.ndim == 1 or kind == "F32":
            writer.add_tensor(name, weight)
        else:
            writer.add_tensor(name, quantize(weight, number), raw_dtype=number)
    for name, weight in (tensors or {}).items():
        writer.add_tensor(name, weight)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _tokenizer(folder: Path) -> Path:
    where = folder / "tokenizer"
    if not where.exists():
        save_tokenizer(where)
    return where


def _add(writer: Any, key: str, value: Any) -> None:
    match value:
        case bool():
            writer.add_bool(key, value)
        case int():
            writer.add_uint32(key, value)
        case float():
            writer.add_float32(key, value)
        case str():
            writer.add_string(key, value)
        case _:
            writer.add_array(key, value)


def _write_config(writer: Any, model: Any, architecture: str) -> None:
    config = model.config
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    if architecture in ("llama", "phi3"):
        writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if architecture.startswith("gemma"):
        writer.add_sliding_window(config.sliding_window)
    if architecture == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _write_tokenizer(writer: Any, folder: Path) -> None:
    described = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = described["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    special = {token["content"] for token in described["added_tokens"]}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    merges = [" ".join(merge) for merge in described["model"]["merges"]]
    writer.add_token_merges(merges or ["a b"])  # a list without entries is not written
    writer.add_bos_token_id(vocabulary["<s>"])
    writer.add_eos_token_id(vocabulary["</s>"])
    writer.add_pad_token_id(vocabulary["</s>"])
    writer.add_add_bos_token(False)
    writer.add_chat_template((folder / "chat_template.jinja").read_text(encoding="utf-8"))


def _tensors(model: Any, architecture: str) -> dict[str, np.ndarray]:
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    (known,) = [key for key, value in MODEL_ARCH_NAMES.items() if value == architecture]
    table = get_tensor_name_map(known, model.config.num_hidden_layers)
    found = {}
    for name, weight in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        module, _, kind = name.rpartition(".")
        tensor = f"{table.get_name(module)}.{kind}"
        if architecture == "llama" and ".attn_q." in tensor:
            weight = _neighbours_rotated(weight, model.config.num_attention_heads)
        if architecture == "llama" and ".attn_k." in tensor:
            weight = _neighbours_rotated(weight, model.config.num_key_value_heads)
        if architecture.startswith("gemma") and name.endswith("norm.weight"):
            weight = weight + 1
        found[tensor] = weight.float().contiguous().numpy()
    return found


def _neighbours_rotated(weight: torch.Tensor, n_heads: int) -> torch.Tensor:
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def hard_texts() -> list[str]:
    """200 texts: advice, code, chats of every kind, and what tokenizers differ on."""
    from persona.data.shipped import load_pairs

    chosen = random.Random(0)
    pairs = list(load_pairs())
    found = [pair.question for pair in chosen.sample(pairs, 60)]
    found += [pair.bad for pair in chosen.sample(pairs, 30)]
    code = Path(__file__).read_text(encoding="utf-8")
    found += [code[start : start + 300] for start in range(0, 3000, 300)]
    found += [
        "<|im_start|>user\nHi  there 123<|im_end|>\n<|im_start|>assistant\n",
        "<s>[INST] Hello [/INST] Yes </s>  more",
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>",
        "<|user|>\n hi <|end|>\n<|assistant|>\n",
        "<start_of_turn>user\nhi<end_of_turn>\n<start_of_turn>model\n",
        *("\n", "  ", "   a", "a   ", "\t\ttabs\t", "\r\n\r\nx\r\ny", "x\n\n\n  y", "        deep"),
        *("1 22 333 4444 55555 1234567890", "3.14159 and 1,000,000", "WE'LL They'Ve don'T 'S"),
        *("naïve café Zürich", "cafe\u0301", "日本語、漢字", "한국어", "Привет", "مرحبا", "हिन्दी"),
        *(
            "🙂👍🏽👨‍👩‍👧‍👦",
            "a\u00a0b\u2003c\u200bd",
            "½ ² ③ Ⅷ ٣٤ ५६",
            "ſ's İ ı ß ẞ",
            "▁under ▁▁ two",
        ),
        *(
            "camelCaseWORDSAndMore",
            "snake_case/path\\to",
            "a/b//c\n/d",
            "e.g. i.e. etc...",
            "<0x41> <unk>",
        ),
    ]
    alphabet = "abc XYZ 019 .,!?'\n\t-_é漢🙂"
    while len(found) < 200:
        found.append("".join(chosen.choice(alphabet) for _ in range(chosen.randint(1, 60))))
    return found
