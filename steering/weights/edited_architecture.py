"""A checkpoint whose own architecture carries the edit, for servers that take no hooks.

Weights alone cannot hold most edits of block outputs: they see neither what came into a block nor
which token is the first. A few lines of architecture can: each edited block has the edit's numbers
as weights of its own, and the file that says so lies in the folder. It is exact, and it is held
against the hooks before the folder appears.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from persona.errors import SteeringError
from persona.files import atomic_directory
from persona.models.sites import decoder_blocks
from steering.edits.steer import steer
from steering.weights.affine_edits import AffineEdit, as_edits
from steering.weights.orthogonalise import require_no_shared_memory

MODULE = "modeling_edited"
EDITS_FILE = "edits.safetensors"
INDEX = "model.safetensors.index.json"
AGREES_WITHIN = 1e-4
"""Of the largest logit's size: what two orders of the same sums in float32 differ by, and more."""


@dataclass(frozen=True)
class Written:
    """A checkpoint that was written.

    off: how far its logits lie from those of the model under hooks; moved: how far those lie from
        the plain model's. Both as shares of the largest logit's size.
    """

    folder: Path
    off: float
    moved: float


def save_edited_model(
    model: Any, edits: Mapping[int, AffineEdit], folder: str | Path, tokenizer: Any = None
) -> Written:
    """Writes a plain model with edits behind its blocks as a folder.

    The folder holds the model's weights, those of the edits in float32, and `modeling_edited.py`.
    `AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True)` gives the edited model,
    and vLLM's Transformers backend serves it with --trust-remote-code. It appears whole or not at
    all, after it was loaded once and gave the logits that the hooks give.
    Raises: SteeringError for no edit, a layer that the model lacks, an architecture whose blocks
        cannot be made so, or a folder that does not do what the hooks do.
    """
    n_blocks = len(decoder_blocks(model))
    if not edits:
        raise SteeringError("there is no edit to write")
    if wrong := [layer for layer in edits if not 0 <= layer < n_blocks]:
        raise SteeringError(f"layer {wrong[0]} is out of range: blocks 0 to {n_blocks - 1}")
    require_no_shared_memory(model)
    text = _module_text(model)
    target = Path(folder)
    with atomic_directory(target) as temporary:
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        (temporary / f"{MODULE}.py").write_text(text, encoding="utf-8")
        _add_edits(temporary, _weights(model, edits))
        _say_so(temporary, model, edits)
        off, moved = _require_same(model, edits, temporary)
    return Written(target, off, moved)


def _names(model: Any) -> dict[str, str]:
    """What the template is filled with. Raises: SteeringError for blocks it cannot be made of."""
    blocks, lm = decoder_blocks(model), type(model)
    trunk, layer = model.get_decoder(), type(blocks[0])
    if {type(block) for block in blocks} != {layer}:
        raise SteeringError(f"the blocks of {lm.__name__} are not all of one kind; use the hooks")
    prefix = str(model.base_model_prefix)
    module = sys.modules[layer.__module__]
    known = [getattr(module, cls.__name__, None) is cls for cls in (layer, type(trunk), lm)]
    takes = inspect.signature(layer.forward).parameters
    made_of = list(inspect.signature(layer.__init__).parameters)
    if (
        not all(known)
        or getattr(model, prefix, None) is not trunk
        or list(getattr(trunk, "layers", [])) != blocks
        or "position_ids" not in takes
        or made_of != ["self", "config", "layer_idx"]
    ):
        raise SteeringError(
            f"blocks of {lm.__name__} are built otherwise than this knows (a block of config and "
            "layer_idx, told position_ids, below `layers` of the model); use the hooks"
        )
    return {
        "module": module.__name__,
        "layer": layer.__name__,
        "trunk": type(trunk).__name__,
        "lm": lm.__name__,
        "prefix": prefix,
    }


