"""comparison.html: several finished runs in one page, side by side."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.errors import DataError
from persona.report import sections
from persona.report.figures.run_comparison import compare_runs
from persona.report.finished_run import FinishedRun
from persona.report.glossary import Glossary
from persona.report.page_figures import page_figure
from persona.report.page_templates import render_page
from persona.report.plain_sentences import PlainSentence, plain_sentences
from persona.report.random_choices import random_choices
from persona.report.tables import condition_entry
from persona.report.theme import CONDITIONS
from persona.report.verdict_words import Verdict, verdict_words
from persona.report.wording import cleaned, number, with_interval
from persona.rows import FINETUNED, RESTORED

COMMON_QUESTIONS = 3


@dataclass(frozen=True)
class ComparedRun:
    """One run on the page. report: the link to its own report, empty where that is not there."""

    name: str
    report: str
    aligned: str
    finetuned: str
    verdict: Verdict
    plain: list[PlainSentence]
    shift: str
    net: str
    raw: str
    random: str
    kl: str
    damage: str
    n_questions: str


def render_comparison(
    runs: Sequence[FinishedRun], where: str | Path = ".", *, interactive: bool = False
) -> str:
    """The page as text.

    where: the folder that it will lie in, which links to the runs' own reports start from.
    Raises: DataError for fewer than two runs, or one that is named twice.
    """
    if len(runs) < 2:
        raise DataError("a comparison needs two runs or more")
    names = _names(runs)
    cards = {name: run.scorecard for name, run in zip(names, runs, strict=True)}
    return render_page(
        "comparison.html.jinja",
        {
            "runs": [_compared(n, run, Path(where)) for n, run in zip(names, runs, strict=True)],
            "plots": {"runs": page_figure("runs", lambda: compare_runs(cards))},
            "differences": differences(cards),
            "answered_by_all": _answers(dict(zip(names, runs, strict=True))),
            "glossary": Glossary(),
            "greedy": True,
        },
        interactive=interactive,
    )


def differences(cards: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What keeps the runs from being compared number by number: what differs, and its values."""
    asked = (
        ("aligned model", lambda card: _of(card, "models", "aligned")),
        ("questions (hash of the data)", lambda card: _of(card, "data", "hash")),
        ("number of scored questions", _n_questions),
        ("domains trained on", lambda card: _of(card, "data", "trained_on")),
        ("number format", lambda card: _of(card, "models", "dtype")),
        ("version of the scorecard", lambda card: cleaned(card.get("schema_version"))),
    )
    found = []
    for what, read in asked:
        values = [(name, read(card)) for name, card in cards.items()]
        if len({value for _, value in values}) > 1:
            found.append((what, values))
    return found


def _compared(name: str, run: FinishedRun, where: Path) -> ComparedRun:
    card = run.scorecard
    report = run.folder / "report.html"
    random = random_choices(card)
    damage = card.get("damage") or card.get("damage_ce_nats")
    return ComparedRun(
        name,
        Path(os.path.relpath(report, where)).as_posix() if report.is_file() else "",
        _of(card, "models", "aligned"),
        _of(card, "models", "finetuned"),
        verdict_words(card),
        plain_sentences(card),
        with_interval(card.get("emergent_shift"), signed=True),
        with_interval(card.get("net_restoration")) if card.get("net_restoration") else "—",
        with_interval(card.get("restoration")),
        "—" if random is None else f"{random.as_much:,} of {random.n:,}",
        with_interval(card.get("kl_restoration")),
        with_interval(damage, 3, signed=True),
        _n_questions(card),
    )


def _names(runs: Sequence[FinishedRun]) -> list[str]:
    """What each run is called: its folder, with those above it as far as two would be alike.

    Raises: DataError for a folder that is named twice.
    """
    places = [run.folder.resolve() for run in runs]
    for place in places:
        if places.count(place) > 1:
            raise DataError(f"{place} is named twice; a run is compared with others")
    depth = 1
    while len({place.parts[-depth:] for place in places}) < len(places):
        depth += 1
    return [cleaned("/".join(place.parts[-depth:])) for place in places]


def _answers(runs: Mapping[str, FinishedRun]) -> list[sections.AnsweredQuestion]:
    """The first questions that all runs asked: before and after, run by run."""
    by_run = {}
    for name, run in runs.items():
        found = sections.examples(run.rows)
        by_run[name] = {q.question: q for q in [*found.opening, *found.questions]}
    first = next(iter(by_run.values()))
    common = [q for q in first if all(q in asked for asked in by_run.values())]
    shown = (CONDITIONS[FINETUNED].label, CONDITIONS[RESTORED].label)
    return [
        sections.AnsweredQuestion(
            question,
            first[question].domain,
            [
                sections.ShownAnswer(f"{name}: {answer.label}", answer.colour, answer.text, "")
                for name, asked in by_run.items()
                for answer in asked[question].answers
                if answer.label in shown
            ],
        )
        for question in common[:COMMON_QUESTIONS]
        if not question.startswith("(")  # its text was not kept
    ]


def _of(card: Mapping[str, Any], part: str, field: str) -> str:
    known = card.get(part)
    value = known.get(field) if isinstance(known, Mapping) else None
    if isinstance(value, list):
        return ", ".join(map(cleaned, value))
    return "not recorded" if value is None else cleaned(value)


def _n_questions(card: Mapping[str, Any]) -> str:
    return number((condition_entry(card, FINETUNED).get("gap_held_out") or {}).get("n"), 0)
