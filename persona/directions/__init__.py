"""Directions and persona vectors: the 2x2 of effects, contrasts, reliability, storage.

The extraction methods are in `persona.directions.methods`.
"""

from persona.directions.cells import collect_cells
from persona.directions.contrast import Contrast
from persona.directions.direction import (
    Direction,
    PersonaVector,
    Subspace,
    orthonormal,
    whitened_readout,
)
from persona.directions.extracting import extract
from persona.directions.planted import planted_contrast
from persona.directions.reliability import pairwise_cosine, sample_size_curve
from persona.directions.storage import load_vector, save_vector
from persona.directions.two_by_two import Cells, Effect, mean_difference, two_by_two
from persona.models.space import ActivationSpace

__all__ = [
    "ActivationSpace",
    "Cells",
    "Contrast",
    "Direction",
    "Effect",
    "PersonaVector",
    "Subspace",
    "collect_cells",
    "extract",
    "load_vector",
    "mean_difference",
    "orthonormal",
    "pairwise_cosine",
    "planted_contrast",
    "sample_size_curve",
    "save_vector",
    "two_by_two",
    "whitened_readout",
]
