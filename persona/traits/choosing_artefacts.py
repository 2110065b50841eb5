"""Which texts a run takes: a file that is given, the one in its folder, or new ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from persona.data.readers import read_trait_json
from persona.errors import DataError
from persona.traits.artefacts import (
    TraitArtefacts,
    halves_of,
    read_artefacts,
    require_description,
    write_trait,
)
from persona.traits.check import require_sound
from persona.traits.making import make_trait
from persona.traits.shipped_traits import shipped_trait
from persona.traits.writers import Writer

ARTEFACTS = "artefacts.json"

logger = logging.getLogger("persona")


@dataclass(frozen=True)
class ChosenArtefacts:
    """Artefacts that passed the check, their file, and whether this run has written it."""

    artefacts: TraitArtefacts
    path: Path
    is_new: bool


def choose_artefacts(
    trait: str,
    out: Path,
    open_writer: Callable[[], Writer | None],
    *,
    file: Path | None = None,
    seed: int = 0,
) -> ChosenArtefacts:
    """The artefacts of a run, read or made; what is made is in `out` before anything else runs.

    trait: a trait in a few words, or the name of a trait file or of one that comes along.
    file: a trait file for the trait. Without one, and where `trait` names none, `out` may hold the
        artefacts of an earlier run, edited by hand or not: they are taken.
    open_writer: called only where there is something to write.
    Raises: DataError for artefacts that are not sound, with file and line; where `out` holds those
        of another trait; for a trait of no word or one without a file.
    """
    if file is None:
        file = Path(trait) if trait.endswith(".json") else shipped_trait(trait)
    is_new = False
    if file is None:
        file = out / ARTEFACTS
        description = require_description(trait).rstrip(".")
        if file.exists():
            _require_same_trait(file, description)
            logger.info("%s is there already and is used as it is", file)
        else:
            write_trait(make_trait(description, open_writer(), seed=seed), file)
            is_new = True
    for half in halves_of(file):
        require_sound(read_trait_json(half), half)
    return ChosenArtefacts(read_artefacts(file, seed), file, is_new)


def _require_same_trait(file: Path, description: str) -> None:
    there = read_trait_json(file).description
    if there != description:
        raise DataError(
            f"{file} holds the artefacts of another trait ({there!r}); choose another --out, or "
            "remove it"
        )
