"""Steering vectors of other toolkits: one file for each format, read and written."""

from persona.directions.exchange.assistant_axis import read_assistant_axis, write_assistant_axis
from persona.directions.exchange.cast import read_cast, write_cast
from persona.directions.exchange.control_vector import read_control_vector, write_control_vector
from persona.directions.exchange.formats import read_vectors, write_vectors
from persona.directions.exchange.harness_steered import write_steered
from persona.directions.exchange.neuronpedia import read_neuronpedia, write_neuronpedia
from persona.directions.exchange.persona_vectors import (
    read_persona_vectors,
    write_persona_vectors,
)
from persona.directions.exchange.refusal_direction import (
    read_refusal_direction,
    read_refusal_evaluations,
    write_refusal_direction,
)
from persona.directions.exchange.steering_vectors import (
    read_steering_vectors,
    write_steering_vectors,
)
from persona.directions.exchange.vector_set_file import load_vector_set, save_vector_set
from persona.directions.exchange.vectors import AWAY_FROM_TRAIT, TOWARD_TRAIT, VectorSet

__all__ = [
    "AWAY_FROM_TRAIT",
    "TOWARD_TRAIT",
    "VectorSet",
    "load_vector_set",
    "read_assistant_axis",
    "read_cast",
    "read_control_vector",
    "read_neuronpedia",
    "read_persona_vectors",
    "read_refusal_direction",
    "read_refusal_evaluations",
    "read_steering_vectors",
    "read_vectors",
    "save_vector_set",
    "write_assistant_axis",
    "write_cast",
    "write_control_vector",
    "write_neuronpedia",
    "write_persona_vectors",
    "write_refusal_direction",
    "write_steered",
    "write_steering_vectors",
    "write_vectors",
]
