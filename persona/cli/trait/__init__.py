"""`persona trait`: a persona vector for any trait, from one sentence; `persona traits`: several."""

from persona.cli.trait.trait_command import trait
from persona.cli.trait.traits_command import OneTrait, Traits, traits_app

__all__ = ["OneTrait", "Traits", "trait", "traits_app"]
