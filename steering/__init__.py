"""Writing with a direction: interventions, identification by cause, the scorecard."""

from steering.demo.notebook.explorer import explore
from steering.diagnosis import DiagnoseConfig, Diagnosis, diagnose
from steering.edits.edit import Edit
from steering.edits.from_directions import (
    ablate_direction,
    ablate_to_zero,
    add_direction,
    edits_at,
    restore_to_aligned,
    restore_to_finetuned,
    set_along,
)
from steering.edits.interventions import (
    ablate,
    add,
    cap,
    clamp,
    floor,
    mean_ablate,
    norm_preserving,
    project,
    restore,
    set_projection,
    where,
)
from steering.edits.latents import ablate_latents, clamp_latents, latent_edits
from steering.edits.places import block_outputs, every_block_output, every_write
from steering.edits.steer import Steering, steer
from steering.evidence.transfer import transfer_matrix, vector_cosines
from steering.identification.identify import Identification, identify
from steering.identification.refit import refit_block_by_block

__all__ = [
    "DiagnoseConfig",
    "Diagnosis",
    "Edit",
    "Identification",
    "Steering",
    "ablate",
    "ablate_direction",
    "ablate_latents",
    "ablate_to_zero",
    "add",
    "add_direction",
    "block_outputs",
    "cap",
    "clamp",
    "clamp_latents",
    "diagnose",
    "edits_at",
    "every_block_output",
    "every_write",
    "explore",
    "floor",
    "identify",
    "latent_edits",
    "mean_ablate",
    "norm_preserving",
    "project",
    "refit_block_by_block",
    "restore",
    "restore_to_aligned",
    "restore_to_finetuned",
    "set_along",
    "set_projection",
    "steer",
    "transfer_matrix",
    "vector_cosines",
    "where",
]
