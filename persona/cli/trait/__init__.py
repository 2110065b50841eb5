"""`persona trait`: a persona vector for any trait, from one sentence."""

from persona.cli.trait.trait_command import trait

__all__ = ["trait"]
