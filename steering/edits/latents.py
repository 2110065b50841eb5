"""Clamping and ablating the latents of an autoencoder, with its error left as it was.

An autoencoder rebuilds an activation h only nearly: h = decode(z) + error, z = encode(h). Putting
decode(z') in place of h would also take the error away, which by itself changes what the model
says. Only what the latents changed is written:

    h + decode(z') - decode(z)

so that latents set to the values they have leave h bit for bit as it was.

Source: the error term in interventions, Marks et al. 2024 (sparse feature circuits); clamping,
Templeton et al. 2024 (scaling monosemanticity).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from persona.errors import SteeringError
from persona.models.space import ActivationSpace
from steering.edits.edit import Edit, require_levels
from steering.edits.interventions import Level, level_beside


@runtime_checkable
class Autoencoder(Protocol):
    """Anything with latents: a sparse autoencoder, on the device of the model it is used on."""

    def encode(self, x: Tensor) -> Tensor:
        """Activations [... d_model] -> latents [... n_latents]."""

    def decode(self, x: Tensor) -> Tensor:
        """Latents [... n_latents] -> activations [... d_model]."""


def clamp_latents(
    resid: Float[Tensor, "*batch d_model"],
    autoencoder: Autoencoder,
    latents: Sequence[int],
    values: Level,
) -> Float[Tensor, "*batch d_model"]:
    """Set the chosen latents to `values`; the error of the autoencoder stays.

    values: one number, or a table [rows latent] of which either side may be 1, in the units of
    the latents. Computed in float32.
    """
    before = autoencoder.encode(resid.float())
    after = before.clone()
    place = list(latents)
    after[..., place] = level_beside(values, before[..., place])
    change = autoencoder.decode(after).float() - autoencoder.decode(before).float()
    return resid + change.to(resid)


def latent_edits(
    space: ActivationSpace,
    autoencoder: Autoencoder,
    latents: Sequence[int],
    values: Level = 0.0,
) -> list[Edit]:
    """The edit that clamps latents at the place the autoencoder was trained on; 0 ablates.

    space: that place, such as `pair.space(20)`. values: as in `clamp_latents`; a table with
        several rows gives every row of the batch its own.
    Raises: SteeringError for an autoencoder of another width, a latent it does not have or one
        named twice, no latent at all, values that are not finite or fit neither rows nor latents.
    """
    chosen = list(latents)
    directions = _written_by(space, autoencoder, chosen)
    rows = require_levels([values], len(chosen))
    return [
        Edit(
            space.hook_name,
            space.layer,
            space.d_model,
            lambda h: clamp_latents(h, autoencoder, chosen, values),
            f"latents {', '.join(map(str, chosen))}",
            "sets",
            directions,
            rows,
            space,
        )
    ]


@torch.no_grad()
def _written_by(
    space: ActivationSpace, autoencoder: Autoencoder, latents: list[int]
) -> Float[Tensor, "rank d_model"]:
    """Orthonormal rows of the span of what the latents write, decode(e) - decode(0)."""
    try:
        device = _device_of(autoencoder)
        n_latents = autoencoder.encode(torch.zeros(1, space.d_model, device=device)).shape[-1]
        silent = torch.zeros(1 + len(latents), n_latents, device=device)
        width = autoencoder.decode(silent).shape[-1]
    except (RuntimeError, ValueError) as error:
        raise SteeringError(
            f"the autoencoder does not take activations of d_model={space.d_model} "
            f"({space.model}, {space.hook_name}): {str(error).splitlines()[0]}"
        ) from error
    if width != space.d_model:
        raise SteeringError(
            f"the autoencoder writes d_model={width} but {space.hook_name} of {space.model} has "
            f"d_model={space.d_model}"
        )
    if not latents or len(set(latents)) < len(latents):
        raise SteeringError(f"latents to set must be one or more, each named once; got {latents}")
    if outside := [latent for latent in latents if not 0 <= latent < n_latents]:
        raise SteeringError(
            f"the autoencoder has latents 0 to {n_latents - 1}; {outside[0]} is out of range"
        )
    silent[range(1, len(silent)), latents] = 1.0
    decoded = autoencoder.decode(silent).float()
    _, sizes, rows = torch.linalg.svd(decoded[1:] - decoded[0], full_matrices=False)
    if not bool(sizes[0] > 0):
        raise SteeringError(f"latents {latents} write nothing: their decoder rows are zero")
    return rows[sizes > 1e-5 * sizes[0]].cpu()


def _device_of(autoencoder: Autoencoder) -> torch.device:
    parameters = autoencoder.parameters() if isinstance(autoencoder, nn.Module) else iter(())
    return next((p.device for p in parameters), torch.device("cpu"))
