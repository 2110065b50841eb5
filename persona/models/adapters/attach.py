"""Putting an adapter on the model it belongs to, and noticing where it does not."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from persona.errors import ModelError
from persona.models.adapters.adapter_files import AdapterFiles, require_quick_patterns
from persona.models.sources import Source

TensorState = tuple[int, int, float, float]


def attach_adapter(
    model: Any, files: AdapterFiles, base: Source, *, trainable: bool = False
) -> tuple[Any, list[str]]:
    """Returns the PeftModel and what a reader must know of it.

    trainable: whether its weights get gradients, for training it further.
    Raises: ModelError when the adapter is damaged or is of another model: other shapes, other
        modules, weights for blocks that this one does not have, or half of them.
    """
    from peft import PeftModel

    require_quick_patterns(files, [name for name, _ in model.named_modules()])
    try:
        with warnings.catch_warnings():
            # PEFT asks Transformers for an attribute by its old name, which is nobody's fault here.
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")
            # What it warns of here, weights without a place, ends in an error below.
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            peft_model = PeftModel.from_pretrained(
                model, str(files.source.path), is_trainable=trainable
            )
    except Exception as error:
        raise ModelError(_why_it_does_not_fit(files, base, error)) from error
    _require_every_weight(peft_model, files, base)
    if _another_base(files, base):
        return peft_model, [
            f"the adapter names {files.trained_on} as its base; it is put on {base.name}"
        ]
    return peft_model, []


def _another_base(files: AdapterFiles, base: Source) -> bool:
    return bool(files.trained_on) and Path(files.trained_on).name != Path(base.name).name


def _advice(files: AdapterFiles, base: Source) -> str:
    if _another_base(files, base):
        return f"it was trained on {files.trained_on}: pass --aligned {files.trained_on}"
    return "name the model that it was trained on with --aligned"


def _why_it_does_not_fit(files: AdapterFiles, base: Source, error: Exception) -> str:
    reason = " ".join(str(error).split())
    resized = "size mismatch" in reason and any(
        place in reason for place in ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")
    )
    advice = _advice(files, base)
    if resized and not _another_base(files, base):
        advice = (
            "if its vocabulary was resized for training, merge it into the resized model "
            "(merge_and_unload, save_pretrained) and pass that folder"
        )
    return (
        f"the adapter {files.source.name} does not fit {base.name}; {advice} "
        f"({type(error).__name__}: {reason[:200]})"
    )


def _require_every_weight(peft_model: Any, files: AdapterFiles, base: Source) -> None:
    """PEFT only warns of weights that find no place, or of places that find no weight."""
    from peft import get_peft_model_state_dict

    there = set(files.shapes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # A second table beside an adapted embedding is the base's own, which PEFT saves along.
        allowed = set(get_peft_model_state_dict(peft_model, save_embedding_layers=True))
        needed = set(get_peft_model_state_dict(peft_model, save_embedding_layers=False))
    name = files.source.name
    if lost := sorted(there - allowed - needed):
        raise ModelError(
            f"the adapter {name} does not fit {base.name}: {len(lost)} of its "
            f"{len(there)} weights have no place there, such as {lost[0]}; {_advice(files, base)}"
        )
    if absent := sorted(needed - there):
        raise ModelError(
            f"the adapter {name} is not whole: {len(absent)} of its {len(needed)} weights are not "
            f"in its file, such as {absent[0]}; save it again with PEFT's save_pretrained"
        )


def base_state(model: Any) -> dict[nn.Parameter, TensorState]:
    """Where every parameter lies and how often it was written, to see what an adapter changes.

    Embeddings carry two sums besides: PEFT writes the table that it saved over the same table.
    """
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    tables = [module.weight for module in ends if module is not None]
    return {p: _state(p, any(p is table for table in tables)) for p in model.parameters()}


def changed_outside(peft_model: nn.Module, before: dict[nn.Parameter, TensorState]) -> str | None:
    """Name of a base parameter that putting the adapter on has changed; None where it is whole.

    Such are biases (bias="all"), and weights from which PiSSA took the adapter's part: switching
    the adapter off does not give them back. See also `AdapterFiles.taken_from_base`.
    """
    names = {p: name for name, p in peft_model.named_parameters(remove_duplicate=False)}
    for parameter, state in before.items():
        now = _state(parameter, bool(state[2]))
        same = state[2:] == now[2:] if state[2] else state == now
        if parameter not in names or not same:
            return names.get(parameter, "a parameter").removeprefix("base_model.model.")
    return None


@torch.no_grad()
def _state(parameter: nn.Parameter, with_sums: bool) -> TensorState:
    sums = (0.0, 0.0)
    if with_sums:
        # Row by row: of a whole table in float64 torch would make a copy, 1.1 GB of a large one.
        sums = (float(parameter.norm()), float(parameter.sum(-1).double().sum()))
    return (parameter.data_ptr(), parameter._version, *sums)


def untie(model: nn.Module) -> bool:
    """Give every module a Parameter of its own, over the same memory; says whether any was shared.

    An adapter merged into an embedding must not change the head that is tied to it: PEFT computes
    the head from the plain table.
    """
    seen: set[int] = set()
    shared = False
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is None:
                continue
            if id(parameter) in seen:
                own = nn.Parameter(parameter.data, requires_grad=parameter.requires_grad)
                module._parameters[name] = own
                shared = True
            else:
                seen.add(id(parameter))
    return shared


def kind_of(peft_model: Any) -> str:
    """PEFT's name of the adapter that is on: LORA, IA3, ..."""
    kind = peft_model.active_peft_config.peft_type
    return str(getattr(kind, "value", kind))


def merged_model(peft_model: Any, name: str) -> Any:
    """The plain Hugging Face model with the adapter's changes in its weights.

    Raises: ModelError where PEFT cannot merge this kind.
    """
    kind = kind_of(peft_model)
    try:
        if untie(peft_model):
            _clone_adapted(peft_model)
            peft_model.get_base_model().config.tie_word_embeddings = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that ties are dangerous; they are cut
            merged = peft_model.merge_and_unload()
        _tie_again(merged)
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        raise ModelError(
            f"the adapter {name} ({kind}) can neither be switched nor merged here: "
            f"{type(error).__name__}: {reason}"
        ) from error
    return merged.eval().requires_grad_(False)


def _tie_again(model: Any) -> None:
    """Where the merge changed neither table nor head they are one again, and the config says so:
    of two parameters over one memory a folder would keep one, and load the other at random."""
    table, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is None or head.weight is table.weight:
        return
    if head.weight.data_ptr() == table.weight.data_ptr():
        head.weight = table.weight
        model.config.tie_word_embeddings = True


def _clone_adapted(peft_model: nn.Module) -> None:
    """Memory of its own for whatever a merge may write in place."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    with torch.no_grad():
        for layer in peft_model.modules():
            if isinstance(layer, BaseTunerLayer):
                for parameter in layer.get_base_layer().parameters(recurse=False):
                    parameter.data = parameter.data.clone()