def _module_text(model: Any) -> str:
    from jinja2 import Template

    template = Path(__file__).with_name(f"{MODULE}.jinja").read_text(encoding="utf-8")
    return Template(template, keep_trailing_newline=True).render(_names(model))


def _weights(model: Any, edits: Mapping[int, AffineEdit]) -> dict[str, Tensor]:
    below = f"{model.base_model_prefix}.layers"
    return {
        f"{below}.{layer}.persona_edit.{name}": getattr(edit, name).float().contiguous().clone()
        for layer, edit in edits.items()
        for name in ("written", "read", "target")
    }


def _add_edits(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """The edits' weights beside the model's, and an index over all of them."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / EDITS_FILE, metadata={"format": "pt"})
    where: dict[str, str] = {}
    size = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            where |= dict.fromkeys(file.keys(), path.name)
        size += path.stat().st_size
    index = {"metadata": {"total_size": size}, "weight_map": where}
    single = folder / "model.safetensors"
    if single.exists():  # one file of this name is taken for all there is
        renamed = "model-00001-of-00001.safetensors"
        single.rename(folder / renamed)
        index["weight_map"] = {k: renamed if v == single.name else v for k, v in where.items()}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _say_so(folder: Path, model: Any, edits: Mapping[int, AffineEdit]) -> None:
    path, names = folder / "config.json", _names(model)
    config = json.loads(path.read_text(encoding="utf-8"))
    lm, trunk = f"Edited{names['lm']}", f"Edited{names['trunk']}"
    config["architectures"] = [lm]
    config["auto_map"] = {
        "AutoModel": f"{MODULE}.{trunk}",
        "AutoModelForCausalLM": f"{MODULE}.{lm}",
    }
    config["persona_edit_ranks"] = {str(layer): len(edit.target) for layer, edit in edits.items()}
    path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def load_edited(folder: str | Path, dtype: torch.dtype) -> Any:
    """The model of a folder that this process has written, from the file that lies in it.

    It runs that file: for others' folders that is their code, which is not run here.
    """
    folder = Path(folder)
    name = f"{MODULE}_{uuid.uuid4().hex}"
    spec = importlib.util.spec_from_file_location(name, folder / f"{MODULE}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Transformers looks a class's module up
    try:
        spec.loader.exec_module(module)
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        cls = getattr(module, config["architectures"][0])
        model, told = cls.from_pretrained(folder, dtype=dtype, output_loading_info=True)
    finally:
        del sys.modules[name]
    if left := [*told["missing_keys"], *told["unexpected_keys"], *told["mismatched_keys"]]:
        raise SteeringError(f"the folder does not hold the weights of its model: {left[0]}")
    return model.eval()


def _require_same(model: Any, edits: Mapping[int, AffineEdit], folder: Path) -> tuple[float, float]:
    """off and moved, as those of `Written`.

    Raises: SteeringError unless the folder gives the logits that the hooks give.
    """
    dtype = next(model.parameters()).dtype
    again = load_edited(folder, dtype).to(next(model.parameters()).device)
    with steer(model, as_edits(edits)):
        hooked = logits_of(model)
    size = float(hooked.abs().max())
    off = float((logits_of(again) - hooked).abs().max()) / size
    moved = float((hooked - logits_of(model)).abs().max()) / size
    rounding = AGREES_WITHIN if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    if not off <= rounding or (off > AGREES_WITHIN and off > moved / 4):
        raise SteeringError(
            f"the checkpoint of {type(model).__name__} that was written gives other logits than "
            f"the hooks do (by {off:.1g} of their size, where they move them by {moved:.1g}); use "
            "the hooks"
        )
    return off, moved


@torch.no_grad()
def logits_of(model: Any) -> Tensor:
    """[1 token vocabulary] of a short text that means nothing."""
    n_words = int(model.config.get_text_config().vocab_size)
    ids = torch.arange(1, 13, device=next(model.parameters()).device)[None] * 7 % n_words
    logits: Tensor = model(input_ids=ids, use_cache=False).logits.float()
    return logits
