"""Permanent edits: weights that do what a hook would, in a copy of a plain Hugging Face model.

A removed direction is one that no module can write: with orthonormal rows V [rank d_model],
W <- W - V^T V W for every weight W [d_model in] that writes to the residual stream, and
b <- b - V^T V b for its bias. The model then equals the one whose every write is ablated.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import ModelError, SteeringError
from persona.files import atomic_directory
from persona.models.hooks import hooked, is_bridge, model_width, resid_post
from persona.models.sites import decoder_blocks
from persona.models.writes import Part, Write, block_writes, run_short_text
from steering.edits.edit import orthonormal_rows

_PARTS: tuple[Part, ...] = ("attention", "mlp")
_EXPERTS_OUT = "down_proj"
"""What Transformers names the table [expert ...] of all experts' output projections."""


@dataclass(frozen=True)
class Writer:
    """A module that writes to the residual stream.

    name: its place in the model. layer: its block, None for an embedding. scale: what the block
    multiplies its output with.
    """

    name: str
    module: Any
    layer: int | None
    scale: float = 1.0

    @property
    def is_experts(self) -> bool:
        """Whether these are the experts of a mixture, each with an output projection of its own."""
        return hasattr(self.module, _EXPERTS_OUT) and not hasattr(self.module, "weight")

    @property
    def writes_rows(self) -> bool:
        """Whether d_model is the last axis of the weight: embeddings, and GPT-2's Conv1D."""
        return not isinstance(self.module, nn.Linear)

    def read(self, basis: Float[Tensor, "rank d_model"]) -> Float[Tensor, "rank entry"]:
        """V W: what the module writes along each row of the basis, in float32."""
        weight = self.module.weight.float()
        return basis @ (weight.T if self.writes_rows else weight)

    def parameters(self) -> list[tuple[Tensor, int]]:
        """Every weight and bias that makes the output, each with its axis of length d_model."""
        if not self.is_experts:
            bias = getattr(self.module, "bias", None)
            weight = (self.module.weight, 1 if self.writes_rows else 0)
            return [weight] if bias is None else [weight, (bias, 0)]
        down, up = self.module.down_proj, getattr(self.module, "gate_up_proj", None)
        if up is None:
            up = self.module.up_proj
        # [expert d_model d_mlp] where what goes in is [expert 1 or 2 d_mlp, d_model]
        transposed = up.shape[1] % down.shape[2] != 0 or up.shape[2] != down.shape[1]
        bias = getattr(self.module, f"{_EXPERTS_OUT}_bias", None)
        weight = (down, 2 if transposed else 1)
        return [weight] if bias is None else [weight, (bias, 1)]


def orthogonalise(
    hf_model: Any, vectors: Tensor, *, embedding: bool = True, layers: Sequence[int] | None = None
) -> Any:
    """A copy of the model that cannot write along `vectors` [d_model] or [rank d_model].

    With all blocks and the embedding it equals `ablate` at `EVERY_WRITE`, the first
    token included; without the embedding, at every attention and MLP output. A head tied to the
    embedding is untied first, so that it still reads what it read.
    layers: blocks whose writes are edited; default all.
    Raises: SteeringError where a norm stands between the weights and the residual stream
        (Gemma 2 and 3, GLM-4), so that no weights can equal the ablation; for a bad vector; and
        where the edited copy, run once, still writes along the vectors.
    Source: Arditi et al. 2024, weight orthogonalisation. differs: biases too, rank k, untied head,
    experts of mixtures.
    """
    basis = checked_basis(hf_model, vectors)
    writers_of(hf_model, embedding=embedding, layers=layers)  # refused before copying
    edited = copy.deepcopy(hf_model)
    if embedding:
        _untie(edited)
    with torch.no_grad():
        for writer in writers_of(edited, embedding=embedding, layers=layers):
            for parameter, axis in writer.parameters():
                _remove(parameter, basis.to(parameter.device), axis)
    _require_removed(edited, basis, embedding, layers)
    return edited


