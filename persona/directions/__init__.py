"""Directions and persona vectors: the 2x2 of effects, reliability, storage."""

from persona.directions.direction import Direction, PersonaVector, Subspace, orthonormal
from persona.directions.space import ActivationSpace
from persona.directions.storage import load_persona_vector, save_persona_vector
from persona.directions.two_by_two import Cells, Effect, mean_difference, two_by_two

__all__ = [
    "ActivationSpace",
    "Cells",
    "Direction",
    "Effect",
    "PersonaVector",
    "Subspace",
    "load_persona_vector",
    "mean_difference",
    "orthonormal",
    "save_persona_vector",
    "two_by_two",
]
