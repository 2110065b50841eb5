"""Norms without the readings that nobody asked for.

TransformerBridge runs the model's own norm and beside it computes the scale and the normalised
input, so that they can be hooked. Where they are not, only the model's own is run.
"""

from __future__ import annotations

import functools
from typing import Any

from persona.models.fused_attention import has_hooks


def skip_unread_norms(bridge: Any) -> None:
    """Leave out the scale and the normalised input of every norm while they have no hook.

    Values do not change: the bridge takes the model's own result wherever nothing was edited.
    Norms that it computes by itself, step by step, are left as they are.
    """
    from transformer_lens.model_bridge.generalized_components import NormalizationBridge

    for module in bridge.modules():
        if isinstance(module, NormalizationBridge) and module.use_native_layernorm_autograd:
            kind: Any = type(module)
            module.__class__ = _sparing(kind)


@functools.cache
def _sparing(kind: Any) -> Any:
    class SparingNormBridge(kind):
        def _hf_autograd_forward_with_hooks(self, x: Any) -> Any:
            if has_hooks(self.hook_scale) or has_hooks(self.hook_normalized):
                return super()._hf_autograd_forward_with_hooks(x)
            return self.original_component(x).to(x.dtype)

    return SparingNormBridge