def add_bias(hf_model: Any, layer: int, vector: Float[Tensor, " d_model"]) -> Any:
    """A copy of the model that adds `vector` to the output of block `layer`, at every token.

    It is the bias of the MLP's output projection, made where there was none; equals
    `add` after that block, the first token included.
    Raises: SteeringError as `orthogonalise` does, for a layer that the model lacks, and for a
        mixture of experts, which has no one output projection.
    """
    checked_basis(hf_model, vector)
    mlp_projection(hf_model, layer)
    edited = copy.deepcopy(hf_model)
    writer = mlp_projection(edited, layer)
    module = writer.module
    shift = (vector.float() / writer.scale).to(module.weight)
    old = getattr(module, "bias", None)
    bias = shift.clone() if old is None else old.detach() + shift
    module.bias = nn.Parameter(bias, requires_grad=False)
    if old is None and getattr(edited.config, "mlp_bias", None) is False:
        _give_every_mlp_a_bias(edited)
    _require_moved(hf_model, edited, layer, vector)
    return edited


def save_model(
    model: Any,
    folder: str | Path,
    tokenizer: Any = None,
    check: Callable[[Path], None] = lambda written: None,
) -> Path:
    """Write a plain model as a folder of safetensors that `from_pretrained` reads; returns it.

    The folder appears whole or not at all.
    check: looks at what was written before it appears; what it raises leaves nothing behind.
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
    require_no_shared_memory(model)
    target = Path(folder)
    with atomic_directory(target) as temporary:
        model.save_pretrained(temporary)
        if tokenizer is not None:
            tokenizer.save_pretrained(temporary)
        check(temporary)
    return target


def require_no_shared_memory(model: Any) -> None:
    """Raises: SteeringError where head and table are two parameters over one memory, but not tied:
    of those a folder keeps one, and the other would be loaded at random."""
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    if head is None or head.weight is table or head.weight.data_ptr() != table.data_ptr():
        return
    raise SteeringError(
        f"head and embedding of {type(model).__name__} lie over the same memory without being "
        "tied; clone one of them, or set the head's weight to the table's"
    )


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
    blocks, writes = decoder_blocks(hf_model), block_writes(hf_model)
    for layer in range(len(blocks)) if layers is None else layers:
        if not 0 <= layer < len(blocks):
            raise SteeringError(f"layer {layer} is out of range: blocks 0 to {len(blocks) - 1}")
        for part in _PARTS:
            write = writes[layer].of(part, layer)
            for module in _projections(blocks[layer], write, names):
                writer = Writer(names[module], module, layer, write.site.scale)
                if not all(p.is_floating_point() for p, _ in writer.parameters()):
                    raise SteeringError("quantised weights cannot be edited; load them in full")
                writers.append(writer)
    return writers


def mlp_projection(hf_model: Any, layer: int) -> Writer:
    """The module that writes what the MLP of a block adds to the residual stream.

    Raises: SteeringError as `writers_of`, and where that is a mixture of experts.
    """
    attention_and_mlp = writers_of(hf_model, embedding=False, layers=[layer])
    write = block_writes(hf_model)[layer].of("mlp", layer)
    block = decoder_blocks(hf_model)[layer]
    made_by = {id(block.get_submodule(name)) for name in write.made_by}
    for writer in attention_and_mlp:
        if id(writer.module) in made_by:
            return writer
    raise SteeringError(
        f"the MLP of block {layer} is a {type(write.site.module).__name__}, a mixture of experts "
        "without one output projection that could hold a bias; use the hook (add)"
    )


def checked_basis(hf_model: Any, vectors: Tensor) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows of the span of the vectors, of this model's width.

    Raises: SteeringError for another width, and for vectors that are zero, not finite or dependent.
    """
    basis = orthonormal_rows(vectors.detach().float())
    if basis.shape[1] != model_width(hf_model):
        raise SteeringError(
            f"the vectors have d_model={basis.shape[1]} but the model has "
            f"d_model={model_width(hf_model)}. Extract a direction from this model"
        )
    return basis


