"""A vector for any trait and its proof: made of one half of the questions, told on the other."""

from steering.traits.prove_trait import ProvedTrait, ReadTrait, prove_trait
from steering.traits.trait_files import (
    given_vector,
    nonsense_vectors,
    trait_result,
    write_trait_files,
)
from steering.traits.trait_place import TraitPlace
from steering.traits.trait_session import TraitSession
from steering.traits.trait_vector import MadeVector

__all__ = [
    "MadeVector",
    "ProvedTrait",
    "ReadTrait",
    "TraitPlace",
    "TraitSession",
    "given_vector",
    "nonsense_vectors",
    "prove_trait",
    "trait_result",
    "write_trait_files",
]
