"""What an experiment hands back, and the files and the page that are made of it."""

from __future__ import annotations

import datetime
import io
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona.behaviour.intervals import Estimate
from persona.errors import DataError
from persona.files import atomic_write_bytes, atomic_write_text
from steering.lab.settings import LabSettings
from steering.lab.workbench import Workbench

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

logger = logging.getLogger("persona")

SUMMARY = "summary.json"


@dataclass(frozen=True)
class Number:
    """One number of a page: what it is, its value with a 95 % interval, its unit."""

    label: str
    estimate: Estimate
    unit: str = "nats per token"

    def __str__(self) -> str:
        e = self.estimate
        if e.value != e.value:
            return "undefined"
        return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}], n = {e.n}"


@dataclass(frozen=True)
class Outcome:
    """rows: what was measured, one row a question (or draw). headline: the answer in one line.

    extra: further JSON files by name, such as a scorecard.
    """

    rows: pd.DataFrame
    figure: Figure
    numbers: tuple[Number, ...]
    headline: str
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """A plain function over the workbench, with what its page says around the numbers.

    method, not_shown: sentences; not_shown says what a reader must not conclude.
    """

    name: str
    title: str
    question: str
    method: str
    not_shown: str
    run: Callable[[Workbench], Outcome]


@dataclass(frozen=True)
class Summary:
    """The last run of an experiment."""

    name: str
    date: str
    headline: str
    seconds: float
    tiny: bool


def run_experiment(
    experiment: Experiment, settings: LabSettings, pages: Path | None = None
) -> Summary:
    """Runs an experiment and writes rows.parquet, figure.html, figure.png and summary.json.

    pages: folder that gets NAME.md with its figure and summary; left alone by a tiny run. A run
    that was killed goes on from its finished steps, and a finished one is read, not made again.
    Raises: PersonaError with one line for bad input.
    """
    bench = Workbench(settings)
    outcome = experiment.run(bench)
    if outcome.rows.duplicated().any():
        raise DataError(f"{experiment.name} gave the same row twice; its results are not written")
    summary = Summary(
        experiment.name,
        datetime.date.today().isoformat(),
        outcome.headline,
        round(bench.steps.seconds, 1),
        settings.tiny,
    )
    folder = settings.out / experiment.name
    buffer = io.BytesIO()
    outcome.rows.to_parquet(buffer, index=False)
    atomic_write_bytes(folder / "rows.parquet", buffer.getvalue())
    atomic_write_text(
        folder / "figure.html", outcome.figure.to_html(include_plotlyjs=True, full_html=True)
    )
    for name, content in outcome.extra.items():
        atomic_write_text(folder / f"{name}.json", json.dumps(content, indent=2) + "\n")
    image = None if settings.tiny else _image(outcome.figure)
    if image is not None:
        atomic_write_bytes(folder / "figure.png", image)
    _write_summary(folder / SUMMARY, summary)
    if pages is not None and not settings.tiny:
        if image is not None:
            atomic_write_bytes(pages / f"{experiment.name}.png", image)
        text = page(experiment, outcome, summary, settings, with_image=image is not None)
        atomic_write_text(pages / f"{experiment.name}.md", text)
        _write_summary(pages / f"{experiment.name}.json", summary)
    return summary


def page(
    experiment: Experiment,
    outcome: Outcome,
    summary: Summary,
    settings: LabSettings,
    *,
    with_image: bool,
) -> str:
    """The page of a run, as Markdown."""
    figure = f"![{experiment.title}]({experiment.name}.png)\n\n" if with_image else ""
    numbers = "\n".join(f"| {n.label} | {n} | {n.unit} |" for n in outcome.numbers)
    return (
        f"# {experiment.title}\n\n"
        f"{summary.date}, `persona lab {experiment.name}`, model `{settings.base}`, seed "
        f"{settings.seed}, {summary.seconds / 60:.0f} minutes of work.\n\n"
        f"**Question.** {experiment.question}\n\n"
        f"**Result.** {outcome.headline}\n\n"
        f"**Method.** {experiment.method}\n\n"
        f"{figure}"
        "| reading | value [95 %] | unit |\n| --- | --- | --- |\n"
        f"{numbers}\n\n"
        f"**What it does not show.** {experiment.not_shown}\n"
    )


def last_run(name: str, out: Path, pages: Path | None) -> Summary | None:
    """The newest run of an experiment, from its results or its page; None where there is none.

    Tiny runs are no results and count only where there is nothing else.
    """
    places = [out / name / SUMMARY] + ([] if pages is None else [pages / f"{name}.json"])
    found = [summary for path in places if (summary := _read_summary(path)) is not None]
    return max(found, key=lambda s: (not s.tiny, s.date), default=None)


def _write_summary(path: Path, summary: Summary) -> None:
    atomic_write_text(path, json.dumps(vars(summary), indent=2) + "\n")


def _read_summary(path: Path) -> Summary | None:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Summary(
            str(values["name"]),
            str(values["date"]),
            str(values["headline"]),
            float(values["seconds"]),
            bool(values["tiny"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the summary of an experiment; remove it") from error


def _image(figure: Figure) -> bytes | None:
    """The figure as PNG, None where there is no browser to draw it with."""
    try:
        return bytes(figure.to_image(format="png", width=900, scale=2))
    except Exception as error:  # kaleido raises whatever its browser did
        first = (str(error).splitlines() or [type(error).__name__])[0][:120]
        logger.warning("no picture of the figure (%s); figure.html has it", first)
        return None
