"""A pair proves itself: both sides compute what plain Transformers and PEFT compute.

The reference is taken before a TransformerBridge is built, from the model as Transformers loaded it
and, with an adapter, from PEFT's own model over it. What the bridge then gives is held against it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import ModelError
from persona.models.chat.tokenising import panics_as_errors
from persona.models.hooks import hooked, model_device, resid_post

TEXT = "The garage opens at 8:30. Is 17 a prime number? Yes, it is;"
"""What both are run on, in the model's own tokens."""

N_TOKENS = 16

MAX_TRAINED = 8
"""Tokens added because an adapter trained their rows: a text without them would not show it."""

ROUNDING = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
"""Largest difference between two right ways to compute the same logits, in units of the largest
centred logit: another order of sums, another attention kernel, merged or not. On the default pair
merging moves 2e-6, 0.03 and 0.004 of it; switching moves nothing."""


@dataclass(frozen=True)
class PlainOutputs:
    """What plain Transformers (and PEFT) make of the text.

    ids: [1 pos].
    logits: float32, on the CPU.
    blocks: resid_post of every block but the last, [pos d_model] on the CPU; empty where the model
        does not give them. They are read only to say where a difference begins.
    ran: the adapted modules that took part, by name.
    """

    ids: Tensor
    logits: Float[Tensor, "pos vocab"]
    blocks: tuple[Float[Tensor, "pos d_model"], ...]
    ran: dict[str, nn.Module]


def proof_tokens(tokenizer: Any, config: Any, trained: Sequence[int] = ()) -> Tensor:
    """The text as ids [1 pos], within the model's vocabulary and context.

    trained: ids whose rows an adapter has trained; the first of them are put in.
    """
    text = config.get_text_config()
    vocabulary = int(text.vocab_size)
    length = min(N_TOKENS, int(getattr(text, "max_position_embeddings", None) or N_TOKENS))
    with panics_as_errors():
        ids = [i for i in tokenizer.encode(TEXT) if i < vocabulary]
    if len(ids) < 2:
        ids = torch.linspace(0, vocabulary - 1, N_TOKENS).long().tolist()
    wanted = [i for i in trained if 0 <= i < vocabulary][: min(MAX_TRAINED, length // 2)]
    return torch.tensor([ids[: length - len(wanted)] + wanted])


@torch.no_grad()
def reference(
    model: Any, ids: Tensor, name: str, adapted: Mapping[str, nn.Module] | None = None
) -> PlainOutputs:
    """Run a plain model (or PEFT's) on the text.

    adapted: what `adapted_modules` gives of a PeftModel whose adapter is on.
    Raises: ModelError where it cannot be run, or where a logit is no number but the -inf of a
        word that the model never writes, with the name of the tensor that is to blame.
    """
    adapted = adapted or {}
    place = model_device(model)
    try:
        with _noting(adapted.items()) as ran:
            out = model(input_ids=ids.to(place), use_cache=False, output_hidden_states=True)
    except Exception as error:  # weights that are not what config.json says fail in any way
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{name} cannot be run in plain Transformers: {type(error).__name__}: {reason}"
        ) from error
    logits = out.logits[0].float().cpu()
    if not (logits.isfinite() | logits.isneginf()).all() or logits.isneginf().all(-1).any():
        raise ModelError(f"{name} gives logits that are not finite: {_reason(model, logits)}")
    states = getattr(out, "hidden_states", None) or ()
    blocks = tuple(state[0].float().cpu() for state in states[1:-1])
    return PlainOutputs(ids, logits, blocks, {k: m for k, m in adapted.items() if k in ran})


@torch.no_grad()
def fault_of(bridge: Any, expected: PlainOutputs, dtype: torch.dtype) -> str | None:
    """What a bridge does otherwise than its reference, beyond rounding; None where it is right.

    The words name the first module that is passed over, or the block at which the difference
    begins, and its size. In half precision a mixture of experts may send single tokens to other
    experts, so there the median token counts.
    """
    with _noting(expected.ran.items()) as ran:
        logits = bridge(expected.ids.to(model_device(bridge)))[0].float().cpu()
    passed_over = [
        name for name, module in expected.ran.items() if name not in ran and _has_matrix(module)
    ]
    if passed_over:
        more = f" and {len(passed_over) - 1} more" if len(passed_over) > 1 else ""
        return f"what the adapter adds to {passed_over[0]}{more} has no effect under the hooks"
    size, bound = _distance(logits, expected.logits, dtype, _has_router(bridge))
    if size <= bound:  # NaN is no such number
        return None
    return (
        f"the logits differ by {size:.2g} where rounding explains {bound:.2g}"
        f"{_where_it_begins(bridge, expected, dtype)}"
    )


def adapted_modules(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that PEFT put in place of the model's own, by the name of what they replace."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils.other import AuxiliaryTrainingWrapper

    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, (BaseTunerLayer, AuxiliaryTrainingWrapper))
    }


def non_finite_tensor(model: nn.Module) -> str | None:
    """Name of the first parameter or buffer with a NaN or an infinity in it."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            return name
    return None


@contextlib.contextmanager
def _noting(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[set[str]]:
    """Yield the set of names that fills with the modules that run."""
    ran: set[str] = set()
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: ran.add(name))
        for name, module in modules
    ]
    try:
        yield ran
    finally:
        for handle in handles:
            handle.remove()


def _has_matrix(module: nn.Module) -> bool:
    """The bridge reads the weight of a norm without calling it, so only matrices must be called."""
    return any(p.dim() > 1 for name, p in module.named_parameters())


def _has_router(bridge: Any) -> bool:
    config = bridge.original_model.config.get_text_config()
    return any(getattr(config, k, None) for k in ("num_local_experts", "num_experts"))


def _distance(
    got: Tensor, expected: Tensor, dtype: torch.dtype, routed: bool
) -> tuple[float, float]:
    """Largest difference of two tables [pos d], and what rounding may make of it.

    What is -inf in one must be in the other, and counts no further.
    """
    if got.shape != expected.shape or not torch.equal(got.isneginf(), expected.isneginf()):
        return float("inf"), 0.0
    ruled_out = expected.isneginf()
    by_token = (got - expected).abs().masked_fill(ruled_out, 0).amax(-1)
    size = by_token.median() if routed and dtype != torch.float32 else by_token.max()
    centre = expected.masked_fill(ruled_out, torch.nan).nanmean(-1, keepdim=True)
    scale = (expected - centre).abs().masked_fill(ruled_out, 0).max()
    return float(size), ROUNDING[dtype] * float(scale)


def _where_it_begins(bridge: Any, expected: PlainOutputs, dtype: torch.dtype) -> str:
    """ ", from blocks.3 on"; empty where the model gave no states to compare."""
    kept: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        return lambda resid: kept.__setitem__(layer, resid[0].float().cpu())

    points = [(resid_post(layer), keep(layer)) for layer in range(len(expected.blocks))]
    if not points:
        return ""
    with hooked(bridge, points):
        bridge(expected.ids.to(model_device(bridge)))
    for layer, state in enumerate(expected.blocks):
        size, bound = _distance(kept[layer], state, dtype, routed=False)
        if not size <= bound:
            return f", from blocks.{layer} on"
    return f", from blocks.{len(expected.blocks)} on"


def _reason(model: nn.Module, logits: Tensor) -> str:
    tensor = non_finite_tensor(model)
    if tensor is None:
        return "its weights are finite, so the number format overflows; try bfloat16 or float32"
    return f"{tensor.removeprefix('base_model.model.')} has NaN or infinity in it"
