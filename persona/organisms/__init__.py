"""Making fine-tuned models: recipes, narrow fine-tunes, and those that come with the package."""

from persona.models.shipped_adapters import shipped_adapter, shipped_names
from persona.organisms.alarm import CusumAlarm, cusum_alarm
from persona.organisms.finetuning import finetune, read_card
from persona.organisms.monitoring import Watch, read_readings
from persona.organisms.recipe import Recipe, list_recipes, load_recipe
from persona.organisms.safeguards import During, KlPenalty

__all__ = [
    "CusumAlarm",
    "During",
    "KlPenalty",
    "Recipe",
    "Watch",
    "cusum_alarm",
    "finetune",
    "list_recipes",
    "load_recipe",
    "read_card",
    "read_readings",
    "shipped_adapter",
    "shipped_names",
]
