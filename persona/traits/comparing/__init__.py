"""Traits beside each other, and what a fine-tune did among them."""

from persona.traits.comparing.kept_trait import (
    KeptTrait,
    QuestionDifferences,
    open_trait,
    open_traits,
)
from persona.traits.comparing.model_effect import model_effect_of, write_model_effect
from persona.traits.comparing.resemblance import Resemblance, resemblance
from persona.traits.comparing.trait_cosines import trait_cosines
from persona.traits.comparing.trait_space import PersonaSpace, persona_space, trait_components

__all__ = [
    "KeptTrait",
    "PersonaSpace",
    "QuestionDifferences",
    "Resemblance",
    "model_effect_of",
    "open_trait",
    "open_traits",
    "persona_space",
    "resemblance",
    "trait_components",
    "trait_cosines",
    "write_model_effect",
]
