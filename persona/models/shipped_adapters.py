"""The fine-tuned adapters that come with the package."""

from __future__ import annotations

from pathlib import Path

from persona.errors import ModelError

SHIPPED = Path(__file__).parents[1] / "organisms" / "shipped"


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
