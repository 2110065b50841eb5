"""Where edits are made: at blocks, at hooks, or at every block of whatever model is steered."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from persona.errors import SteeringError
from persona.models.hooks import resid_post

Place = int | str
"""A 0-based block, meaning its output, or a hook name; `*` in a name is every block."""
Places = Place | Sequence[Place]

ALL_BLOCKS = "blocks.*.hook_resid_post"
"""The output of every block."""

EVERY_WRITE = ("blocks.*.hook_resid_pre", "blocks.*.hook_attn_out", "blocks.*.hook_mlp_out")
"""Every place that feeds the residual stream: block input, attention output, MLP output.

Source: Arditi et al. 2024, directional ablation.
"""


def hook_names(at: Places, layers: Iterable[int] | None = None) -> list[str]:
    """The hooks of places, in their order; with `layers`, `*` is each of them in turn.

    Raises: SteeringError for a hook name of no block.

    Examples:
        >>> from steering.edits.places import ALL_BLOCKS, hook_names
        >>> hook_names([3, "blocks.4.hook_mlp_out"])
        ['blocks.3.hook_resid_post', 'blocks.4.hook_mlp_out']
        >>> hook_names(ALL_BLOCKS, range(2))
        ['blocks.0.hook_resid_post', 'blocks.1.hook_resid_post']
    """
    places = [at] if isinstance(at, int | str) else at
    names = [resid_post(place) if isinstance(place, int) else place for place in places]
    for name in names:
        layer_of(name)
    if layers is None:
        return names
    each = list(layers)
    return [
        found
        for name in names
        for found in ([name.replace("*", str(layer)) for layer in each] if "*" in name else [name])
    ]


def layer_of(hook_name: str) -> int:
    """The block of a hook; of one at every block, the first. Raises: SteeringError for none."""
    parts = hook_name.split(".")
    if len(parts) < 3 or parts[0] != "blocks" or not (parts[1].isdigit() or parts[1] == "*"):
        raise SteeringError(
            f"{hook_name!r} is no hook of a block; name one such as {resid_post(0)}"
        )
    return 0 if parts[1] == "*" else int(parts[1])
