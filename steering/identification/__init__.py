"""Which direction is the persona: candidates, a first-order screen, real trials."""

from steering.identification.attribution import attribution_moments
from steering.identification.candidates import (
    Means,
    build_vector,
    differing_blocks,
    from_bases,
    random_vector,
)
from steering.identification.compared_edits import compare_edits
from steering.identification.first_order import effect_rows
from steering.identification.identify import Identification, identify, within_covariance
from steering.identification.label_nulls import (
    construction,
    selection_vectors,
    swapped_label_vectors,
)
from steering.identification.latent_screen import promising, screen_table, verify_latents
from steering.identification.null_vectors import (
    null_conditions,
    principal_vectors,
    screened_draws,
)
from steering.identification.refit import refit_block_by_block

__all__ = [
    "Identification",
    "Means",
    "attribution_moments",
    "build_vector",
    "compare_edits",
    "construction",
    "differing_blocks",
    "effect_rows",
    "from_bases",
    "identify",
    "null_conditions",
    "principal_vectors",
    "promising",
    "random_vector",
    "refit_block_by_block",
    "screen_table",
    "screened_draws",
    "selection_vectors",
    "swapped_label_vectors",
    "verify_latents",
    "within_covariance",
]
