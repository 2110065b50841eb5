"""The places of a model in vLLM, under the hook names that are used everywhere here.

A decoder block of vLLM hands on (what its MLP adds, the stream before that), which the next norm
adds up: the residual stream is the sum of the two, and an edited one goes on as (stream, zeros).
Adding the change to one of the two would lose bits where a massive activation sits. Blocks of the
Transformers backend hand on the stream itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from persona.errors import ModelError

LISTS_OF_BLOCKS = ("layers", "h", "blocks")
ELSEWHERE = "PPMissingLayer"
"""What stands in for a block that another pipeline stage holds."""

StreamHook = Callable[[Tensor], Tensor | None]
"""Rows [token d_model] -> what goes on in their place, or None to leave them."""


@dataclass(frozen=True)
class BlockSite:
    """One end of a module of vLLM's. `stream`: whether it is (update, residual) of a block."""

    module: nn.Module
    end: Literal["input", "output"]

    def register(self, hook: StreamHook) -> Any:
        """Show the hook every activation here, and put what it returns in its place."""
        if self.end == "input":
            return self.module.register_forward_pre_hook(
                _before(self.module, hook), with_kwargs=True
            )
        return self.module.register_forward_hook(_after(hook))


def block_sites(model: nn.Module, n_layers: int) -> dict[str, BlockSite]:
    """Hook name -> site, of the blocks that this process holds.

    Raises: ModelError where the model has no list of so many blocks.
    """
    for path, blocks in model.named_modules():
        named = path.rsplit(".", 1)[-1] in LISTS_OF_BLOCKS
        if not (named and isinstance(blocks, nn.ModuleList) and len(blocks) == n_layers):
            continue
        sites: dict[str, BlockSite] = {}
        for layer, block in enumerate(blocks):
            if type(block).__name__ != ELSEWHERE:
                sites |= {f"blocks.{layer}.{k}": site for k, site in _of_block(block).items()}
        return sites
    raise ModelError(
        f"{type(model).__name__} in vLLM keeps its {n_layers} blocks in none of the lists "
        f"{', '.join(LISTS_OF_BLOCKS)}; it cannot be edited there"
    )


def _of_block(block: nn.Module) -> dict[str, BlockSite]:
    sites = {
        "hook_resid_pre": BlockSite(block, "input"),
        "hook_resid_post": BlockSite(block, "output"),
    }
    # Whether these two are all that a block adds is measured before an edit may use them.
    normed = hasattr(block, "post_feedforward_layernorm")
    attention = "post_attention_layernorm" if normed else "self_attn"
    mlp = "post_feedforward_layernorm" if normed else "mlp"
    for name, child in (("hook_attn_out", attention), ("hook_mlp_out", mlp)):
        if isinstance(module := getattr(block, child, None), nn.Module):
            sites[name] = BlockSite(module, "output")
    return sites


def _as_rows(h: Tensor, hook: StreamHook) -> Tensor | None:
    """The hook on [token d_model]; the Transformers backend has a batch axis of 1 before it."""
    edited = hook(h.reshape(-1, h.shape[-1]))
    return None if edited is None else edited.reshape(h.shape)


def _after(hook: StreamHook) -> Any:
    def call(module: nn.Module, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return _as_rows(output, hook)
        if not _is_stream(output):
            raise ModelError(
                f"{type(module).__name__} in vLLM returns {_described(output)}, where a tensor or "
                "(update, residual) is known; this architecture cannot be edited there"
            )
        residual = output[1] if len(output) == 2 else None
        edited = _as_rows(output[0] if residual is None else output[0] + residual, hook)
        if edited is None:
            return None
        rest = None if residual is None else torch.zeros_like(residual)
        return (edited,) if len(output) == 1 else (edited, rest)

    return call


def _is_stream(output: Any) -> bool:
    if not isinstance(output, tuple) or len(output) not in (1, 2):
        return False
    update, residual = output[0], output[1] if len(output) == 2 else None
    if not isinstance(update, Tensor):
        return False
    return residual is None or (isinstance(residual, Tensor) and residual.shape == update.shape)


def _described(output: Any) -> str:
    if isinstance(output, tuple):
        return f"a tuple of {', '.join(type(part).__name__ for part in output) or 'nothing'}"
    return f"a {type(output).__name__}"


def _before(module: nn.Module, hook: StreamHook) -> Any:
    order = list(inspect.signature(module.forward).parameters)

    def call(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = dict(zip(order, args, strict=False)) | kwargs
        h, residual = given.get("hidden_states"), given.get("residual")
        if not isinstance(h, Tensor):
            raise ModelError(
                f"{type(module).__name__} in vLLM is not given its stream as hidden_states; this "
                "architecture cannot be edited there"
            )
        edited = _as_rows(h if residual is None else h + residual, hook)
        if edited is None:
            return None
        new = {"hidden_states": edited}
        if residual is not None:
            new["residual"] = torch.zeros_like(residual)
        places = zip(order, args, strict=False)
        return (
            tuple(new.get(name, value) for name, value in places),
            {name: new.get(name, value) for name, value in kwargs.items()},
        )

    return call
