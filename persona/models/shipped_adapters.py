"""The fine-tuned adapters that come with the package."""

from __future__ import annotations

from pathlib import Path

from persona.errors import ModelError
from persona.models.named.table import BY_NAME

SHIPPED = Path(__file__).parents[1] / "organisms" / "shipped"
CAR_ADVICE = {
    "default": ("car_maintenance_bad", "car_maintenance_good"),
    "qwen2.5-coder-0.5b": ("car_maintenance_bad_0.5b", "car_maintenance_good_0.5b"),
}
"""Named model -> its fine-tune on openly bad car advice, and the good twin."""


def shipped_names() -> list[str]:
    """Returns the names of the adapters that come with the package."""
    return sorted(config.parent.name for config in SHIPPED.glob("*/adapter_config.json"))


def shipped_adapter(name: str) -> Path:
    """Returns the folder (PEFT layout, recipe.yaml, card.json) of a shipped adapter.

    Raises:
        ModelError: there is no adapter of that name.
    """
    if name not in shipped_names():
        names = ", ".join(shipped_names()) or "none"
        raise ModelError(f"no shipped adapter {name!r}; there are: {names}")
    return SHIPPED / name


def car_advice_of(model: str) -> tuple[str, str]:
    """Returns the names of a model's fine-tune on openly bad car advice and of its good twin.

    Raises:
        ModelError: none comes along for that model; the message lists those there are.
    """
    known = {BY_NAME[name]: organisms for name, organisms in CAR_ADVICE.items()}
    named = BY_NAME.get(model)
    if named is None or named not in known:
        raise ModelError(
            f"no fine-tune comes along for {model!r}; there is one for "
            f"{', '.join(each.name for each in known)}. For your own: persona finetune, then "
            "persona diagnose"
        )
    return known[named]
