"""What a fine-tune was trained on, where its folder says so."""

from __future__ import annotations

from pathlib import Path

from persona.data.shipped import DOMAINS, NARROW_SETS
from persona.errors import DataError
from persona.models.shipped_adapters import SHIPPED, shipped_names
from persona.organisms.recipe import load_recipe

RECIPE = "recipe.yaml"


def learnt_domains(finetuned: str | Path) -> tuple[str, ...] | None:
    """The domains of the recipe beside an adapter that comes along or that `persona finetune` made.

    Returns None for any other model, and for a recipe that learnt from a file or from domains that
    do not come along.
    """
    folder = SHIPPED / finetuned if str(finetuned) in shipped_names() else Path(finetuned)
    try:
        domains = load_recipe(folder.expanduser() / RECIPE).data.domains
    except DataError:
        return None
    return domains if domains and set(domains) <= {*DOMAINS, *NARROW_SETS} else None
