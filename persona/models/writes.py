"""What attention and MLP add to the residual stream, found by measurement.

A block writes twice: resid_pre + attn_out + mlp_out = resid_post. Which of its modules' outputs
those two are differs between architectures: a norm may follow (Gemma 2, GLM-4, OLMo 2), a
multiplier (Granite), or the module may add the residual stream itself (BLOOM). Names do not tell.
So one short text is run, and the two outputs are those, and those multiples of them, that add up.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import ModelError
from persona.models.sites import Site, decoder_blocks

Part = Literal["attention", "mlp"]
_N_TOKENS = 8
_measuring: ContextVar[bool] = ContextVar("measuring", default=False)


@dataclass(frozen=True)
class Write:
    """One of the two writes of a block.

    site: where it can be read and edited, in units of the residual stream.
    made_by: names, in the block, of all modules whose output it is (before the multiplier), from
        the outermost to the innermost.
    """

    site: Site
    made_by: tuple[str, ...]


@dataclass(frozen=True)
class BlockWrites:
    """The two writes of a block; None with what is missing where they were not found.

    rest: what two outputs at best leave of the block's step, as a share of it.
    """

    attention: Write | None
    mlp: Write | None
    rest: float
    block: str

    def of(self, part: Part, layer: int) -> Write:
        """One of them. Raises: ModelError where no two outputs add up to the block's step."""
        found = self.attention if part == "attention" else self.mlp
        if found is None:
            raise ModelError(
                f"block {layer} ({self.block}) does not add the outputs of two of its modules to "
                f"the residual stream: what the best two leave is {self.rest:.2g} of its step, so "
                "what attention or MLP writes cannot be told; use hook_resid_pre or hook_resid_post"
            )
        return found


_found: WeakKeyDictionary[Any, list[BlockWrites]] = WeakKeyDictionary()


def measuring() -> bool:
    """Whether the pass now running is a measurement, which nobody may edit or count."""
    return _measuring.get()


def block_writes(model: Any) -> list[BlockWrites]:
    """By block: its two writes. model: a bridge or a plain model; what was measured is kept."""
    if model not in _found:
        measured = measure_writes(model)
        if any(writes.attention is None for writes in measured):
            return measured  # perhaps not so in another state of the model
        _found[model] = measured
    return _found[model]


def measure_writes(model: Any) -> list[BlockWrites]:
    """The same, measured anew."""
    blocks = list(model.blocks) if hasattr(type(model), "hook_dict") else decoder_blocks(model)
    with contextlib.ExitStack() as stack:
        seen = [stack.enter_context(_watching(block)) for block in blocks]
        run_short_text(model)
    return [_writes_of(block, *one) for block, one in zip(blocks, seen, strict=True)]


@torch.no_grad()
def run_short_text(model: Any, *, heard: bool = False) -> None:
    """One plain pass over eight tokens.

    heard: whether hooks of `hooked` and of steering are called, or stay silent.
    """
    lm = getattr(model, "original_model", model)
    table = lm.get_input_embeddings().weight
    n_tokens = int(lm.config.get_text_config().vocab_size)
    ids = torch.arange(1, 1 + _N_TOKENS, device=table.device)[None] * 7 % n_tokens
    training = [module for module in lm.modules() if module.training]
    token = _measuring.set(not heard)
    try:
        for module in training:
            module.training = False  # dropout would hide which outputs add up
        lm(input_ids=ids, use_cache=False)
    finally:
        for module in training:
            module.training = True
        _measuring.reset(token)


@contextlib.contextmanager
def _watching(block: nn.Module) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor]]]:
    ends: dict[str, Tensor] = {}
    outputs: dict[str, Tensor] = {}
    twice: set[str] = set()

    def before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        ends["pre"] = _kept(args[0] if args else kwargs["hidden_states"])

    def after(module: Any, args: Any, output: Any) -> None:
        ends["post"] = _kept(_first(output))

    def keep(name: str) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            value = _first(output)
            pre = ends.get("pre")
            if name in outputs:
                twice.add(name)  # one dropout for both writes, for instance: an edit would hit both
            if isinstance(value, Tensor) and pre is not None and value.shape == pre.shape:
                outputs[name] = _kept(value)  # a copy: some blocks add in place

        return hook

    handles = [
        block.register_forward_pre_hook(before, with_kwargs=True),
        block.register_forward_hook(after),
        *(m.register_forward_hook(keep(name)) for name, m in block.named_modules() if name),
    ]
    try:
        yield ends, outputs
    finally:
        for handle in handles:
            handle.remove()
        for name in twice:
            outputs.pop(name, None)


