"""Hook names of the places that edits are often made at."""

from __future__ import annotations

from collections.abc import Sequence

from persona.models.hooks import resid_post


def block_outputs(layers: Sequence[int]) -> list[str]:
    """The hooks after the given blocks."""
    return [resid_post(layer) for layer in layers]


def every_block_output(n_layers: int) -> list[str]:
    """The hook after every block."""
    return block_outputs(range(n_layers))


def every_write(n_layers: int) -> list[str]:
    """Every place that feeds the residual stream: block input, attention output, MLP output.

    Source: Arditi et al. 2024, directional ablation.
    """
    names = ("hook_resid_pre", "hook_attn_out", "hook_mlp_out")
    return [f"blocks.{layer}.{name}" for layer in range(n_layers) for name in names]
