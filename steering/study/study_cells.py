"""One fine-tune of a study: trained, its twin too, and read; finished once and for all."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from persona.directions.storage import tool_version
from persona.errors import DataError
from persona.files import atomic_write_text, sha256_of_file
from persona.models.precision import Placement
from persona.organisms.recipe import Recipe
from persona.organisms.run_folder import CARD
from steering.diagnosis.config import DiagnoseConfig, DiagnosisRequest
from steering.study.study_plan import Planned

FINE_TUNES, CELLS = "fine_tunes", "cells"
RECORD, ROWS = "cell.json", "rows.parquet"
FINE_TUNE, TWIN, DIAGNOSE = "fine-tune", "twin", "diagnosis"


@dataclass(frozen=True)
class Cell:
    """A recipe and a seed in the folder of a study."""

    planned: Planned
    label: str
    seed: int
    out: Path

    @property
    def name(self) -> str:
        return f"{self.label}, seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Of the diagnosis."""
        return self.out / CELLS / self.label / f"seed-{self.seed}"

    @property
    def recipe(self) -> Recipe:
        return self.planned.recipes[self.label]

    @property
    def twin(self) -> Recipe | None:
        return self.planned.twins.get(self.label)

    @property
    def parts(self) -> list[str]:
        """What is done for it, in order."""
        return [FINE_TUNE, *([TWIN] if self.twin else []), DIAGNOSE]

    def adapter(self, recipe: Recipe) -> Path:
        """Folder of a fine-tune, which cells with the same twin share."""
        return self.out / FINE_TUNES / recipe.name / f"seed-{self.seed}"

    def request(self) -> DiagnosisRequest:
        """How it is read, as far as the plan says it."""
        plan = self.planned.plan.diagnosis
        trained_on = self.planned.of(self.label).trained_on or self.recipe.data.domains
        return DiagnosisRequest(
            finetuned=str(self.adapter(self.recipe)),
            out=self.folder,
            aligned=self.recipe.base,
            data=self.planned.data,
            trained_on=trained_on or None,
            validation_domains=plan.validation_domains,
            questions_per_domain=plan.questions_per_domain,
            n_random=plan.n_random,
            seed=plan.seed,
            max_damage=plan.max_damage,
            good_twin=None if self.twin is None else str(self.adapter(self.twin)),
            samples=plan.samples,
            keep=self.planned.skill(self.label),
        )

    def is_finished(self) -> bool:
        """Whether it is there, whole, and of this plan.

        Raises: DataError where what is there belongs to another plan, or its rows have changed.
        """
        record = self.folder / RECORD
        if not record.exists():
            return False
        try:
            found = json.loads(record.read_text(encoding="utf-8"))
            of_plan, rows = str(found["plan_sha256"]), str(found["rows_sha256"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise DataError(f"{record} is damaged; remove {self.folder} to read it anew") from error
        if of_plan != self.planned.hash:
            raise DataError(
                f"{self.folder} is of the plan {of_plan[:12]}, and this is the plan "
                f"{self.planned.hash[:12]}; choose another --out"
            )
        there = self.folder / ROWS
        if not there.is_file() or sha256_of_file(there) != rows:
            raise DataError(
                f"{there} is not what this cell wrote; remove {self.folder} to read it anew"
            )
        return True

    def record(self) -> dict[str, Any]:
        """What a finished cell says of itself."""
        return dict(json.loads((self.folder / RECORD).read_text(encoding="utf-8")))

    def rows(self) -> pd.DataFrame:
        """The rows of a finished cell; `fine_tune` and `fine_tune_seed` say which."""
        rows = pd.read_parquet(self.folder / ROWS)
        return rows.assign(fine_tune=self.label, fine_tune_seed=self.seed)

    def steps(self, placement: Placement) -> list[tuple[str, Callable[[], None]]]:
        """Its parts with what does each; one that was killed goes on where it was."""
        tuned = ((FINE_TUNE, self.recipe), (TWIN, self.twin))
        return [
            *((part, partial(self._train, one, placement)) for part, one in tuned if one),
            (DIAGNOSE, partial(self._read, placement)),
        ]

    def _train(self, recipe: Recipe, placement: Placement) -> None:
        from steering.training import finetune_guarded

        adapter = self.adapter(recipe)
        finetune_guarded(recipe.with_seed(self.seed), adapter, placement=placement)

    def _read(self, placement: Placement) -> None:
        """The diagnosis, and the record that says the cell is finished."""
        from steering.diagnosis.run import diagnose

        found = diagnose(DiagnoseConfig(**vars(self.request()), placement=placement)).scorecard
        cards = [_card(self.adapter(one)) for one in (self.recipe, self.twin) if one]
        record = {
            "plan_sha256": self.planned.hash,
            "fine_tune": self.label,
            "seed": self.seed,
            "adapter_sha256": cards[0]["adapter_sha256"],
            "twin_sha256": cards[1]["adapter_sha256"] if self.twin else None,
            "rows_sha256": sha256_of_file(self.folder / ROWS),
            "verdict": found["verdict"],
            "dtype": found["models"].get("dtype"),
            "seconds": dict(
                zip(self.parts, [*(c["seconds"] for c in cards), found["seconds"]], strict=True)
            ),
            "tool_version": tool_version(),
        }
        atomic_write_text(self.folder / RECORD, json.dumps(record, indent=2) + "\n")


def cells_of(planned: Planned, out: Path) -> list[Cell]:
    """Every cell, all recipes of one seed before the next: a study cut short has whole seeds."""
    return [
        Cell(planned, label, seed, out) for seed in planned.plan.seeds for label in planned.labels
    ]


def _card(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / CARD).read_text(encoding="utf-8")))