def _writes_of(
    block: nn.Module, ends: dict[str, Tensor], outputs: dict[str, Tensor]
) -> BlockWrites:
    if set(ends) != {"pre", "post"}:
        raise ModelError(f"{type(block).__name__} was not run as a block of its model")
    eps = torch.finfo(ends["pre"].dtype).eps
    groups = _equal_outputs(ends, outputs)
    pre, post = _wide(ends["pre"]), _wide(ends["post"])
    wide = [_wide(outputs[names[0]]) for names in groups]
    ended = {name: place for place, name in enumerate(outputs)}  # modules end in this order
    pairs = [
        (a, m)
        for a, m in itertools.permutations(range(len(groups)), 2)
        if ended[groups[a][0]] < ended[groups[m][0]]
    ]
    step, size = post - pre, pre.norm(dim=-1) + post.norm(dim=-1)

    def left_over(a: int, m: int, scales: tuple[float, float]) -> Tensor:
        return (step - scales[0] * wide[a] - scales[1] * wide[m]).norm(dim=-1)

    tried: list[tuple[float, int, int, tuple[float, float]]] = []
    for scaled in (False, True):
        tried = []
        for a, m in pairs:
            scales = _scales(step, wide[a], wide[m]) if scaled else (1.0, 1.0)
            if scales is not None:
                tried.append((float((left_over(a, m, scales) / size).max()), a, m, scales))
        best = min((rest for rest, *_ in tried), default=math.inf)
        if best <= 4 * eps:  # the two roundings of the two sums, and a multiplier's
            _, a, m, scales = next(one for one in tried if one[0] <= max(2 * best, eps / 4))
            return BlockWrites(
                _write(block, groups[a], scales[0]),
                _write(block, groups[m], scales[1]),
                0.0,
                type(block).__name__,
            )
    shares = [float(left_over(a, m, scales).norm() / step.norm()) for _, a, m, scales in tried]
    return BlockWrites(None, None, min(shares, default=1.0), type(block).__name__)


def _equal_outputs(ends: dict[str, Tensor], outputs: dict[str, Tensor]) -> list[list[str]]:
    """Names of modules with one output, outermost first, but for the block's own two ends."""
    groups: list[list[str]] = []
    places = {name: place for place, name in enumerate(outputs)}
    for name in sorted(outputs, key=lambda name: (name.count("."), places[name])):
        if any(torch.equal(outputs[name], end) for end in ends.values()):
            continue
        same = [group for group in groups if torch.equal(outputs[group[0]], outputs[name])]
        if same:
            same[0].append(name)
        else:
            groups.append([name])
    return groups


def _scales(step: Tensor, attention: Tensor, mlp: Tensor) -> tuple[float, float] | None:
    """The multiples of both outputs that come nearest to the block's step."""
    both = torch.stack([attention.flatten(), mlp.flatten()], dim=1)
    if not bool(both.isfinite().all()) or not bool(both.any(dim=0).all()):
        return None
    scales = torch.linalg.lstsq(both, step.flatten()[:, None]).solution[:, 0].tolist()
    return (_tidy(scales[0]), _tidy(scales[1])) if all(scales) else None


def _tidy(scale: float) -> float:
    """Without the rounding of the sum: a multiplier is a number that somebody wrote down."""
    return float(f"{scale:.4g}") if abs(scale - float(f"{scale:.4g}")) < 1e-5 else scale


def _write(block: nn.Module, made_by: Sequence[str], scale: float) -> Write:
    return Write(Site(block.get_submodule(made_by[0]), "output", scale), tuple(made_by))


def _wide(value: Tensor) -> Tensor:
    return value.cpu().double()


def _first(output: Any) -> Any:
    return output[0] if isinstance(output, tuple) else output


def _kept(value: Tensor) -> Float[Tensor, "1 pos d_model"]:
    return value.detach().clone()
