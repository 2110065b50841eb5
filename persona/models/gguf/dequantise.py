"""Turning a GGUF into an ordinary Hugging Face folder.

Names, shapes and the layout of each weight are undone as llama.cpp's converter made them, tensor
by tensor, and every tensor of the file has to find its place. Quantised weights become float16:
they hold 4 to 8 bits each, of which the ten of its mantissa lose nothing that matters.
Source: llama.cpp, convert_hf_to_gguf.py.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona.errors import ModelError
from persona.models.gguf.config_of import config_of
from persona.models.gguf.gguf_file import GgufFile, read_gguf
from persona.models.gguf.tokenizer_of import end_tokens, tokenizer_of

SHARD_BYTES = 2_000_000_000
"""Weights held in memory at a time, and written to a file of their own."""

_F32, _BF16 = 0, 30
_IN_CONFIG = ("rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight")


@dataclass(frozen=True)
class Weight:
    """One weight of the Hugging Face model. tensor: its name in the GGUF, None for zeros."""

    name: str
    shape: tuple[int, ...]
    tensor: str | None
    dtype: torch.dtype

    @property
    def n_bytes(self) -> int:
        return int(torch.Size(self.shape).numel()) * self.dtype.itemsize


def save_dequantised(
    gguf: Path,
    folder: Path,
    name: str,
    *,
    dtype: torch.dtype | None = None,
    advance: Callable[[int], object] = lambda n_bytes: None,
) -> None:
    """Save a GGUF as a Hugging Face folder: config, weights, tokenizer and chat template.

    name: what the saved config calls the model.
    dtype: of the weights; by default float32 and bfloat16 tensors stay what they are, vectors
        (norms, biases) are float32, and all other weights become float16.
    advance: told of every so many bytes of the GGUF that are done.
    Raises: ModelError for an architecture, a tensor or a tokenizer that cannot be rebuilt, and
        for a damaged file.
    """
    from transformers import GenerationConfig

    file = read_gguf(gguf)
    with _one_clear_line(file):
        config = config_of(file)
        tokenizer = tokenizer_of(file, config.max_position_embeddings)
        weights = weights_of(file, config, dtype)
        ends = end_tokens(file)
    config.dtype = dtype or _usual(weights)
    config._name_or_path = name
    _write_weights(file, config, weights, folder, advance)
    config.save_pretrained(folder)
    generation = GenerationConfig.from_model_config(config)
    if ends:
        generation.eos_token_id = ends[0] if len(ends) == 1 else ends
    generation.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def _one_clear_line(file: GgufFile) -> Iterator[None]:
    """What libraries say of metadata that make no sense becomes a ModelError."""
    try:
        yield
    except (ModelError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{file.path.name} cannot be dequantised: {type(error).__name__}: {reason}"
        ) from error


def weights_of(file: GgufFile, config: Any, dtype: torch.dtype | None = None) -> list[Weight]:
    """Every weight of the model, in its order, with where it comes from.

    Raises: ModelError where a weight is missing from the file, has another shape there, or a
        tensor of the file has no place in the model.
    """
    names = _names(file, config)
    empty = _empty_model(config)
    config.architectures = [type(empty).__name__]
    tied = set(getattr(empty, "all_tied_weights_keys", None) or {})
    if config.tie_word_embeddings:
        tied.add("lm_head.weight")
    found, used = [], set(_IN_CONFIG)
    for name, parameter in empty.state_dict().items():
        if name in tied:
            continue
        shape, tensor = tuple(parameter.shape), names(name)
        if tensor not in file.tensors:
            # Where one projection has a bias and another none, zeros are the same.
            if not name.endswith(".bias"):
                raise ModelError(f"{file.path.name} lacks {tensor or name}, of shape {shape}")
            found.append(Weight(name, shape, None, torch.float32))
            continue
        there = file.tensors[tensor]
        if there.shape != shape:
            raise ModelError(
                f"{file.path.name}: {tensor} has the shape {there.shape}; its metadata ask for "
                f"{shape}"
            )
        used.add(tensor)
        found.append(Weight(name, shape, tensor, dtype or _dtype_of(there.kind, shape)))
    if config.tie_word_embeddings:
        used.add("output.weight")  # Gemma's head is its embedding, whether or not it is there twice
    if left := [
        tensor for tensor in file.tensors if tensor not in used and "rot_embd" not in tensor
    ]:
        raise ModelError(
            f"{file.path.name}: {len(left)} of its tensors have no place in a "
            f"{config.model_type} of Transformers, such as {left[0]}"
        )
    return found


def _empty_model(config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


def _names(file: GgufFile, config: Any) -> Callable[[str], str | None]:
    """What a weight of the Hugging Face model is called in the GGUF."""
    from gguf import MODEL_ARCH_NAMES, get_tensor_name_map

    known = "llama" if file.architecture == "mistral" else file.architecture
    (architecture,) = [key for key, value in MODEL_ARCH_NAMES.items() if value == known]
    table = get_tensor_name_map(architecture, config.num_hidden_layers)

    def name_of(name: str) -> str | None:
        module, _, kind = name.rpartition(".")
        tensor = table.get_name(module)
        return None if tensor is None else f"{tensor}.{kind}"

    return name_of


def _dtype_of(kind: int, shape: tuple[int, ...]) -> torch.dtype:
    if kind == _F32 or len(shape) == 1:
        return torch.float32
    return torch.bfloat16 if kind == _BF16 else torch.float16


def _usual(weights: list[Weight]) -> torch.dtype:
    """The format of most of the numbers."""
    sizes: dict[torch.dtype, int] = {}
    for weight in weights:
        sizes[weight.dtype] = sizes.get(weight.dtype, 0) + weight.n_bytes
    return max(sizes, key=lambda dtype: sizes[dtype])


def _write_weights(
    file: GgufFile,
    config: Any,
    weights: list[Weight],
    folder: Path,
    advance: Callable[[int], object],
) -> None:
    """Write the weights as safetensors, in shards whose table is the library's usual one."""
    from safetensors.torch import save_file

    shards = list(_shards(weights))
    places: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        of = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        held = {}
        for weight in shard:
            held[weight.name] = _dense(file, config, weight)
            places[weight.name] = f"model{of}.safetensors"
            advance(file.tensors[weight.tensor].n_bytes if weight.tensor else 0)
        save_file(held, folder / f"model{of}.safetensors", metadata={"format": "pt"})
    if len(shards) > 1:
        table = {"metadata": {"total_size": sum(w.n_bytes for w in weights)}, "weight_map": places}
        (folder / "model.safetensors.index.json").write_text(json.dumps(table, indent=2) + "\n")


