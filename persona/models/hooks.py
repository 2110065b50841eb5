"""Hooks on a bridge: names checked, added in order, removed exactly.

transformer-lens 3.9 ignores unknown hook names in silence, and its own context manager rebuilds
the table of hook names for every hook (11 ms each on the default model); here the table is read
once per bridge and each hook is one torch handle.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from persona.errors import ModelError

Hook = Callable[[Tensor], Tensor | None]

_tables: WeakKeyDictionary[Any, dict[str, Any]] = WeakKeyDictionary()


def hook_points(bridge: Any) -> dict[str, Any]:
    """Hook name -> hook point, aliases such as blocks.0.hook_resid_post included."""
    if bridge not in _tables:
        _tables[bridge] = dict(bridge.hook_dict)
    return _tables[bridge]


@contextlib.contextmanager
def hooked(bridge: Any, hooks: Sequence[tuple[str, Hook]]) -> Iterator[None]:
    """Call each hook with the activation at its name, in order, while the block is open.

    A hook returns the activation to use in place of the one it was given, or None to leave it.
    Raises: ModelError for a name the model does not have, before any hook is added.
    """
    table = hook_points(bridge)
    for name, _ in hooks:
        if name not in table:
            raise ModelError(
                f"the model has no hook {name!r}; it has blocks 0 to {bridge.cfg.n_layers - 1}, "
                "for instance blocks.0.hook_resid_post"
            )
    handles = []
    try:
        for name, hook in hooks:
            handles.append(table[name].register_forward_hook(_as_torch_hook(hook)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _as_torch_hook(hook: Hook) -> Any:
    def call(module: Any, args: Any, output: Tensor) -> Tensor | None:
        return hook(output)

    return call


def model_device(bridge: Any) -> torch.device:
    """The device that token ids must be on."""
    return next(bridge.original_model.parameters()).device


def resid_post(layer: int) -> str:
    """Hook name of the residual stream after block `layer` (0-based)."""
    return f"blocks.{layer}.hook_resid_post"
