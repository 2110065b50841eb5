"""Fused attention where nobody looks at the pattern.

TransformerBridge computes attention step by step, so that scores and pattern can be hooked. Where
they are not, PyTorch's fused kernel gives the same and is some percent of a pass cheaper.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

EAGER_OPTIONS = ("use_split_qkv_input", "use_attn_in", "use_attn_result")
"""Options of a bridge under which its attention is more than Transformers' own."""


def fuse_attention(bridge: Any) -> None:
    """Run each attention layer of a bridge as Transformers does, through PyTorch's fused kernel.

    Same values up to rounding. A layer goes back to the step-by-step way, by itself, whenever one
    of the points inside it (scores, pattern, rotated queries) has a hook. Architectures that the
    fused kernel does not serve (soft-capped scores, attention sinks) are left as they are.
    """
    from transformer_lens.model_bridge.generalized_components import (
        PositionEmbeddingsAttentionBridge,
    )

    if not getattr(bridge.original_model, "_supports_sdpa", False):
        return
    for block in bridge.blocks:
        attention = getattr(block, "attn", None)
        inner: Any = getattr(attention, "original_component", None)
        soft_capped = getattr(inner, "attn_logit_softcapping", None) is not None
        # A subclass computes something else again.
        if type(attention) is PositionEmbeddingsAttentionBridge and not soft_capped:
            # The model goes on making the additive masks that both ways understand.
            inner.config = copy.copy(inner.config)
            inner.config._attn_implementation = "sdpa"
            attention.__class__ = _fused_attention()


@functools.cache
def _fused_attention() -> type[Any]:
    """The class of a fused attention layer; made when asked for, since its import is slow."""
    from transformer_lens.hook_points import HookPoint
    from transformer_lens.model_bridge.generalized_components import (
        PositionEmbeddingsAttentionBridge,
    )

    class FusedAttentionBridge(PositionEmbeddingsAttentionBridge):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            if self._must_go_step_by_step():
                return super().forward(*args, **kwargs)
            hidden = kwargs.pop("hidden_states", None)
            if hidden is None:
                hidden, *args = args  # type: ignore[assignment]
            out, *rest = self.original_component.forward(self.hook_in(hidden), *args, **kwargs)
            return self.hook_out(out), *rest

        def _must_go_step_by_step(self) -> bool:
            return any(getattr(self.config, option, False) for option in EAGER_OPTIONS) or any(
                isinstance(point, HookPoint)
                and name not in ("hook_in", "hook_out")
                and has_hooks(point)
                for name, point in self.named_children()
            )

    return FusedAttentionBridge


def has_hooks(point: Any) -> bool:
    """Also of hooks that PyTorch was given, of which the hook point's own lists know nothing."""
    return bool(point._forward_hooks or point._forward_pre_hooks or point._backward_hooks)
