"""The record of a run, the page that is made of it, and the index of all pages."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.errors import DataError
from persona.files import atomic_write_text

if TYPE_CHECKING:
    from steering.lab.outcome import Experiment, Outcome

BEGIN, END = "<!-- laboratory -->", "<!-- end of laboratory -->"
INDEX = "findings.md"
NEVER = "not run yet"


@dataclass(frozen=True)
class Run:
    """A finished run of an experiment, as readings.json holds it.

    numbers: label, value, low, high, n (questions), unit; undefined ones are null in the file.
    seconds: of the work behind it, whenever that was done. facts: by seed, what else is known.
    """

    name: str
    title: str
    date: str
    headline: str
    model: str
    model_revision: str
    dtype: str
    device: str
    seeds: tuple[int, ...]
    tiny: bool
    seconds: float
    fine_tunes: int
    answer_pairs: int
    numbers: tuple[Mapping[str, Any], ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def command(self) -> str:
        """What reruns it."""
        base = "" if self.model == "default" else f" --base {self.model}"
        return f"persona lab {self.name} --seeds {','.join(map(str, self.seeds))}{base}"


def write_run(path: Path, run: Run) -> None:
    """Writes readings.json: plain JSON, without NaN."""
    text = json.dumps(_plain(vars(run)), indent=2, ensure_ascii=False, allow_nan=False)
    atomic_write_text(path, text + "\n")


def read_run(path: Path) -> Run | None:
    """The run in a readings.json, None where there is no such file.

    Raises: DataError for a file that is something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        known = {f.name: values[f.name] for f in fields(Run)}
        known |= {"seeds": tuple(values["seeds"]), "numbers": tuple(values["numbers"])}
        for name in ("name", "date", "headline"):
            if not isinstance(values[name], str):
                raise TypeError(name)
        return Run(**known)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not the record of an experiment; remove it") from error


def page(experiment: Experiment, outcome: Outcome, run: Run) -> str:
    """The page of a run, as Markdown."""
    figures = "\n\n".join(
        f"![{experiment.title}: {name.replace('_', ' ')}]({run.name}/{name}.svg)"
        for name in outcome.figures
    )
    numbers = "\n".join(
        f"| {n['label']} | {shown(n)} | {n['n'] or '–'} | {n['unit']} |" for n in run.numbers
    )
    notes = "".join(f"{note}\n\n" for note in outcome.notes)
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
        f"{notes}"
        f"**What it does not show.** {experiment.not_shown}\n\n"
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


def index(pages: Path) -> str:
    """The table of all experiments with date and result of their last run, as Markdown."""
    from steering.lab.experiments import EXPERIMENTS

    lines = ["| experiment | last run | result |", "| --- | --- | --- |"]
    for name, experiment in EXPERIMENTS.items():
        run = read_run(pages / name / "readings.json")
        if run is None:
            lines.append(f"| {experiment.title} (`{name}`) | {NEVER} | – |")
        else:
            link = f"[{experiment.title}]({pages.name}/{name}.md) (`{name}`)"
            lines.append(f"| {link} | {run.date} | {run.headline.replace('|', '∣')} |")
    return "\n".join(lines)


def update_index(pages: Path) -> None:
    """Writes the table between its two marks into findings.md beside the folder, if there."""
    path = pages.parent / INDEX
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if begin and end:
        atomic_write_text(path, f"{before}{BEGIN}\n{index(pages)}\n{END}{after}")


def _plain(value: Any) -> Any:
    """Mappings and sequences as JSON has them; a number that is none becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
