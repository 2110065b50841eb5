"""The same permanent edits as LoRA adapter folders, which PEFT puts on the model.

Removing orthonormal rows V from what a module writes is an update of rank k: W - V^T V W is
W + B A with A = V W [rank in], B = -V^T [d_model rank], and lora_alpha = rank for a scale of 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import SteeringError
from persona.files import atomic_directory
from steering.weights.orthogonalise import Writer, checked_basis, mlp_projection, writers_of


def save_orthogonalising_adapter(
    hf_model: Any,
    vectors: Tensor,
    folder: str | Path,
    *,
    embedding: bool = True,
    layers: Sequence[int] | None = None,
) -> Path:
    """Write the LoRA adapter that makes the model equal `orthogonalise`; returns the folder.

    A head tied to the embedding goes on reading the old table while the adapter is on. Merging
    would change the head too: keep the adapter on such a model, or use `save_model`.
    Raises: SteeringError as `orthogonalise` does, and where both an embedding and a bias must
        change (GPT-2, GPT-NeoX), which one adapter of PEFT cannot hold.
    Source: Hu et al. 2021 for the form of the update; the file layout is PEFT's.
    """
    basis = checked_basis(hf_model, vectors)
    writers = writers_of(hf_model, embedding=embedding, layers=layers)
    if mixtures := [w.name for w in writers if w.is_experts]:
        raise SteeringError(
            f"{mixtures[0]} holds the experts of a mixture, which no LoRA adapter of linear layers "
            "changes; save the model as a folder (orthogonalise, save_model)"
        )
    biased = [w for w in writers if getattr(w.module, "bias", None) is not None]
    if biased and embedding:
        raise SteeringError(
            f"{biased[0].name} has a bias, and one LoRA adapter cannot change biases and an "
            "embedding; pass embedding=False, or save the model as a folder (save_model)"
        )
    tensors: dict[str, Tensor] = {}
    for writer in writers:
        along = basis.to(writer.module.weight.device)
        tensors |= _factors(writer, writer.read(along), -along.T)
        if biased:
            bias = getattr(writer.module, "bias", None)
            change = (
                torch.zeros(basis.shape[1]) if bias is None else -(along @ bias.float()) @ along
            )
            tensors[f"{writer.name}.lora_B.bias"] = change
    return _save(hf_model, writers, tensors, len(basis), bool(biased), folder)


def save_bias_adapter(
    hf_model: Any, layer: int, vector: Float[Tensor, " d_model"], folder: str | Path
) -> Path:
    """Write the LoRA adapter that makes the model equal `add_bias`; returns the folder.

    PEFT cannot merge it into a module that has no bias of its own.
    Raises: SteeringError as `add_bias` does.
    """
    checked_basis(hf_model, vector)
    writer = mlp_projection(hf_model, layer)
    n_in = writer.module.weight.numel() // len(vector)
    tensors = _factors(writer, torch.zeros(1, n_in), torch.zeros(len(vector), 1))
    tensors[f"{writer.name}.lora_B.bias"] = vector.float() / writer.scale
    return _save(hf_model, [writer], tensors, 1, True, folder)


def _factors(writer: Writer, a: Tensor, b: Tensor) -> dict[str, Tensor]:
    if isinstance(writer.module, nn.Embedding):
        return {f"{writer.name}.lora_embedding_A": a, f"{writer.name}.lora_embedding_B": b}
    return {f"{writer.name}.lora_A.weight": a, f"{writer.name}.lora_B.weight": b}


def _save(
    hf_model: Any,
    writers: Sequence[Writer],
    tensors: Mapping[str, Tensor],
    rank: int,
    lora_bias: bool,
    folder: str | Path,
) -> Path:
    from safetensors.torch import save_file

    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(getattr(hf_model.config, "_name_or_path", "")),
        "r": rank,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "bias": "none",
        "lora_bias": lora_bias,
        "fan_in_fan_out": any(type(w.module).__name__ == "Conv1D" for w in writers),
        "target_modules": [writer.name for writer in writers],
        "inference_mode": True,
    }
    named = {f"base_model.model.{k}": v.detach().cpu().contiguous() for k, v in tensors.items()}
    target = Path(folder)
    with atomic_directory(target) as temporary:
        save_file(named, temporary / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2)
        (temporary / "adapter_config.json").write_text(text, encoding="utf-8")
    return target
