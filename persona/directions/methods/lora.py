"""Directions that a LoRA adapter reads and writes, straight from its file: no model, no text.

A LoRA adds s B A x to the output of a module, A [r in], B [out r]. With s B A = U diag(sigma) V^T
the rows of V^T are what it reads, those of U^T what it writes, and sigma how much.

Source: Hu et al. 2021 (LoRA); Kalajdzievski 2023 (the rank-stabilised scale alpha / sqrt(r)).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from persona.errors import DataError

Role = Literal["writes", "reads"]

WRITING_MODULES = (
    "o_proj",
    "out_proj",
    "dense",
    "down_proj",
    "dense_4h_to_h",
    "c_proj",
    "fc2",
    "fc_out",
)
READING_MODULES = (
    *("q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "c_attn"),
    *("gate_proj", "up_proj", "gate_up_proj", "dense_h_to_4h", "c_fc", "fc1", "fc_in"),
)
WEAKEST = 1e-6
"""Singular values below this share of the largest are rounding of the stored weights."""

_KEY = re.compile(r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<part>[AB])(?:\.\w+)?\.weight")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


@dataclass(frozen=True)
class LoraDirections:
    """What one module's adapter writes to the residual stream of its block, or reads from it.

    vectors: orthonormal rows, strongest first; none where the adapter's update is zero. Of a
        writing module in the basis of the residual stream. Of a reading module in that of its
        input, which is the residual stream after the block's norm: times the norm's gain, entry
        by entry, they are directions of the residual stream.
    singular_values: of s B A, in the same order.
    """

    layer: int
    module: str
    role: Role
    vectors: Float[Tensor, "rank d_model"]
    singular_values: Float[Tensor, " rank"]


def lora_directions(
    adapter_folder: str | Path,
    *,
    modules: Sequence[str] | None = None,
    reference: Mapping[int, Float[Tensor, " d_model"]] | None = None,
) -> list[LoraDirections]:
    """The singular directions of every adapted module, by layer and name.

    The sign of a singular vector is arbitrary: here its largest entry is positive, or its product
    with `reference` (layer -> direction toward the trait) where that layer has one.
    modules: last names to read, such as "down_proj"; default all that the adapter has.
    Raises: DataError when the files are missing or no plain LoRA, a module is not known to touch
        the residual stream, or the whole adapter is zero.

    Weights of GPT-2 (`fan_in_fan_out`) are stored transposed; A and B are not. Adapted embeddings
    belong to no block and are left out.
    """
    folder = Path(adapter_folder)
    config = _read_config(folder)
    found = []
    for name, (a, b) in sorted(_read_factors(folder).items()):
        last_name = name.rpartition(".")[2]
        if modules is not None and last_name not in modules:
            continue
        layer, role = _place(folder, name)
        left, sigma, right = _svd(b * _scale(config, name, len(a)), a)
        rows = left if role == "writes" else right
        toward = None if reference is None else reference.get(layer)
        found.append(LoraDirections(layer, last_name, role, _signed(rows, toward), sigma))
    if not any(len(directions.vectors) for directions in found):
        raise DataError(
            f"the adapter {folder} changes nothing in the modules read "
            f"({', '.join(sorted({d.module for d in found})) or 'none'}): its weights are zero or "
            "the modules are not in it"
        )
    return sorted(found, key=lambda directions: (directions.layer, directions.module))


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"cannot read {path}: {error}; a PEFT adapter folder is needed") from error
    if not isinstance(config, dict) or str(config.get("peft_type", "")).upper() != "LORA":
        raise DataError(f"{path} is not the configuration of a LoRA adapter")
    if config.get("use_dora"):
        raise DataError(f"{folder} is a DoRA adapter: it rescales the weights, so B A is not all")
    if not isinstance(config.get("lora_alpha"), int | float):
        raise DataError(f"{path} has no number lora_alpha")
    return config


def _read_factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Module name -> A [r in] and B [out r], float64."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = folder / "adapter_model.safetensors"
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(f"cannot read {path}: {error}") from error
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.fullmatch(key)
        if match:
            parts.setdefault(match["module"], {})[match["part"]] = tensor.double()
    for name, both in parts.items():
        if set(both) != {"A", "B"} or both["A"].shape[0] != both["B"].shape[1]:
            raise DataError(f"{path}: {name} needs lora_A [r in] and lora_B [out r]")
        if not all(factor.isfinite().all() for factor in both.values()):
            raise DataError(f"{path}: the weights of {name} are not finite")
    if not parts:
        raise DataError(f"{path} holds no lora_A and lora_B weights")
    return {name: (both["A"], both["B"]) for name, both in parts.items()}


def _place(folder: Path, name: str) -> tuple[int, Role]:
    """Block number, and on which side the module touches the residual stream."""
    last_name = name.rpartition(".")[2]
    layer = _LAYER.search(name)
    if layer is None or last_name not in (*WRITING_MODULES, *READING_MODULES):
        raise DataError(
            f"module {name} of the adapter {folder} is not known to write to or read from a "
            f"block's residual stream; known are {', '.join(WRITING_MODULES)} (writing) and "
            f"{', '.join(READING_MODULES)} (reading). Name the modules to read"
        )
    return int(layer[1]), "writes" if last_name in WRITING_MODULES else "reads"


def _scale(config: Mapping[str, Any], name: str, rank: int) -> float:
    """alpha / r, or alpha / sqrt(r) for a rank-stabilised adapter; alpha may differ by module."""
    alpha = float(config["lora_alpha"])
    for pattern, own in (config.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            alpha = float(own)
            break
    return alpha / (rank**0.5 if config.get("use_rslora") else rank)


def _svd(
    b: Float[Tensor, "out r"], a: Float[Tensor, "r in"]
) -> tuple[Float[Tensor, "rank out"], Float[Tensor, " rank"], Float[Tensor, "rank in"]]:
    """Rows that B A writes, singular values, rows that it reads; by QR, so r by r at most."""
    q_out, r_out = torch.linalg.qr(b)
    q_in, r_in = torch.linalg.qr(a.T)
    u, sigma, vt = torch.linalg.svd(r_out @ r_in.T)
    kept = (sigma > WEAKEST * sigma.max()).sum() if sigma.max() > 0 else 0
    left, right = (q_out @ u).T[:kept], (vt @ q_in.T)[:kept]
    return left.float().contiguous(), sigma[:kept].float(), right.float().contiguous()


def _signed(
    rows: Float[Tensor, "rank d_model"], toward: Float[Tensor, " d_model"] | None
) -> Float[Tensor, "rank d_model"]:
    if toward is None:
        decisive = rows.gather(1, rows.abs().argmax(1, keepdim=True))[:, 0]
    elif toward.shape != rows.shape[1:]:
        raise DataError(
            f"the reference has {tuple(toward.shape)} entries but the adapter's module "
            f"{rows.shape[1]}; take a direction of the model it was trained on"
        )
    else:
        decisive = rows @ toward.to(rows)
    return rows * torch.where(decisive < 0, -1.0, 1.0)[:, None]
