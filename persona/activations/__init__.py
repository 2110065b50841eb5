"""Token positions, batches, streaming collection and mergeable moments."""

from persona.activations.at_positions import collect_at
from persona.activations.collect import collect_covariance, collect_moments, collect_rows
from persona.activations.extract import extract_moments
from persona.activations.moments import Moments, merge_in_tree
from persona.activations.positions import token_span
from persona.activations.ragged_rows import collect_tokens
from persona.activations.spans import collect_sets

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
