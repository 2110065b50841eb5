"""The page that is made of a run, and the index of all pages."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona.files import atomic_write_text
from steering.lab.answers_on_page import ENDS
from steering.lab.bench.experiment import Experiment, Findings
from steering.lab.bench.record import Run, read_run

BEGIN, END = "<!-- laboratory -->", "<!-- end of laboratory -->"
INDEX = "findings.md"
NEVER = "not run yet"


def page(experiment: Experiment, findings: Findings, run: Run, answers: str = "") -> str:
    """The page of a run, as Markdown. answers: see `answers_block`."""
    figures = "\n\n".join(
        f"![{experiment.title}: {name.replace('_', ' ')}]({run.name}/{name}.svg)"
        for name in findings.figures
    )
    numbers = "\n".join(
        f"| {n['label']} | {shown(n)} | {n['n'] or '–'} | {n['unit']} |" for n in run.numbers
    )
    notes = "".join(f"{note}\n\n" for note in findings.notes)
    seeds = ("seed " if len(run.seeds) == 1 else "seeds ") + ", ".join(map(str, run.seeds))
    over = "questions" if len(run.seeds) == 1 else "questions and seeds"
    return (
        f"# {experiment.title}\n\n"
        f"**Question.** {experiment.question}\n\n"
        f"**Result.** {run.headline}.\n\n"
        f"**Method.** {experiment.method}\n\n"
        f"{figures}\n\n"
        f"| reading | value [95 % over {over}] | n | unit |\n| --- | --- | --- | --- |\n"
        f"{numbers}\n\n"
        f"{notes}{answers}"
        f"{ENDS} {experiment.not_shown}\n\n"
        f"{run.date}, model `{run.model}` ({run.model_revision}, {run.dtype}, {run.device}), "
        f"{seeds}: {run.fine_tunes} fine-tunes, {run.answer_pairs} answer pairs scored, "
        f"{run.seconds / 60:.0f} minutes of work. "
        f"[Readings]({run.name}/readings.json) and [rows]({run.name}/rows.parquet) lie beside the "
        f"page. Again: `{run.command}`\n"
    )


def shown(number: Mapping[str, Any]) -> str:
    """A number with its interval, in words where it is undefined."""
    if number["value"] is None or math.isnan(number["value"]):
        return "undefined"
    return f"{number['value']:+.3f} [{number['low']:+.3f}, {number['high']:+.3f}]"


def index(pages: Path, experiments: Mapping[str, Experiment]) -> str:
    """The table of all experiments with date and result of their last run, as Markdown."""
    lines = ["| experiment | last run | result |", "| --- | --- | --- |"]
    for name, experiment in experiments.items():
        run = read_run(pages / name / "readings.json")
        if run is None:
            lines.append(f"| {experiment.title} (`{name}`) | {NEVER} | – |")
        else:
            link = f"[{experiment.title}]({pages.name}/{name}.md) (`{name}`)"
            lines.append(f"| {link} | {run.date} | {run.headline.replace('|', '∣')} |")
    return "\n".join(lines)


def update_index(pages: Path, experiments: Mapping[str, Experiment]) -> None:
    """Writes the table between its two marks into findings.md beside the folder, if there."""
    path = pages.parent / INDEX
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        atomic_write_text(path, f"{before}{BEGIN}\n{index(pages, experiments)}\n{END}{after}")
