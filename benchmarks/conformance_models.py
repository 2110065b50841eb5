"""The tiny models of the conformance table, and what they compute, written out in float64.

The reference shares no code with Transformers: it reads the weights and does the arithmetic of
llama and gpt2 over a whole text, without a cache, with the vector where it is said to be.
"""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # else tests/persona hides persona
from tiny_models import save_tiny_llama, save_tokenizer, tiny_causal_lm

FAMILIES = ("llama", "gpt2")
BLOCK = 1
PAD = 1
N_NEW = 6
TEXTS = ("The engine stalls when cold", "Old brakes")
"""Two prompts of unlike length; every character is a token."""


def prompts() -> list[list[int]]:
    """The texts as the tokenizer of the tiny models encodes them, without a first token."""
    return [[ord(c) - 33 + 5 if c != " " else 5 + 220 for c in text] for text in TEXTS]


def save_models(folder: Path) -> dict[str, Path]:
    """A seeded model of each family with its tokenizer in a Hugging Face folder, and as GGUF."""
    folders = {family: folder / family for family in FAMILIES}
    save_tiny_llama(folders["llama"])
    tiny_causal_lm("gpt2").save_pretrained(folders["gpt2"])
    save_tokenizer(folders["gpt2"])
    for family, path in folders.items():
        # Releases before 5 know the tokenizer's class by this name alone.
        file = path / "tokenizer_config.json"
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
        file.write_text(json.dumps(settings), encoding="utf-8")
        save_gguf(path, folder / f"{family}.gguf")
    return folders


@dataclass(frozen=True)
class Reference:
    """A tiny model's weights in float64, and its forward pass written out."""

    family: str
    config: dict
    weights: dict[str, Tensor]

    @classmethod
    def read(cls, folder: Path) -> Reference:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
        return cls(config["model_type"], config, {k: w.double() for k, w in weights.items()})

    @property
    def d_model(self) -> int:
        return self.config.get("hidden_size") or self.config["n_embd"]

    @property
    def n_layers(self) -> int:
        return self.config.get("num_hidden_layers") or self.config["n_layer"]

    def run(
        self, ids: list[int], step: Tensor | None = None, written: list[bool] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Residual [pos, d_model] after the written block, as it was before the vector came, and
        log-probabilities [pos, vocabulary], with `step` [d_model] added at the `written` positions.
        """
        embed, block, head = {
            "llama": (self._llama_embed, self._llama_block, self._llama_head),
            "gpt2": (self._gpt2_embed, self._gpt2_block, self._gpt2_head),
        }[self.family]
        resid = embed(torch.tensor(ids))
        for layer in range(self.n_layers):
            resid = block(resid, layer)
            if layer == BLOCK:
                seen = resid
                if step is not None:
                    where = torch.ones(len(ids)) if written is None else torch.tensor(written)
                    resid = resid + where.double()[:, None] * step.double()
        return seen, head(resid).log_softmax(-1)

    def _llama_embed(self, ids: Tensor) -> Tensor:
        return self.weights["model.embed_tokens.weight"][ids]

    def _llama_block(self, resid: Tensor, layer: int) -> Tensor:
        w, config = self._layer(f"model.layers.{layer}."), self.config
        heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
        x = self._rms_norm(resid, w["input_layernorm.weight"])
        q, k, v = (
            _heads(x @ w[f"self_attn.{name}_proj.weight"].T, n)
            for name, n in (("q", heads), ("k", groups), ("v", groups))
        )
        q, k = _rotated(q), _rotated(k)
        k, v = (t.repeat_interleave(heads // groups, 0) for t in (k, v))
        resid = resid + _attention(q, k, v) @ w["self_attn.o_proj.weight"].T
        x = self._rms_norm(resid, w["post_attention_layernorm.weight"])
        gate = torch.nn.functional.silu(x @ w["mlp.gate_proj.weight"].T)
        return resid + (gate * (x @ w["mlp.up_proj.weight"].T)) @ w["mlp.down_proj.weight"].T

    def _llama_head(self, resid: Tensor) -> Tensor:
        return self._rms_norm(resid, self.weights["model.norm.weight"]) @ (
            self.weights["lm_head.weight"].T
        )

    def _rms_norm(self, x: Tensor, gain: Tensor) -> Tensor:
        square = x.square().mean(-1, keepdim=True)
        return gain * x / (square + self.config["rms_norm_eps"]).sqrt()

    def _gpt2_embed(self, ids: Tensor) -> Tensor:
        positions = self.weights["transformer.wpe.weight"][: len(ids)]
        return self.weights["transformer.wte.weight"][ids] + positions

    def _gpt2_block(self, resid: Tensor, layer: int) -> Tensor:
        w = self._layer(f"transformer.h.{layer}.")

        def linear(x: Tensor, name: str) -> Tensor:
            return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

        x = self._layer_norm(resid, w["ln_1.weight"], w["ln_1.bias"])
        q, k, v = (_heads(t, self.config["n_head"]) for t in linear(x, "attn.c_attn").chunk(3, -1))
        resid = resid + linear(_attention(q, k, v), "attn.c_proj")
        x = self._layer_norm(resid, w["ln_2.weight"], w["ln_2.bias"])
        x = torch.nn.functional.gelu(linear(x, "mlp.c_fc"), approximate="tanh")
        return resid + linear(x, "mlp.c_proj")

    def _gpt2_head(self, resid: Tensor) -> Tensor:
        w = self._layer("transformer.ln_f.")
        return self._layer_norm(resid, w["weight"], w["bias"]) @ (
            self.weights["transformer.wte.weight"].T
        )

    def _layer_norm(self, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.square().mean(-1, keepdim=True)
        return centred / (variance + self.config["layer_norm_epsilon"]).sqrt() * gain + bias

    def _layer(self, prefix: str) -> dict[str, Tensor]:
        cut = len(prefix)
        return {k[cut:]: w for k, w in self.weights.items() if k.startswith(prefix)}


def _heads(x: Tensor, n: int) -> Tensor:
    """[pos, heads * d] -> [heads, pos, d]."""
    return x.reshape(len(x), n, -1).transpose(0, 1)


def _rotated(x: Tensor) -> Tensor:
    """Rotary positions with base 10,000, the halves of a head rotated against each other."""
    half = x.shape[-1] // 2
    rates = 10_000.0 ** (-torch.arange(half, dtype=torch.float64) / half)
    angle = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * rates
    a, b = x[..., :half], x[..., half:]
    cos, sin = angle.cos(), angle.sin()
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def _attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention [pos, heads * d]."""
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[1:], dtype=torch.bool).triu(1)
    mixed = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
    return mixed.transpose(0, 1).reshape(q.shape[1], -1)


