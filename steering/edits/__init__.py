"""Edits of the residual stream: what is written, where, at which tokens, and `steer`.

`add`, `ablate` and `restore` here make edits of a direction; the functions of activations that
they are made of, under the same names, are those of `interventions`.
"""

from steering.edits import interventions
from steering.edits.edit import Edit
from steering.edits.from_directions import (
    ablate,
    add,
    edits_at,
    induce,
    restore,
    set_coordinates,
)
from steering.edits.latents import clamp_latents, latent_edits
from steering.edits.places import ALL_BLOCKS, EVERY_WRITE, hook_names
from steering.edits.steer import Edits, SteeredBy, Steering, edited, steer, steered_by

__all__ = [
    "ALL_BLOCKS",
    "EVERY_WRITE",
    "Edit",
    "Edits",
    "SteeredBy",
    "Steering",
    "ablate",
    "add",
    "clamp_latents",
    "edited",
    "edits_at",
    "hook_names",
    "induce",
    "interventions",
    "latent_edits",
    "restore",
    "set_coordinates",
    "steer",
    "steered_by",
]
