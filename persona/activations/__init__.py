"""Token positions, batches, streaming collection and mergeable moments."""

from persona.activations.at_positions import collect_at
from persona.activations.collect import collect_covariance, collect_moments, collect_rows
from persona.activations.moments import Moments
from persona.activations.positions import token_span
from persona.activations.spans import collect_sets
from persona.activations.tokens import collect_tokens

__all__ = [
    "Moments",
    "collect_at",
    "collect_covariance",
    "collect_moments",
    "collect_rows",
    "collect_sets",
    "collect_tokens",
    "token_span",
]