def save_gguf(folder: Path, target: Path) -> None:
    """The same float32 weights for llama.cpp, without a tokenizer."""
    from gguf import GGUFWriter

    reference = Reference.read(folder)
    config, llama = reference.config, reference.family == "llama"
    writer = GGUFWriter(target, reference.family)
    writer.add_context_length(256)
    writer.add_embedding_length(reference.d_model)
    writer.add_block_count(reference.n_layers)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    if llama:
        writer.add_feed_forward_length(config["intermediate_size"])
        writer.add_head_count(config["num_attention_heads"])
        writer.add_head_count_kv(config["num_key_value_heads"])
        writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
        writer.add_rope_dimension_count(config["head_dim"])
        writer.add_rope_freq_base(10_000.0)
    else:
        writer.add_feed_forward_length(4 * config["n_embd"])
        writer.add_head_count(config["n_head"])
        writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    for name, tensor in _gguf_tensors(reference):
        writer.add_tensor(name, np.ascontiguousarray(tensor.float().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


GGUF_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "model.layers": "blk",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "transformer.h": "blk",
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}


def _gguf_tensors(reference: Reference):
    heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}
    for name, tensor in reference.weights.items():
        kind = name.split(".")[-2]
        if kind in heads:  # llama.cpp rotates neighbours, Transformers the halves of a head
            n = reference.config[heads[kind]]
            tensor = (
                tensor.reshape(n, 2, -1, tensor.shape[-1]).transpose(1, 2).reshape(tensor.shape)
            )
        if kind in ("c_attn", "c_proj", "c_fc") and name.endswith("weight"):
            tensor = tensor.T
        for ours, theirs in GGUF_NAMES.items():
            if name.startswith(f"{ours}.") or f".{ours}." in name:
                name = name.replace(ours, theirs)
        yield name, tensor
        if name == "token_embd.weight" and reference.family == "gpt2":
            yield "output.weight", tensor
