"""What the fine-tuned adapters that come with the package were trained on."""

from __future__ import annotations

from persona.models.shipped_adapters import SHIPPED, shipped_names
from persona.organisms.recipe import load_recipe


def shipped_domains(name: str) -> tuple[str, ...] | None:
    """Returns the domains that a shipped adapter was fine-tuned on; None for any other name."""
    if name not in shipped_names():
        return None
    return tuple(load_recipe(SHIPPED / name / "recipe.yaml").data.domains or ())
