"""Writing with a direction: interventions, identification by cause, the scorecard."""

from steering.diagnosis import DiagnoseConfig, Diagnosis, diagnose
from steering.hooks import (
    Edit,
    Steering,
    ablate_to_zero,
    add_direction,
    restore_to_aligned,
    restore_to_finetuned,
    steer,
)
from steering.identify import Identification, identify
from steering.interventions import ablate, add, project, restore
from steering.refit import refit_block_by_block
from steering.transfer import transfer_matrix, vector_cosines

__all__ = [
    "DiagnoseConfig",
    "Diagnosis",
    "Edit",
    "Identification",
    "Steering",
    "ablate",
    "ablate_to_zero",
    "add",
    "add_direction",
    "diagnose",
    "identify",
    "project",
    "refit_block_by_block",
    "restore",
    "restore_to_aligned",
    "restore_to_finetuned",
    "steer",
    "transfer_matrix",
    "vector_cosines",
]
