"""A persona vector for any trait: what it is made of, how it is made, and the verdict on it."""

from persona.traits.artefacts import (
    TraitArtefacts,
    read_artefacts,
    require_description,
    write_trait,
)
from persona.traits.check import Fault, faults_of, require_sound
from persona.traits.choosing_artefacts import ChosenArtefacts, choose_artefacts
from persona.traits.making import make_trait
from persona.traits.writers import EndpointWriter, ModelWriter, Writer, writer_named

__all__ = [
    "ChosenArtefacts",
    "EndpointWriter",
    "Fault",
    "ModelWriter",
    "TraitArtefacts",
    "Writer",
    "choose_artefacts",
    "faults_of",
    "make_trait",
    "read_artefacts",
    "require_description",
    "require_sound",
    "write_trait",
    "writer_named",
]
