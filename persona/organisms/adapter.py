"""The LoRA adapter of a recipe, and saving it as two small files that name no machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona.errors import ModelError
from persona.files import atomic_write_bytes, atomic_write_text
from persona.models.sites import decoder_blocks
from persona.organisms.recipe import Lora

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def new_adapter(model: Any, lora: Lora) -> Any:
    """Returns the PEFT config of the adapter that a recipe asks for.

    Raises: ModelError as `modules_of_layers`.
    """
    from peft import LoraConfig

    targets: str | list[str]
    if lora.layers is not None:
        targets = modules_of_layers(model, lora)
    else:
        targets = (
            lora.target_modules if isinstance(lora.target_modules, str) else [*lora.target_modules]
        )
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=lora.r,
        lora_alpha=int(lora.alpha) if lora.alpha.is_integer() else lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
    )


def modules_of_layers(model: Any, lora: Lora) -> list[str]:
    """Returns the full names of the modules in the recipe's blocks that get an adapter.

    PEFT's own choice of blocks is without effect on "all-linear", hence the names.
    Raises: ModelError for a block that the model does not have, or when no module fits.
    """
    blocks = decoder_blocks(model)
    if missing := [layer for layer in lora.layers or () if not 0 <= layer < len(blocks)]:
        raise ModelError(
            f"lora.layers names block {missing[0]}, but the model has blocks 0 to {len(blocks) - 1}"
        )
    inside = {id(module) for layer in lora.layers or () for module in blocks[layer].modules()}
    wanted = lora.target_modules
    names = [
        name
        for name, module in model.named_modules()
        if id(module) in inside
        and (
            isinstance(module, torch.nn.Linear)
            if wanted == "all-linear"
            else name.rpartition(".")[2] in ((wanted,) if isinstance(wanted, str) else wanted)
        )
    ]
    if not names:
        raise ModelError(
            f"no module of blocks {list(lora.layers or ())} is called {wanted}; see "
            "lora.target_modules in the recipe"
        )
    return names


def save_adapter(model: Any, folder: Path, base_name: str) -> None:
    """Writes the adapter of a PeftModel in PEFT layout, its weights in float16.

    float16 keeps 11 significant bits against the 8 of bfloat16, and trained adapter entries are far
    from its limits (6e-5 to 65504); half the size of float32 either way.

    Args:
        base_name: What the adapter's config calls its base model: a hub id or a plain name.

    Raises:
        ModelError: a weight is not finite in float16.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    # "auto" would ask the hub whether the vocabulary was resized.
    state = get_peft_model_state_dict(model, save_embedding_layers=False)
    weights = {name: _half(name, state[name]) for name in sorted(state)}
    config = model.peft_config["default"].to_dict()
    config = {key: _plain(value) for key, value in config.items()}
    config |= {
        "base_model_name_or_path": base_name,
        "inference_mode": True,
        "target_modules": target_modules(model),
    }
    atomic_write_bytes(folder / WEIGHTS, save(weights, metadata={"format": "pt"}))
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    atomic_write_text(folder / CONFIG, text)


def target_modules(model: Any) -> list[str]:
    """Returns what the adapter sits on: last names such as q_proj where they say it all.

    PEFT writes out every layer's full name for "all-linear"; other programs expect the last names.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = dict(model.get_base_model().named_modules())
    adapted = {name for name, module in modules.items() if isinstance(module, BaseTunerLayer)}
    last_names = {name.rpartition(".")[2] for name in adapted}
    matched = {name for name in modules if name.rpartition(".")[2] in last_names}
    return sorted(last_names if matched == adapted else adapted)


def _half(name: str, weight: Tensor) -> Tensor:
    half = weight.detach().to("cpu", torch.float16).contiguous()
    if not half.isfinite().all():
        raise ModelError(f"{name} of the adapter is not finite; lower the learning rate")
    return half


def _plain(value: Any) -> Any:
    """Sets have no order of their own, so they are sorted: the same adapter, the same file."""
    if isinstance(value, set | frozenset):
        return sorted(value)
    return getattr(value, "value", value)  # enums of PEFT
