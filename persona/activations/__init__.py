"""Token positions, batches, streaming collection and mergeable moments."""

from persona.activations.at_positions import collect_at
from persona.activations.collect import collect_covariance, collect_moments, collect_rows
from persona.activations.moments import Moments
from persona.activations.positions import token_span

__all__ = [
    "Moments",
    "collect_at",
    "collect_covariance",
    "collect_moments",
    "collect_rows",
    "token_span",
]