def _shards(weights: list[Weight]) -> Iterator[list[Weight]]:
    shard: list[Weight] = []
    for weight in weights:
        if shard and sum(w.n_bytes for w in shard) + weight.n_bytes > SHARD_BYTES:
            yield shard
            shard = []
        shard.append(weight)
    yield shard


def _dense(file: GgufFile, config: Any, weight: Weight) -> Tensor:
    """A weight as the Hugging Face model has it."""
    if weight.tensor is None:
        return torch.zeros(weight.shape, dtype=weight.dtype)
    rows = torch.empty(weight.shape, dtype=weight.dtype).view(-1, weight.shape[-1])
    is_gemma_norm = file.architecture.startswith("gemma") and weight.name.endswith("norm.weight")
    done = 0
    for piece in file.in_pieces(weight.tensor):
        numbers = torch.from_numpy(piece)
        # Gemma multiplies by 1 + weight; llama.cpp stores the sum.
        rows[done : done + len(piece)] = numbers - 1 if is_gemma_norm else numbers
        done += len(piece)
    dense = rows.view(weight.shape)
    if not dense.isfinite().all():
        raise ModelError(
            f"{file.path.name}: {weight.tensor} holds numbers that are not finite, or too large "
            f"for {str(weight.dtype).removeprefix('torch.')}; the file is damaged"
        )
    if file.architecture in ("llama", "mistral"):
        return _halves_of_heads_together(dense, weight.tensor, config)
    return dense


def _halves_of_heads_together(dense: Tensor, tensor: str, config: Any) -> Tensor:
    """Undoes the order that llama.cpp gives the rows of a llama's queries and keys.

    It rotates neighbouring coordinates, Transformers those half a head apart.
    Source: convert_hf_to_gguf.py, LlamaModel.permute.
    """
    n_heads = {
        "attn_q": config.num_attention_heads,
        "attn_k": config.num_key_value_heads,
    }.get(tensor.split(".")[-2])
    if n_heads is None:
        return dense
    half = dense.shape[0] // n_heads // 2
    pairs = dense.reshape(n_heads, half, 2, *dense.shape[1:])
    return pairs.transpose(1, 2).reshape(dense.shape).contiguous()
