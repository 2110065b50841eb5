"""A study from its plan to the table: every cell that is not there yet, then what all say."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.files import atomic_write_bytes, atomic_write_text
from persona.models.precision import Placement
from persona.progress import one_bar_only
from persona.run_line import RunLine
from persona.run_lock import alone_in
from steering.study.study_ahead import REGISTERED, StudyAhead, look_ahead, register, stage_name
from steering.study.study_cells import Cell, cells_of
from steering.study.study_page import answer, study_page
from steering.study.study_plan import Planned
from steering.study.study_table import StudyTable, TooFew, study_table

logger = logging.getLogger("persona")

READINGS, TABLE, PAGE = "readings.parquet", "study.json", "study.html"


@dataclass(frozen=True)
class Study:
    """What a study leaves behind. table: None while no recipe has two finished seeds."""

    table: StudyTable | None
    facts: dict[str, Any]
    folder: Path

    @property
    def summary(self) -> str:
        """How far it is, and its primary numbers."""
        cells = self.facts["cells"]
        told = f"{cells['finished']} of {cells['planned']} fine-tunes are finished"
        primary = [n for n in self.facts["numbers"] if n["name"] == self.facts["primary"]]
        return "\n".join([told, *map(answer, primary)])


def study(
    planned: Planned,
    out: str | Path,
    *,
    placement: Placement | None = None,
    at_most: int | None = None,
    ahead: StudyAhead | None = None,
) -> Study:
    """Runs what of a study is not there yet, and writes its table and page into `out`.

    readings.parquet has every reading, study.json every number with its intervals, study.html the
    page. A study that is not finished has those of its finished cells, and says so.
    Raises: PersonaError with one line for bad input; see `run_cells`.
    """
    folder = Path(out)
    cells = run_cells(planned, folder, placement=placement, at_most=at_most, ahead=ahead)
    return tell(planned, folder, cells)


def tell(planned: Planned, folder: Path, cells: Sequence[Cell]) -> Study:
    """The table and the page of the finished cells."""
    there = json.loads((folder / REGISTERED).read_text(encoding="utf-8"))
    facts = {
        "plan_sha256": planned.hash,
        "registered": there["registered"],
        "cells": {
            "planned": len(cells_of(planned, folder)),
            "finished": len(cells),
            "each": [cell.record() for cell in cells],
        },
        "plan": there["plan"],
        "primary": planned.plan.primary,
        "numbers": [],
    }
    try:
        table = study_table(planned.plan, cells)
    except TooFew as few:
        logger.info("no table yet: %s", few)
        return Study(None, facts, folder)
    facts |= table.as_json()
    buffer = io.BytesIO()
    table.readings().to_parquet(buffer, index=False)
    atomic_write_bytes(folder / READINGS, buffer.getvalue())
    atomic_write_text(folder / PAGE, study_page(table, facts))
    atomic_write_text(folder / TABLE, json.dumps(facts, indent=2, allow_nan=False) + "\n")
    return Study(table, facts, folder)


def run_cells(
    planned: Planned,
    out: str | Path,
    *,
    placement: Placement | None = None,
    at_most: int | None = None,
    ahead: StudyAhead | None = None,
) -> list[Cell]:
    """Runs the cells that are not finished, in the plan's order; returns all that are finished.

    The plan is registered in `out` before the first of them. A study stopped at any point and
    started again with the same `out` goes on where it was.
    at_most: cells to run now, None for all. ahead: what `look_ahead` has found.
    Raises: PersonaError with one line for bad input.
    """
    placement = placement or Placement.of()
    folder = Path(out)
    ahead = ahead or look_ahead(planned, folder, placement)
    to_do = [cell for cell in ahead.cells if cell.name not in ahead.finished]
    to_do = to_do if at_most is None else to_do[:at_most]
    cells = [cell for cell in ahead.cells if cell.name in ahead.finished or cell in to_do]
    line = RunLine(ahead.stages_of(cells))
    with alone_in(folder, {"plan_sha256": planned.hash}):
        register(planned, folder, placement)
        with line.shown():
            for cell in cells:
                _run(cell, placement, line, is_finished=cell not in to_do)
            line.finish()
    return cells


def _run(cell: Cell, placement: Placement, line: RunLine, *, is_finished: bool) -> None:
    """The stages of the diagnosis within say nothing: those of the study do."""
    if is_finished:
        for part, seconds in cell.record()["seconds"].items():
            line.kept(stage_name(cell, part), seconds)
            line.begin(stage_name(cell, part))
        return
    for part, do in cell.steps(placement):
        line.begin(stage_name(cell, part))
        with one_bar_only():
            do()
