"""Making fine-tuned models: recipes, narrow fine-tunes, and those that come with the package."""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from persona.models.shipped_adapters import shipped_adapter, shipped_names
    from persona.organisms.alarm import CusumAlarm, FamilyAlarm, cusum_alarm, family_alarm
    from persona.organisms.finetuning import finetune, read_card
    from persona.organisms.monitoring import Watch, read_readings
    from persona.organisms.recipe import Recipe, list_recipes, load_recipe
    from persona.organisms.safeguards import During, KlPenalty

__all__ = [
    "CusumAlarm",
    "During",
    "FamilyAlarm",
    "KlPenalty",
    "Recipe",
    "Watch",
    "cusum_alarm",
    "family_alarm",
    "finetune",
    "list_recipes",
    "load_recipe",
    "read_card",
    "read_readings",
    "shipped_adapter",
    "shipped_names",
]

__getattr__ = named_late(
    __name__,
    {
        "CusumAlarm": "persona.organisms.alarm",
        "During": "persona.organisms.safeguards",
        "FamilyAlarm": "persona.organisms.alarm",
        "KlPenalty": "persona.organisms.safeguards",
        "Recipe": "persona.organisms.recipe",
        "Watch": "persona.organisms.monitoring",
        "cusum_alarm": "persona.organisms.alarm",
        "family_alarm": "persona.organisms.alarm",
        "finetune": "persona.organisms.finetuning",
        "list_recipes": "persona.organisms.recipe",
        "load_recipe": "persona.organisms.recipe",
        "read_card": "persona.organisms.finetuning",
        "read_readings": "persona.organisms.monitoring",
        "shipped_adapter": "persona.models.shipped_adapters",
        "shipped_names": "persona.models.shipped_adapters",
    },
)
