"""Teacher-forced passes over text: token positions, batches, activations, mergeable moments."""

from persona.activations.collect import (
    collect_at,
    collect_covariance,
    collect_moments,
    collect_rows,
    collect_sets,
    collect_tokens,
)
from persona.activations.extract import extract_moments
from persona.activations.moments import Moments, merge_in_tree
from persona.activations.positions import token_span

__all__ = [
    "Moments",
    "collect_at",
    "collect_covariance",
    "collect_moments",
    "collect_rows",
    "collect_sets",
    "collect_tokens",
    "extract_moments",
    "merge_in_tree",
    "token_span",
]
