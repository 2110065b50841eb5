"""Permanent edits: weights that do what a hook would, in a copy of a plain Hugging Face model.

A removed direction is one that no module can write: with orthonormal rows V [rank d_model],
W <- W - V^T V W for every weight W [d_model in] that writes to the residual stream, and
b <- b - V^T V b for its bias. The model then equals the one whose every write is ablated.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import ModelError, SteeringError
from persona.files import atomic_directory
from persona.models.hooks import is_bridge, model_width
from persona.models.sites import attention_writer, decoder_blocks, mlp_writer
from steering.edit import unit_rows

_OUTPUT_PROJECTIONS = ("o_proj", "out_proj", "dense", "down_proj", "dense_4h_to_h", "c_proj")


@dataclass(frozen=True)
class Writer:
    """A module that writes to the residual stream.

    name: its place in the model. layer: its block, None for an embedding.
    """

    name: str
    module: Any
    layer: int | None

    @property
    def writes_rows(self) -> bool:
        """Whether d_model is the last axis of the weight: embeddings, and GPT-2's Conv1D."""
        return not isinstance(self.module, nn.Linear)

    def read(self, basis: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank entry"]:
        """V W: what the module writes along each row of the basis, in float32."""
        weight = self.module.weight.float()
        return basis @ (weight.T if self.writes_rows else weight)


def orthogonalise(
    hf_model: Any, vectors: Tensor, *, embedding: bool = True, layers: Sequence[int] | None = None
) -> Any:
    """A copy of the model that cannot write along `vectors` [d_model] or [rank d_model].

    With all blocks and the embedding it equals `ablate_direction` at `every_write`, the first
    token included; without the embedding, at every attention and MLP output. A head tied to the
    embedding is untied first, so that it still reads what it read.
    layers: blocks whose writes are edited; default all.
    Raises: SteeringError where a norm stands between the weights and the residual stream
        (Gemma 2 and 3), so that no weights can equal the ablation; and for a bad vector.
    Source: Arditi et al. 2024, weight orthogonalisation. differs: biases too, rank k, untied head.
    """
    basis = checked_basis(hf_model, vectors)
    writers_of(hf_model, embedding=embedding, layers=layers)  # refused before copying
    edited = copy.deepcopy(hf_model)
    if embedding:
        _untie(edited)
    with torch.no_grad():
        for writer in writers_of(edited, embedding=embedding, layers=layers):
            along = basis.to(writer.module.weight.device)
            change = along.T @ writer.read(along)
            _subtract(writer.module.weight, change.T if writer.writes_rows else change)
            bias = getattr(writer.module, "bias", None)
            if bias is not None:
                _subtract(bias, (along @ bias.float()) @ along)
    return edited


def add_bias(hf_model: Any, layer: int, vector: Float[Tensor, " d_model"]) -> Any:
    """A copy of the model that adds `vector` to the output of block `layer`, at every token.

    It is the bias of the MLP's output projection, made where there was none; equals
    `add_direction` after that block, the first token included.
    Raises: SteeringError as `orthogonalise` does, and for a layer that the model lacks.
    """
    checked_basis(hf_model, vector)
    mlp_projection(hf_model, layer)
    edited = copy.deepcopy(hf_model)
    module = mlp_projection(edited, layer).module
    shift = vector.to(module.weight)
    old = getattr(module, "bias", None)
    bias = shift.clone() if old is None else old.detach() + shift
    module.bias = nn.Parameter(bias, requires_grad=False)
    if old is None and getattr(edited.config, "mlp_bias", None) is False:
        _give_every_mlp_a_bias(edited)
    return edited


def save_model(model: Any, folder: str | Path, tokenizer: Any = None) -> Path:
    """Write a plain model as a folder of safetensors that `from_pretrained` reads; returns it.

    The folder appears whole or not at all.
    Raises: SteeringError when the architecture has no place for a weight that was added.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        known = set(AutoModelForCausalLM.from_config(model.config).state_dict())
    if foreign := sorted(set(model.state_dict()) - known):
        raise SteeringError(
            f"a folder of {model.config.model_type} has no place for {foreign[0]}"
            + (f" and {len(foreign) - 1} others" if foreign[1:] else "")
            + "; save the edit as a LoRA adapter instead (save_bias_adapter)"
        )
    target = Path(folder)
    with atomic_directory(target) as temporary:
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
    return target


def writers_of(
    hf_model: Any, *, embedding: bool = True, layers: Sequence[int] | None = None
) -> list[Writer]:
    """The modules whose weights write to the residual stream: embeddings, attention, MLP.

    Raises: SteeringError where a norm comes after them, for a layer the model lacks, or for
        quantised weights.
    """
    if is_bridge(hf_model):
        raise SteeringError("weights are edited in a plain Hugging Face model, not under a bridge")
    names = {module: name for name, module in hf_model.named_modules()}
    writers = []
    if embedding:
        tables = [hf_model.get_input_embeddings()]
        tables += [m for m, name in names.items() if name.endswith("transformer.wpe")]
        writers = [Writer(names[table], table, None) for table in tables]
    blocks = decoder_blocks(hf_model)
    for layer in range(len(blocks)) if layers is None else layers:
        if not 0 <= layer < len(blocks):
            raise SteeringError(f"layer {layer} is out of range: blocks 0 to {len(blocks) - 1}")
        for part in (attention_writer(blocks[layer]), mlp_writer(blocks[layer])):
            projection: Any = _output_projection(part, names[part])
            if not projection.weight.is_floating_point():
                raise SteeringError("quantised weights cannot be edited; load them in full")
            writers.append(Writer(names[projection], projection, layer))
    return writers


def mlp_projection(hf_model: Any, layer: int) -> Writer:
    """The module that writes what the MLP of a block adds to the residual stream."""
    return writers_of(hf_model, embedding=False, layers=[layer])[1]


def checked_basis(hf_model: Any, vectors: Tensor) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows of the span of the vectors, of this model's width.

    Raises: SteeringError for another width, and for vectors that are zero, not finite or dependent.
    """
    basis = unit_rows(vectors.detach().float())
    if basis.shape[1] != model_width(hf_model):
        raise SteeringError(
            f"the vectors have d_model={basis.shape[1]} but the model has "
            f"d_model={model_width(hf_model)}. Extract a direction from this model"
        )
    return basis


def _output_projection(part: nn.Module, name: str) -> nn.Module:
    for child in _OUTPUT_PROJECTIONS:
        if hasattr(part, child):
            return part.get_submodule(child)
    if "layernorm" in name:
        raise SteeringError(
            f"{name} normalises what attention and MLP write, with a gain of its own, so no "
            "weights equal the edit exactly; use the hooks (ablate_direction, add_direction)"
        )
    raise ModelError(f"{name} has no output projection that is known here")


def _subtract(parameter: Tensor, change: Tensor) -> None:
    parameter.copy_((parameter.float() - change).to(parameter.dtype))


def _untie(model: Any) -> None:
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(table.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _give_every_mlp_a_bias(model: Any) -> None:
    """Llama's `mlp_bias` covers all projections of all MLPs; those without a bias get zero."""
    model.config.mlp_bias = True
    for block in decoder_blocks(model):
        for module in mlp_writer(block).children():
            if isinstance(module, nn.Linear) and module.bias is None:
                zeros = torch.zeros(module.out_features).to(module.weight)
                module.bias = nn.Parameter(zeros, requires_grad=False)
