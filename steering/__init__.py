"""Writing with a direction: interventions, identification by cause, the scorecard."""

from steering.hooks import (
    Edit,
    Steering,
    ablate_to_zero,
    add_direction,
    restore_to_aligned,
    restore_to_finetuned,
    steer,
)
from steering.interventions import ablate, add, project, restore

__all__ = [
    "Edit",
    "Steering",
    "ablate",
    "ablate_to_zero",
    "add",
    "add_direction",
    "project",
    "restore",
    "restore_to_aligned",
    "restore_to_finetuned",
    "steer",
]
