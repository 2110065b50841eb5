"""report.html: one file that a person reads, opens offline and asks nothing of the network."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from persona.behaviour.judging.two_errors import errors_in_words
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.report import figures, sections
from persona.report.skill_words import skill_sentence
from persona.report.tables import checked, seed_of
from persona.report.theme import candidate_label, template, without_title
from persona.report.verdict_checks import check_lines, power_in_words
from persona.report.verdict_words import limits_of, verdict_words
from persona.report.wording import as_float, blocks, cleaned, duration, memory, number

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

REPORT_NAME = "report.html"


def write_report(
    out_dir: str | Path,
    scorecard: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    questions: Mapping[str, str] | None = None,
) -> Path:
    """Write report.html into a folder and return its path; the same input gives the same bytes.

    Stages that are missing from the rows, and numbers that are null, are named as absent.

    Args:
        scorecard: The fields of scorecard.json.
        rows: The table of rows.parquet.
        questions: Question id to its text, for the example answers; where it is missing, rows of
            the stage "sample" with the measure "question" are used.

    Raises:
        DataError: the rows lack a column of rows.parquet.
        OSError: the folder cannot be written.
    """
    path = Path(out_dir) / REPORT_NAME
    atomic_write_text(path, render_report(scorecard, rows, questions=questions))
    return path


def render_report(
    scorecard: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    questions: Mapping[str, str] | None = None,
) -> str:
    """The page as text."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    checked(rows)
    environment = Environment(
        loader=PackageLoader("persona.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def shipped(name: str) -> Markup:
        # Written here and by plotly, so not escaped; a script must still not end itself.
        assert environment.loader is not None
        return Markup(environment.loader.get_source(environment, name)[0])

    plots = _plots(scorecard, rows)
    page = environment.get_template("report.html.jinja").render(
        **_context(scorecard, rows, questions),
        plots=plots,
        style=shipped("report.css"),
        script=shipped("report.js"),
        plotly_js=Markup(get_plotlyjs()),
        templates=_json_for_script({mode: template(mode) for mode in ("light", "dark")}),
    )
    return page


@dataclass(frozen=True)
class Plot:
    """A figure on the page, or why it is not there."""

    key: str
    title: str
    subtitle: str
    json: Any
    height: int
    absence: str


def _plots(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Plot]:
    direction = scorecard.get("direction") or {}
    make: dict[str, Callable[[], Figure]] = {
        "layer_map": lambda: figures.layer_map(rows, direction),
        "two_by_two": lambda: figures.effects_by_block(
            rows, direction, d_model=_d_model(scorecard)
        ),
        "dose_response": lambda: figures.dose_response_curve(
            rows,
            chosen_coefficient=as_float(direction.get("coefficient")),
            seed=seed_of(scorecard),
        ),
        "random_null": lambda: figures.random_null(rows, scorecard),
        "behaviour": lambda: figures.behaviour(rows, scorecard),
        "behaviour_by_domain": lambda: figures.behaviour_by_domain(rows, scorecard),
        "damage": lambda: figures.damage(rows, scorecard),
    }
    return {key: _plot(key, make_one) for key, make_one in make.items()}


def _plot(key: str, make: Callable[[], Figure]) -> Plot:
    """The figure for the page, which sets the title itself; a DataError is a stated absence."""
    try:
        figure = make()
    except DataError as absent:
        return Plot(key, "", "", None, 0, cleaned(absent))
    bare = without_title(figure)
    content = json.loads(bare.to_json())
    content["layout"].pop("template", None)  # the page adds that of the reader's mode
    title = figure.layout.title
    return Plot(
        key,
        title.text,
        title.subtitle.text,
        _json_for_script(content),
        int(bare.layout.height),
        "",
    )


def _json_for_script(value: Any) -> Any:
    """JSON that can stand inside a script element: nothing in it can end the element."""
    from markupsafe import Markup

    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _context(
    scorecard: Mapping[str, Any], rows: pd.DataFrame, questions: Mapping[str, str] | None
) -> dict[str, Any]:
    direction = scorecard.get("direction") or {}
    chosen = sections.chosen_blocks(direction)
    judged = sections.was_judged(scorecard)
    found = sections.examples(rows, questions)
    return {
        "verdict": verdict_words(scorecard),
        "models": _names(scorecard.get("models")),
        "numbers": sections.key_numbers(scorecard, rows),
        "checks": check_lines(scorecard),
        "power": power_in_words(scorecard),
        "placebos": sections.placebo_lines(scorecard),
        "above_neutral_text": sections.above_neutral_text(scorecard),
        "induction_controls": sections.induction_in_words(scorecard),
        "conditions": sections.condition_lines(scorecard),
        "skill": skill_sentence(scorecard),
        "judged": judged,
        "judged_twice": sections.was_judged(scorecard, "em_rate_without_direction"),
        "judge": cleaned((scorecard.get("judge") or {}).get("name") or "not named"),
        "judge_errors": errors_in_words(scorecard.get("judge")),
        "misaligned_below": number((scorecard.get("judge") or {}).get("misaligned_below", 30), 0),
        "method": candidate_label(str(direction.get("method") or "no method named")),
        "method_name": cleaned(direction.get("method") or ""),
        "rank": number(direction.get("rank"), 0),
        "blocks": blocks(direction.get("layers")),
        "coefficient": number(direction.get("coefficient")),
        "chosen": chosen,
        "cosine_range": sections.cosine_range(chosen),
        "chance_cosine": sections.chance_cosine(direction.get("rank"), _d_model(scorecard)),
        "tried": sections.tried_lines(rows, direction, seed_of(scorecard)),
        "opening": found.opening,
        "examples": found.questions,
        "sampled": sections.sampled(scorecard),
        "greedy": found.greedy,
        "drawn": sections.draws(rows, questions),
        "limits": limits_of(scorecard, judged=judged),
        "provenance": [
            (title, sections.provenance(scorecard.get(key)))
            for title, key in (("Models", "models"), ("Data", "data"), ("Versions", "versions"))
            if scorecard.get(key)
        ],
        "run": [
            ("seed", cleaned(scorecard.get("seed", "not recorded"))),
            ("random draws", _draws(scorecard)),
            ("time", duration(scorecard.get("seconds"))),
            ("most memory held", memory(scorecard.get("peak_rss_bytes"))),
            ("rows behind this page", f"{len(rows):,}".replace(",", " ")),
            ("scorecard version", cleaned(scorecard.get("schema_version", "not recorded"))),
        ],
    }


def _d_model(scorecard: Mapping[str, Any]) -> int | None:
    """Width of the residual stream, where the scorecard says it."""
    models = scorecard.get("models")
    known = as_float(models.get("d_model")) if isinstance(models, Mapping) else None
    return int(known) if known else None


def _names(models: Any) -> dict[str, str]:
    """What the two models are called; models: names, or mappings with a name, by side."""
    names = {}
    for side in ("aligned", "finetuned"):
        known = models.get(side) if isinstance(models, Mapping) else None
        if isinstance(known, Mapping):
            known = next((known[k] for k in ("name", "id", "source", "path") if known.get(k)), None)
        names[side] = cleaned(known) if known else "not recorded"
    return names


def _draws(scorecard: Mapping[str, Any]) -> str:
    null = scorecard.get("random_restoration")
    return number(null.get("n"), 0) if isinstance(null, Mapping) else "not recorded"
