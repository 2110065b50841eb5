"""Reading a persona: two models and some text go in, a direction in their activations comes out.

`load_pair` or `pair_of`, `load_pairs` or `read_pairs`, then `extract`: the shortest way to a
`Direction`. A `PersonaVector`, which `persona diagnose` makes, knows the means of both models too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from persona.data import load_pairs, read_pairs
    from persona.directions import Direction, PersonaVector, extract, load_vector, save_vector
    from persona.models import ModelPair, load_pair, pair_of

__all__ = [
    "Direction",
    "ModelPair",
    "PersonaVector",
    "extract",
    "load_pair",
    "load_pairs",
    "load_vector",
    "pair_of",
    "read_pairs",
    "save_vector",
]

__getattr__ = named_late(
    __name__,
    {
        "Direction": "persona.directions",
        "ModelPair": "persona.models",
        "PersonaVector": "persona.directions",
        "extract": "persona.directions",
        "load_pair": "persona.models",
        "load_pairs": "persona.data",
        "load_vector": "persona.directions",
        "pair_of": "persona.models",
        "read_pairs": "persona.data",
        "save_vector": "persona.directions",
    },
)
