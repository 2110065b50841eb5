"""An experiment run over its seeds, and the files that are made of it."""

from __future__ import annotations

import dataclasses
import datetime
import io
import logging
from pathlib import Path
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text, remove_leftovers
from persona.report.svg import figure_svg
from persona.rows import RANDOM, tidy
from steering.lab.answers_on_page import answers_block
from steering.lab.bench.experiment import COLUMNS, Experiment, Findings
from steering.lab.bench.plan import Tally
from steering.lab.bench.record import Run, read_run, write_run
from steering.lab.bench.settings import LabSettings
from steering.lab.bench.workbench import Workbench
from steering.lab.catalogue import EXPERIMENTS
from steering.lab.pages import page, update_index

logger = logging.getLogger("persona")


ROWS, READINGS, FIGURE = "rows.parquet", "readings.json", "figure"


WRITING_SECONDS = 3600.0
"""No process writes one file for longer; experiments that run beside each other share steps."""


def run_experiment(experiment: Experiment, settings: LabSettings, pages: Path | None = None) -> Run:
    """Runs an experiment over its seeds and writes rows, readings and figures into settings.out.

    pages: folder that gets NAME.md and NAME/ (rows.parquet, readings.json, figures as SVG), and
        whose neighbour findings.md gets the new line of its table; left alone by a tiny run. A run
        that was killed goes on from its finished steps, seed by seed, and a finished one is read,
        not made again.
    Raises: PersonaError with one line for bad input.
    """
    settings = dataclasses.replace(settings, base=settings.base or experiment.base)
    seeds = settings.seeds or experiment.seeds[: 1 if settings.tiny else None]
    base = Workbench(settings, seeds[0])
    for folder in (base.steps.folder, settings.out / experiment.name):
        remove_leftovers(folder, older_than=WRITING_SECONDS)
    benches = [base.at_seed(seed, first=seed == seeds[0]) for seed in seeds]
    tally = Tally([experiment.plan(bench) for bench in benches])
    shown = ", ".join(map(str, seeds))
    logger.info("%s, seed %s: %s.", experiment.name, shown, tally.plan.told(base.base))
    parts, facts = [], {}
    for bench in benches:
        bench.tally = tally
        measured = experiment.measure(bench)
        parts.append(of_seed(tidy(measured.rows, COLUMNS), bench.seed))
        facts[bench.seed] = measured.facts
    rows = pd.concat(parts, ignore_index=True)
    if rows.duplicated().any():
        raise DataError(f"{experiment.name} gave the same row twice; its results are not written")
    findings = experiment.report(rows, facts)
    run = Run(
        name=experiment.name,
        title=experiment.title,
        date=datetime.date.today().isoformat(),
        headline=findings.headline,
        model=base.base,
        model_revision=base.base_revision,
        dtype=settings.placement.dtype_name,
        device=str(settings.placement.device),
        seeds=tuple(seeds),
        tiny=settings.tiny,
        seconds=round(base.steps.seconds, 1),
        fine_tunes=tally.done.fine_tunes,
        answer_pairs=tally.done.answer_pairs,
        numbers=_numbers(findings),
        facts={str(seed): dict(found) for seed, found in facts.items()},
    )
    folder = settings.out / experiment.name
    for name, figure in findings.figures.items():
        html = figure.to_html(include_plotlyjs=True, full_html=True)
        atomic_write_text(folder / f"{name}.html", html)
    _write(folder, rows, run, findings)
    if pages is not None and not settings.tiny:
        _write(pages / experiment.name, rows, run, findings)
        _write_page(pages, experiment, findings, run)
    return run


def redraw(experiment: Experiment, pages: Path) -> Run:
    """Makes numbers, figures and page of the run in `pages` anew from its rows; runs no model.

    Words, intervals and figures are today's, rows and date those of the run.
    Raises: DataError where there is no such run, or its rows lack what the report reads.
    """
    folder = pages / experiment.name
    run = read_run(folder / READINGS)
    if run is None or not (folder / ROWS).is_file():
        raise DataError(f"{folder} holds no finished run of {experiment.name} to be drawn anew")
    rows = pd.read_parquet(folder / ROWS)
    try:
        findings = experiment.report(
            tidy(rows, COLUMNS), {int(seed): found for seed, found in run.facts.items()}
        )
    except KeyError as missing:
        raise DataError(
            f"the rows of {folder} are older than the report: they lack {missing}"
        ) from missing
    run = dataclasses.replace(
        run, title=experiment.title, headline=findings.headline, numbers=_numbers(findings)
    )
    _write(folder, rows, run, findings)
    _write_page(pages, experiment, findings, run)
    return run


def _numbers(findings: Findings) -> tuple[dict[str, Any], ...]:
    return tuple({"label": n.label, **vars(n.estimate), "unit": n.unit} for n in findings.numbers)


def _write_page(pages: Path, experiment: Experiment, findings: Findings, run: Run) -> None:
    text = page(experiment, findings, run, answers_block(pages / experiment.name))
    atomic_write_text(pages / f"{experiment.name}.md", text)
    update_index(pages, EXPERIMENTS)


def of_seed(rows: pd.DataFrame, seed: int) -> pd.DataFrame:
    """The rows of one seed of the fine-tunes; the seed of a random control moves to `draw`."""
    drawn = (rows["condition"] == RANDOM) | (rows["stage"] == "toy")
    return rows.assign(draw=rows["seed"].where(drawn), seed=seed)


def last_run(name: str, *folders: Path) -> Run | None:
    """The newest run of an experiment in any of these folders of results; None without one.

    Tiny runs are no results and count only where there is nothing else.
    Raises: DataError for a file that is no record of a run.
    """
    found = [run for folder in folders if (run := read_run(folder / name / READINGS)) is not None]
    return max(found, key=lambda run: (not run.tiny, run.date), default=None)


def _write(folder: Path, rows: pd.DataFrame, run: Run, findings: Findings) -> None:
    """readings.json comes last: a folder that has it is whole."""
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False, compression="zstd")
    atomic_write_bytes(folder / ROWS, buffer.getvalue())
    for name, figure in findings.figures.items():
        atomic_write_text(folder / f"{name}.svg", figure_svg(figure))
    write_run(folder / READINGS, run)
