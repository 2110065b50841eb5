"""report.html: one file that a person reads, opens offline and asks nothing of the network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from persona.behaviour.judging.two_errors import errors_in_words
from persona.files import atomic_write_text
from persona.report import sections
from persona.report.glossary import Glossary
from persona.report.limits import limits_of
from persona.report.next_steps import next_steps
from persona.report.page_figures import page_figures, width_of
from persona.report.page_templates import render_page
from persona.report.plain_sentences import plain_sentences
from persona.report.random_choices import random_choices
from persona.report.resembled_words import resemblance_sentence
from persona.report.skill_words import aim_in_words, skill_sentence
from persona.report.style_words import style_sentence
from persona.report.tables import checked, seed_of
from persona.report.theme import candidate_label
from persona.report.time_words import stages_in_words
from persona.report.verdict_checks import check_lines, power_in_words, unmet_in_short
from persona.report.verdict_words import training_known, verdict_words
from persona.report.wording import as_float, blocks, cleaned, duration, memory, number, percent
from persona.rows import FINETUNED, drawn_questions

REPORT_NAME = "report.html"


def write_report(
    out_dir: str | Path,
    scorecard: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    questions: Mapping[str, str] | None = None,
    interactive: bool = False,
) -> Path:
    """Write report.html into a folder and return its path; the same input gives the same bytes.

    Stages that are missing from the rows, and numbers that are null, are named as absent.

    Args:
        scorecard: The fields of scorecard.json, of any version.
        rows: The table of rows.parquet.
        questions: Question id to its text, for the example answers; where it is missing, rows of
            the stage "sample" with the measure "question" are used.
        interactive: Take plotly into the page (5 MB), which tells each value under the mouse; the
            figures are else drawn without any script.

    Raises:
        DataError: the rows lack a column of rows.parquet.
        OSError: the folder cannot be written.
    """
    path = Path(out_dir) / REPORT_NAME
    page = render_report(scorecard, rows, questions=questions, interactive=interactive)
    atomic_write_text(path, page)
    return path


def render_report(
    scorecard: Mapping[str, Any],
    rows: pd.DataFrame,
    *,
    questions: Mapping[str, str] | None = None,
    interactive: bool = False,
    reading: Mapping[str, Any] | None = None,
) -> str:
    """The page as text; see `write_report`. reading: the fields of reading.json of `persona read`
    on the same two models, which then have a section."""
    checked(rows)
    return render_page(
        "report.html.jinja",
        {
            **_context(scorecard, rows, questions),
            "learnt": sections.what_it_learnt(reading),
            "plots": page_figures(scorecard, rows),
            "glossary": Glossary(),
        },
        interactive=interactive,
    )


def _context(
    scorecard: Mapping[str, Any], rows: pd.DataFrame, questions: Mapping[str, str] | None
) -> dict[str, Any]:
    return {
        **_head(scorecard, rows),
        **_numbers(scorecard, rows),
        **_answers(scorecard, rows, questions),
        **_choice(scorecard, rows),
        **_end(scorecard, rows),
    }


def _head(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The verdict, in plain sentences and in full."""
    asked, scored = drawn_questions(rows), drawn_questions(rows, FINETUNED)
    return {
        "verdict": verdict_words(scorecard),
        "plain": plain_sentences(scorecard),
        "models": _names(scorecard.get("models")),
        "checks": check_lines(scorecard),
        "power": power_in_words(scorecard),
        "unmet": unmet_in_short(scorecard),
        "fewer_questions": len(asked) if 0 < len(asked) < len(scored) else 0,
    }


def _numbers(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """Key numbers, controls, and the table of conditions."""
    random = random_choices(scorecard)
    judge = scorecard.get("judge") or {}
    return {
        "numbers": sections.key_numbers(scorecard, rows),
        "random": random,
        "screened": bool(scorecard.get("nulls")) and not scorecard.get("random_restoration"),
        "strongest": "" if random is None or random.largest is None else percent(random.largest),
        "placebos": sections.placebo_lines(scorecard),
        "above_neutral_text": sections.above_neutral_text(scorecard),
        "induction_controls": sections.induction_in_words(scorecard),
        "conditions": sections.condition_lines(scorecard, rows),
        "style_share": style_sentence(scorecard),
        "skill": skill_sentence(scorecard),
        "resembled": resemblance_sentence(scorecard),
        "skill_aim": aim_in_words(scorecard),
        "training_known": training_known(scorecard),
        "judged": sections.was_judged(scorecard),
        "rated": sections.was_judged(scorecard, "em_rate"),
        "coherence_known": sections.was_judged(scorecard, "coherence"),
        "judged_twice": sections.was_judged(scorecard, "em_rate_without_direction"),
        "judge": cleaned(judge.get("name") or "not named"),
        "judge_errors": errors_in_words(scorecard.get("judge")),
        "misaligned_below": number(judge.get("misaligned_below", 30), 0),
    }


def _answers(
    scorecard: Mapping[str, Any], rows: pd.DataFrame, questions: Mapping[str, str] | None
) -> dict[str, Any]:
    """What the models said, and how it was sampled."""
    found = sections.examples(rows, questions)
    return {
        "opening": found.opening,
        "examples": found.questions,
        "sampled": sections.sampled(scorecard),
        "greedy": found.greedy,
        "drawn": sections.draws(rows, questions),
    }


def _choice(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """The chosen direction and what else was tried."""
    direction = scorecard.get("direction") or {}
    chosen = sections.chosen_blocks(direction)
    return {
        "method": candidate_label(str(direction.get("method") or "no method named")),
        "method_name": cleaned(direction.get("method") or ""),
        "rank": number(direction.get("rank"), 0),
        "blocks": blocks(direction.get("layers")),
        "coefficient": number(direction.get("coefficient")),
        "chosen": chosen,
        "cosine_range": sections.cosine_range(chosen),
        "chance_cosine": sections.chance_cosine(direction.get("rank"), width_of(scorecard)),
        "tried": sections.tried_lines(rows, direction, seed_of(scorecard)),
    }


def _end(scorecard: Mapping[str, Any], rows: pd.DataFrame) -> dict[str, Any]:
    """Next steps, limits, and what the result was made of."""
    return {
        "next_steps": next_steps(scorecard),
        "limits": limits_of(scorecard, judged=sections.was_judged(scorecard)),
        "provenance": [
            (title, sections.provenance(scorecard.get(key)))
            for title, key in (("Models", "models"), ("Data", "data"), ("Versions", "versions"))
            if scorecard.get(key)
        ],
        "run": [
            ("seed", cleaned(scorecard.get("seed", "not recorded"))),
            ("random draws", _draws(scorecard)),
            ("time", duration(scorecard.get("seconds"))),
            *([("time by stage", took)] if (took := stages_in_words(scorecard)) else []),
            ("most memory held", memory(scorecard.get("peak_rss_bytes"))),
            ("rows behind this page", f"{len(rows):,}".replace(",", " ")),
            ("scorecard version", cleaned(scorecard.get("schema_version", "not recorded"))),
        ],
    }


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
    null = scorecard.get("random_restoration") or (scorecard.get("nulls") or {}).get("isotropic")
    return number(as_float(null.get("n")), 0) if isinstance(null, Mapping) else "not recorded"
