"""Putting a LoRA adapter on the model it belongs to, and noticing where it does not."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from persona.errors import ModelError
from persona.models.sources import Source


def attach_adapter(
    model: Any, adapter: Source, base: Source, *, trainable: bool = False
) -> tuple[Any, list[str]]:
    """Returns the PeftModel and what a reader must know of it.

    trainable: whether its weights get gradients, for training it further.
    Raises: ModelError when the adapter is damaged or is of another model: other shapes, other
        modules, or weights for blocks that this one does not have.
    """
    from peft import PeftModel

    try:
        config = json.loads((adapter.path / "adapter_config.json").read_text(encoding="utf-8"))
        with warnings.catch_warnings():
            # PEFT asks Transformers for an attribute by its old name, which is nobody's fault here.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            peft_model = PeftModel.from_pretrained(model, str(adapter.path), is_trainable=trainable)
    except Exception as error:
        reason = " ".join(str(error).split())[:240]
        raise ModelError(
            f"the adapter {adapter.name} does not fit {base.name}: {type(error).__name__}: {reason}"
        ) from error
    _require_every_weight(peft_model, adapter, base)
    trained_on = str(config.get("base_model_name_or_path") or "")
    if trained_on and Path(trained_on).name != Path(base.name).name:
        return peft_model, [f"the adapter names {trained_on} as its base; it is put on {base.name}"]
    return peft_model, []


def _require_every_weight(peft_model: Any, adapter: Source, base: Source) -> None:
    """PEFT only warns of weights that find no place, and then half of an adapter is lost."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(adapter.path / "adapter_model.safetensors", framework="pt") as file:
        there = set(file.keys())
    placed = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    if lost := sorted(there - placed):
        raise ModelError(
            f"the adapter {adapter.name} does not fit {base.name}: {len(lost)} of its "
            f"{len(there)} weights have no place there, such as {lost[0]}; name the model that it "
            "was trained on"
        )
