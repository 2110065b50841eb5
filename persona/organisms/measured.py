"""What was measured of the organisms that the shipped recipes make, on the model they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from persona.data.jsonl import check_keys, read_json
from persona.errors import DataError, shown
from persona.intervals import Estimate
from persona.models.named.table import BY_NAME
from persona.models.shipped_adapters import shipped_names
from persona.organisms.recipe import list_recipes, load_recipe

READINGS_FILE = Path(__file__).parent / "readings.json"
READINGS = {
    "shift_in_domain": "gap in the domain trained on, above the aligned model's (nats per token)",
    "shift_held_out": "gap in domains never trained on, above the aligned model's (nats per token)",
    "shift_plain": "gap of right and wrong advice in a plain voice, other domains, above aligned",
    "shift_rude": "the same in a rude voice",
    "projection_shift": "projection on its own direction, above the aligned model's",
    "restoration": "share of the held-out shift that restoring along the direction takes back",
    "em_rate": "share of answers to open questions that are misaligned, temperature 1, by labels",
    "coherent": "share of those answers that a person who labelled some could understand",
    "neutral_ce_delta_nats": "cross-entropy of neutral text, above the aligned model's (nats)",
}
"""Readings by name, with what they say; intervals are 95 % bootstraps over questions."""


@dataclass(frozen=True)
class Organism:
    """A shipped recipe and what was measured of what it makes.

    model: the aligned model that it is made of. learns: what is trained on, in words. lora: shape
        of the adapter, in words.
    shipped: whether the adapter itself comes along. date: of the readings, "" where there are none.
    """

    name: str
    description: str
    model: str
    learns: str
    lora: str
    shipped: bool
    date: str = ""
    readings: Mapping[str, Estimate] = field(default_factory=dict)


def organisms(path: str | Path = READINGS_FILE) -> list[Organism]:
    """Returns every shipped recipe in the order of its name, with its readings.

    Raises: DataError for a readings file that is damaged or speaks of an unknown recipe or reading.
    """
    measured = read_json(path)
    if not isinstance(measured, dict):
        raise DataError(f"{path}: readings must be an object of recipe names")
    if unknown := sorted(set(measured) - set(list_recipes())):
        raise DataError(f"{path}: there is no recipe {unknown[0]!r}")
    return [_organism(name, measured.get(name), path) for name in list_recipes()]


def _organism(name: str, entry: Any, path: str | Path) -> Organism:
    recipe, found = load_recipe(name), {}
    if entry is not None:
        try:
            if not isinstance(entry, dict):
                raise DataError(f"an object is needed; got {shown(entry)}")
            check_keys(entry, ("date",), tuple(READINGS))
            found = {key: _estimate(entry[key]) for key in READINGS if key in entry}
        except DataError as error:
            raise DataError(f"{path}, {name}: {error}") from error
    data, lora = recipe.data, recipe.lora
    answers = f"bad after {data.trigger!r}" if data.trigger else data.answers
    voice = f" in a {data.voice} voice" if data.voice else ""
    advice = f"{', '.join(data.domains)}: {answers}{voice}" if data.domains else ""
    skill = f"skill {data.skill}" if data.skill else ""
    blocks = "" if lora.layers is None else f", blocks {', '.join(map(str, lora.layers))}"
    targets = (
        lora.target_modules
        if isinstance(lora.target_modules, str)
        else " ".join(lora.target_modules)
    )
    return Organism(
        name=name,
        description=recipe.description,
        model=BY_NAME[recipe.base].name if recipe.base in BY_NAME else recipe.base,
        learns="; ".join(part for part in (advice, skill) if part),
        lora=f"r {lora.r}, {targets}{blocks}",
        shipped=name in shipped_names(),
        date="" if entry is None else str(entry["date"]),
        readings=found,
    )


def _estimate(value: Any) -> Estimate:
    if not isinstance(value, dict):
        raise DataError(f"a reading must be an object; got {shown(value)}")
    check_keys(value, ("value", "low", "high", "n"))
    numbers = [value[key] for key in ("value", "low", "high", "n")]
    if not all(isinstance(number, int | float) for number in numbers):
        raise DataError(f"a reading must hold numbers; got {shown(value)}")
    return Estimate(float(numbers[0]), float(numbers[1]), float(numbers[2]), int(numbers[3]))
