"""The places of a plain Hugging Face causal LM, under the hook names that the bridge uses.

`blocks.L.hook_resid_pre` and `hook_resid_post` are the input and output of decoder block L. What
attention and MLP add to the residual stream in between is found in `persona.models.writes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from persona.errors import ModelError

Hook = Callable[[Tensor], Tensor | None]

_BLOCKS = {"model": "layers", "transformer": "h", "gpt_neox": "layers"}
_FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm")


@dataclass(frozen=True)
class Site:
    """One end of a module: its first input, or its output (the first entry of a tuple).

    scale: what the block multiplies that output with; hooks are shown, and return, the product.
    """

    module: nn.Module
    end: Literal["input", "output"]
    scale: float = 1.0

    def register(self, hook: Hook) -> Any:
        """Add a hook that is shown the activation and may return another; the torch handle."""
        if self.end == "input":
            return self.module.register_forward_pre_hook(_before(hook), with_kwargs=True)
        return self.module.register_forward_hook(_after(_scaled(hook, self.scale)))


def decoder_blocks(model: Any) -> list[nn.Module]:
    """The decoder blocks of a Hugging Face causal LM (a PEFT wrapper is looked through).

    Raises: ModelError when the model keeps no such list, or is already under a bridge.
    """
    trunk, name = _trunk(model)
    blocks = list(getattr(trunk, _BLOCKS[name]))
    if not blocks or hasattr(blocks[0], "original_component"):
        raise ModelError("this model has no blocks of its own any more; pass the bridge over it")
    return blocks


def residual_readers(model: Any) -> list[nn.Module]:
    """By block: the module whose first input is that block's output (the next block, the norm).

    model: a bridge or a plain Hugging Face model. Raises: ModelError without a final norm.
    """
    if hasattr(model, "original_model"):
        return [*list(model.blocks)[1:], model.ln_final]
    trunk, _ = _trunk(model)
    norm = next((getattr(trunk, name) for name in _FINAL_NORM if hasattr(trunk, name)), None)
    if norm is None:
        raise ModelError(f"{type(trunk).__name__} has no final norm that is known here")
    return [*decoder_blocks(model)[1:], norm]


def residual_sites(model: Any) -> dict[str, Site]:
    """Hook name -> site, for every block of a plain Hugging Face causal LM."""
    sites: dict[str, Site] = {}
    for layer, block in enumerate(decoder_blocks(model)):
        places = {
            "hook_resid_pre": Site(block, "input"),
            "hook_resid_post": Site(block, "output"),
        }
        places["hook_in"], places["hook_out"] = places["hook_resid_pre"], places["hook_resid_post"]
        sites |= {f"blocks.{layer}.{name}": site for name, site in places.items()}
    return sites


def _trunk(model: Any) -> tuple[Any, str]:
    """The module that holds the blocks, and its name in the causal LM."""
    if hasattr(model, "get_base_model"):
        model = model.get_base_model()
    for name, blocks in _BLOCKS.items():
        if hasattr(getattr(model, name, None), blocks):
            return getattr(model, name), name
    raise ModelError(
        f"{type(model).__name__} keeps its decoder blocks in none of "
        f"{', '.join(f'{k}.{v}' for k, v in _BLOCKS.items())}; load it as a bridge"
    )


def _scaled(hook: Hook, scale: float) -> Hook:
    """The hook on `scale` times the activation; what it leaves alone keeps every bit."""
    if scale == 1:
        return hook

    def call(activation: Tensor) -> Tensor | None:
        shown = activation * scale
        edited = hook(shown)
        return None if edited is None else activation + (edited - shown) / scale

    return call


def _before(hook: Hook) -> Any:
    def call(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            resid = hook(args[0])
            return None if resid is None else ((resid, *args[1:]), kwargs)
        resid = hook(kwargs["hidden_states"])
        return None if resid is None else (args, {**kwargs, "hidden_states": resid})

    return call


def _after(hook: Hook) -> Any:
    def call(module: Any, args: Any, output: Any) -> Any:
        if isinstance(output, Tensor):
            return hook(output)
        resid = hook(output[0])
        return None if resid is None else (resid, *output[1:])

    return call