def _projections(block: nn.Module, write: Write, names: dict[nn.Module, str]) -> list[Any]:
    """The modules whose weights make a write: one projection, or what a mixture has of them."""
    made_by = [block.get_submodule(name) for name in write.made_by]
    linear = [m for m in made_by if isinstance(m, nn.Linear) or type(m).__name__ == "Conv1D"]
    if linear:
        return linear[-1:]  # the innermost: PEFT and bitsandbytes wrap it in others
    inside = list(write.site.module.named_modules())
    experts = [m for _, m in inside if isinstance(getattr(m, _EXPERTS_OUT, None), nn.Parameter)]
    if experts:
        shared = [m for n, m in inside if n.endswith(_EXPERTS_OUT) and isinstance(m, nn.Linear)]
        return [*experts, *shared]
    name = names[write.site.module]
    if not list(write.site.module.children()):
        raise SteeringError(
            f"{name} normalises what attention and MLP write, with a gain of its own, so no "
            "weights equal the edit exactly; use the hooks (ablate, add)"
        )
    raise ModelError(f"{name} has no output projection that is known here")


def _remove(parameter: Tensor, basis: Float[Tensor, "rank d_model"], axis: int) -> None:
    """Take the projection on the basis away, along the axis of length d_model."""
    last = parameter.movedim(axis, -1)
    change = (last.float() @ basis.T) @ basis
    last.copy_((last.float() - change).to(last.dtype))


def _require_removed(
    edited: Any,
    basis: Float[Tensor, "rank d_model"],
    embedding: bool,
    layers: Sequence[int] | None,
) -> None:
    """Raise SteeringError where the edited copy, run once, still writes along the basis."""
    chosen = range(len(decoder_blocks(edited))) if layers is None else layers
    names = [f"blocks.{i}.{part}" for i in chosen for part in ("hook_attn_out", "hook_mlp_out")]
    if embedding:
        names.insert(0, "blocks.0.hook_resid_pre")
    for name, written in _seen_at(edited, names).items():
        along = (written.float() @ basis.to(written.device).T).norm()
        left = float(along / written.float().norm().clamp(min=1e-30))
        if left > 1e-5 + 16 * torch.finfo(written.dtype).eps:
            raise SteeringError(
                f"the weights of {type(edited).__name__} that are known here are not all that "
                f"writes at {name}: a share of {left:.2g} is left along the vectors; use the hook "
                "(ablate)"
            )


def _require_moved(plain: Any, edited: Any, layer: int, vector: Tensor) -> None:
    """Raise SteeringError unless the copy's block adds the vector, to the rounding of its sums."""
    name = resid_post(layer)
    before, after = (_seen_at(model, [name])[name].float() for model in (plain, edited))
    rest = (after - before - vector.to(before)).norm(dim=-1)
    rounding = 8 * torch.finfo(next(edited.parameters()).dtype).eps
    if bool((rest > 1e-4 * vector.float().norm() + rounding * before.norm(dim=-1)).any()):
        raise SteeringError(
            f"a bias in the MLP of block {layer} of {type(edited).__name__} does not reach the "
            f"residual stream as it is (off by {float(rest.max()):.2g}); use the hook "
            "(add)"
        )


def _seen_at(model: Any, names: Sequence[str]) -> dict[str, Tensor]:
    """Hook name -> the activation of a short text there."""
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        return lambda value: seen.__setitem__(name, value.detach().clone())

    with hooked(model, [(name, keep(name)) for name in names]):
        run_short_text(model, heard=True)
    return seen


def _untie(model: Any) -> None:
    head, table = model.get_output_embeddings(), model.get_input_embeddings()
    if head is not None and head.weight is table.weight:
        head.weight = nn.Parameter(table.weight.detach().clone(), requires_grad=False)
        model.config.tie_word_embeddings = False


def _give_every_mlp_a_bias(model: Any) -> None:
    """Llama's `mlp_bias` covers all projections of all MLPs; those without a bias get zero."""
    model.config.mlp_bias = True
    for block in decoder_blocks(model):
        for module in block.get_submodule("mlp").children():
            if isinstance(module, nn.Linear) and module.bias is None:
                zeros = torch.zeros(module.out_features).to(module.weight)
                module.bias = nn.Parameter(zeros, requires_grad=False)
