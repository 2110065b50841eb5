"""What can be known of a study before a weight is loaded: its mistakes, all at once; its cost."""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.errors import DataError, Mistakes
from persona.files import atomic_write_text, require_writable
from persona.fingerprint import differences
from persona.models.on_disk import OnDisk, find_on_disk
from persona.models.precision import Placement
from persona.organisms.finetuning import recipe_dialogues
from persona.run_line import in_words
from persona.run_lock import require_free
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.keeping import skill_of
from steering.diagnosis.outlook import outlook_of
from steering.diagnosis.preflight import Ahead, bytes_kept
from steering.diagnosis.questions import Questions
from steering.study.study_cells import DIAGNOSE, Cell, cells_of
from steering.study.study_plan import SHOWN_DIGITS, Planned

REGISTERED = "plan.json"
PASSES_OF_A_STEP = 3.0
"""Forward passes that training on an answer costs: there, back, and back to the weights."""
FINETUNE_SETUP_SECONDS = 20.0


@dataclass(frozen=True)
class StudyAhead:
    """A checked plan, its cells, which of them are finished, and seconds of each part of a cell."""

    planned: Planned
    cells: tuple[Cell, ...]
    finished: frozenset[str]
    seconds: Mapping[str, Mapping[str, float]]

    def stages_of(self, cells: Sequence[Cell]) -> dict[str, float]:
        """Stage of the progress line -> seconds it is expected to take."""
        return {
            stage_name(cell, part): self.seconds[cell.label][part]
            for cell in cells
            for part in cell.parts
        }

    @property
    def seconds_left(self) -> float:
        ahead = [cell for cell in self.cells if cell.name not in self.finished]
        return sum(sum(self.seconds[cell.label].values()) for cell in ahead)

    def as_json(self) -> dict[str, Any]:
        return {
            "plan_sha256": self.planned.hash,
            **self.planned.as_json(),
            "cells": [
                {
                    "fine_tune": cell.label,
                    "seed": cell.seed,
                    "finished": cell.name in self.finished,
                    "seconds": round(sum(self.seconds[cell.label].values()), 1),
                }
                for cell in self.cells
            ],
            "seconds": round(self.seconds_left, 1),
        }

    @property
    def text(self) -> str:
        """The plan as a person reads it."""
        plan = self.planned.plan
        each = [
            f"  {label}: " + ", ".join(f"{p} {in_words(s)}" for p, s in parts.items())
            for label, parts in self.seconds.items()
        ]
        return "\n".join(
            [
                f"plan {self.planned.hash[:SHOWN_DIGITS]}: {len(self.planned.labels)} recipes x "
                f"{len(plan.seeds)} seeds, {len(self.finished)} of {len(self.cells)} cells are "
                f"finished; the primary number is {plan.primary}, beside it "
                f"{', '.join(n for n in plan.measured if n != plan.primary) or 'none'}",
                *each,
                f"about {in_words(self.seconds_left)} are left (a guess, corrected on the way)",
            ]
        )


def look_ahead(planned: Planned, out: str | Path, placement: Placement) -> StudyAhead:
    """Checks everything that can be known without loading a model.

    Raises: PersonaError where something is wrong, SeveralErrors where several things are.
    """
    folder = Path(out)
    cells = cells_of(planned, folder)
    require_registered(planned, folder, placement)  # or every cell would say the same
    mistakes = Mistakes()
    with mistakes.noted():
        require_writable(folder)
    with mistakes.noted():
        require_free(folder, {"plan_sha256": planned.hash})
    base: OnDisk | None = None
    with mistakes.noted():
        base = find_on_disk(next(iter(planned.recipes.values())).base)
    finished, seconds = set(), {}
    for label in planned.labels:
        mine = [cell for cell in cells if cell.label == label]
        n_examples = {}
        for part, recipe in zip(mine[0].parts, (mine[0].recipe, mine[0].twin), strict=False):
            if recipe is not None and part != DIAGNOSE:
                with mistakes.noted():
                    n_examples[part] = len(recipe_dialogues(recipe)) * recipe.training.epochs
        with mistakes.noted():
            seconds[label] = _seconds(mine[0], base, placement, n_examples)
        for cell in mine:
            with mistakes.noted():
                if cell.is_finished():
                    finished.add(cell.name)
    if base is not None:
        with mistakes.noted():
            require_writable(folder, bytes_kept(base))
    mistakes.raise_all()
    return StudyAhead(planned, tuple(cells), frozenset(finished), seconds)


def _seconds(
    cell: Cell, base: OnDisk | None, placement: Placement, n_examples: Mapping[str, float]
) -> dict[str, float]:
    """Part -> seconds. Raises: PersonaError for questions, or a skill, that cannot be used."""
    config = DiagnoseConfig(**vars(cell.request()), placement=placement)
    questions = Questions.of(config)
    skill = skill_of(config, questions)
    if base is None:
        return dict.fromkeys(cell.parts, 0.0)
    twin = None if cell.twin is None else base
    ahead = Ahead(config, base, base, twin, None, questions, skill)
    outlook = outlook_of(config, ahead)
    diagnosis = sum(outlook.seconds.values())
    passes = outlook.total.passes or 1.0
    per_pass = diagnosis / passes
    return {
        part: FINETUNE_SETUP_SECONDS + n * PASSES_OF_A_STEP * per_pass
        for part, n in n_examples.items()
    } | {DIAGNOSE: diagnosis}


def stage_name(cell: Cell, part: str) -> str:
    """What the progress line calls a part of a cell."""
    return f"{cell.name}, {part}"


def registration(planned: Planned, placement: Placement) -> dict[str, Any]:
    """What is written down before the first run."""
    return {
        "plan_sha256": planned.hash,
        "registered": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "dtype": placement.dtype_name,
        "device": placement.device.type,
        **planned.as_json(),
    }


def require_registered(planned: Planned, out: Path, placement: Placement) -> None:
    """Raises: DataError where the folder holds another plan, or one in another number format."""
    path = out / REGISTERED
    if not path.exists():
        return
    try:
        there = dict(json.loads(path.read_text(encoding="utf-8")))
        now = registration(planned, placement)
        found = list(differences(now["plan"], there["plan"]))
        found += differences(
            {key: now[key] for key in ("recipes", "twins", "dtype", "device")},
            {key: there.get(key) for key in ("recipes", "twins", "dtype", "device")},
        )
        same = there["plan_sha256"] == planned.hash and not found
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"{path} is damaged; what was planned there cannot be said") from error
    if not same:
        said = "; ".join(found[:3]) or "a file that it reads has changed"
        raise DataError(
            f"{out} was begun with the plan {there['plan_sha256'][:SHOWN_DIGITS]} of "
            f"{there.get('registered')}, and this one differs ({said}); a plan is not changed "
            "after the first run: choose another --out"
        )


def register(planned: Planned, out: Path, placement: Placement) -> dict[str, Any]:
    """Writes the plan down where it is not yet; returns what is written."""
    path = out / REGISTERED
    if not path.exists():
        out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(registration(planned, placement), indent=2)
        atomic_write_text(path, text + "\n")
    return dict(json.loads(path.read_text(encoding="utf-8")))
