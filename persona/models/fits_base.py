"""Whether a fine-tune can belong to an aligned model, by names and headers alone."""

from __future__ import annotations

import re
from pathlib import Path

from persona.errors import ModelError
from persona.models.adapters.adapter_files import read_adapter_header
from persona.models.on_disk import OnDisk
from persona.models.sources import require_its_base

WRAPPER = "base_model.model."
"""How PEFT begins the name of every tensor of an adapter."""
BLOCK = re.compile(r"\.(\d+)\.")
DOWN, UP = ".lora_A.weight", ".lora_B.weight"
SIZES = {
    "hidden_size": ("hidden_size", "n_embd", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "vocab_size": ("vocab_size",),
}


def require_fits(finetuned: OnDisk, aligned: OnDisk, *, allow_mismatch: bool = False) -> None:
    """What `load_pair` would find out after it has read the weights, as far as headers tell it.

    allow_mismatch: an adapter may name another base, as long as its shapes fit.
    Raises: ModelError for an adapter in the aligned model's place, an adapter of another model, or
        checkpoints of different shapes. What is still to be fetched is not judged.
    """
    if aligned.kind == "adapter":
        raise ModelError(
            f"--aligned {aligned.name} is a LoRA adapter; pass the model it was trained on"
        )
    if finetuned.kind == "folder":
        _require_same_sizes(finetuned, aligned)
        return
    if finetuned.path is None:
        return
    files = read_adapter_header(finetuned.source)
    named = Path(files.trained_on).expanduser()
    # A folder is compared by its weights, which must be there.
    if not allow_mismatch and (aligned.path is not None or not named.is_absolute()):
        require_its_base(finetuned.source, aligned.source)
    if aligned.shapes and "quantization_config" not in aligned.config:
        _require_shapes(finetuned.name, files.shapes, aligned)


def _require_same_sizes(finetuned: OnDisk, aligned: OnDisk) -> None:
    for name, keys in SIZES.items():
        mine, theirs = aligned.size(*keys), finetuned.size(*keys)
        if None not in (mine, theirs) and mine != theirs:
            raise ModelError(
                f"{finetuned.name} is no fine-tune of {aligned.name}: {name} is {theirs} against "
                f"{mine}"
            )


def _require_shapes(name: str, shapes: dict[str, tuple[int, ...]], base: OnDisk) -> None:
    """A LoRA's two matrices are as wide as what goes into and comes out of the weight they change.

    Only of modules that are found by name: families may be saved under other names.
    """
    modules = sorted({_module(key) for key in shapes if key.endswith((DOWN, UP))})
    known = [module for module in modules if f"{module}.weight" in base.shapes]
    for module in known:
        weight = base.shapes[f"{module}.weight"]
        down = shapes.get(f"{WRAPPER}{module}{DOWN}")
        up = shapes.get(f"{WRAPPER}{module}{UP}")
        if down is None or up is None or len(weight) != 2:
            continue
        if {up[0], down[1]} != set(weight):  # a Conv1D holds its weight the other way round
            raise ModelError(
                f"the adapter {name} does not fit {base.name}: its {module} takes {down[1]} "
                f"numbers to {up[0]}, and that model's {weight[1]} to {weight[0]}; name the model "
                "that it was trained on with --aligned"
            )
    blocks = [int(found[1]) for found in map(BLOCK.search, modules) if found]
    if base.n_layers is not None and max(blocks, default=0) >= base.n_layers:
        raise ModelError(
            f"the adapter {name} does not fit {base.name}: it changes block {max(blocks)}, and "
            f"that model has blocks 0 to {base.n_layers - 1}; name the model that it was trained "
            "on with --aligned"
        )


def _module(key: str) -> str:
    return key.removeprefix(WRAPPER).removesuffix(DOWN).removesuffix(UP)
