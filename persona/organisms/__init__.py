"""Making fine-tuned models: recipes, narrow fine-tunes, and those that come with the package."""

from persona.organisms.finetuning import finetune, read_card
from persona.organisms.recipe import Recipe, list_recipes, load_recipe
from persona.organisms.shipped import shipped_adapter, shipped_names, shipped_organism

__all__ = [
    "Recipe",
    "finetune",
    "list_recipes",
    "load_recipe",
    "read_card",
    "shipped_adapter",
    "shipped_names",
    "shipped_organism",
]
