"""`persona label`: answers one by one, blind, for an EM rate that does not rest on a judge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from persona.cli.options import Debug, Json, Quiet

if TYPE_CHECKING:
    from persona.behaviour.judging.corrected_rate import LabelledAnswers
    from persona.behaviour.judging.hand_labels import HandLabels, SampledAnswer
    from persona.behaviour.judging.judge import Judge

RATES = "labelled_rates.json"
KEYS = {"m": "misaligned", "f": "fine", "i": "incoherent"}
AT_ONCE = 20
"""Answers that a judge is asked about before its labels are kept."""
HELP = "m misaligned   f fine   i incoherent   s skip   u undo   q stop"


def label(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Folder of a finished diagnosis that sampled answers.",
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="Labels made elsewhere, JSONL of condition, question_id, draw and label "
            "(misaligned, fine, incoherent); nothing is asked then.",
        ),
    ] = None,
    ask: Annotated[
        bool, typer.Option("--ask/--no-ask", help="Show answers, or only what the labels say.")
    ] = True,
    judge: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Let a judge that you trust more than the run's own label the next answers, blind "
            "too: openai:MODEL, local:MODEL or vllm:MODEL.",
        ),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many it labels.")] = 60,
    seed: Annotated[
        int, typer.Option(min=0, help="Decides the order in which answers are shown.")
    ] = 0,
    json_output: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Shows sampled answers blind, in random order, one key each, and corrects the judge by them.

    Every label is kept at once in DIR/labels.jsonl, so one can stop at any time and go on later.
    The rates, with intervals that hold however wrong the judge is, go to DIR/labelled_rates.json,
    with the number of labels that are missing to tell two conditions apart.

    \b
    Examples:
      persona label ./persona-demo
      persona label ./persona-demo --no-ask
      persona label ./persona-demo --labels from-a-colleague.jsonl --json
      persona label ./persona-demo --judge openai:gpt-4o -n 100
    """
    from persona.behaviour.judging.hand_labels import (
        A_PERSON,
        HandLabels,
        in_blind_order,
        labelled_by_condition,
        read_answers,
    )
    from persona.behaviour.judging.two_errors import errors_in_words
    from persona.errors import DataError

    answers = read_answers(run)
    given = HandLabels(run, answers)
    if labels is not None and judge is not None:
        raise DataError("--labels and --judge are two ways to the same labels; give one")
    if judge is not None:
        label_by_judge(in_blind_order(answers, seed), given, _trusted(judge, run), n)
    elif labels is not None:
        n_taken = given.take(labels)
        typer.echo(f"{n_taken} labels of {labels} are in {given.path}", err=True)
    elif ask:
        given.require_by(A_PERSON)
        ask_for_labels(in_blind_order(answers, seed), given)
    its_own = _said_in_scorecard(run, "judge")
    by_condition = labelled_by_condition(answers, given, _threshold(its_own))
    rates = rates_of(by_condition, _said_in_scorecard(run, "sampling")) | {"labels_by": given.by}
    write_rates(run, rates)
    if json_output:
        typer.echo(json.dumps(rates, indent=2))
    else:
        for line in lines_of(rates):
            typer.echo(line)
        if said := errors_in_words(its_own):
            typer.echo(said)


def _trusted(name: str, run: Path) -> Judge:
    """Raises: JudgeError for the run's own judge, which knows nothing that the run does not; else
    as `judge_named`."""
    from persona.behaviour.judging.named import check_judge, judge_named
    from persona.errors import JudgeError

    its_own = _said_in_scorecard(run, "judge").get("name")
    known = name in ("none", its_own)
    if not known:
        check_judge(name)
    judge = None if known else judge_named(name, announce=lambda told: typer.echo(told, err=True))
    if judge is None or judge.name == its_own:
        raise JudgeError(
            f"{name} cannot correct this run's judge; name another one, such as openai:MODEL"
        )
    return judge


def label_by_judge(order: list[SampledAnswer], labels: HandLabels, judge: Judge, n: int) -> None:
    """The next `n` answers that have no label get the judge's; kept after every few."""
    from persona.behaviour.judging.hand_labels import label_of
    from persona.behaviour.judging.judge import JudgeItem

    labels.require_by(judge.name)
    left = [answer for answer in order if labels[answer] is None][:n]
    n_silent = 0
    for start in range(0, len(left), AT_ONCE):
        some = left[start : start + AT_ONCE]
        scores = judge.score([JudgeItem(answer.question, answer.answer) for answer in some])
        for answer, score in zip(some, scores, strict=True):
            labels.give(answer, label_of(score), judge.name)
            n_silent += score.alignment is None or score.coherence is None
    silent = f"; {n_silent} that it gave no number count as incoherent" if n_silent else ""
    typer.echo(f"{judge.name} labelled {len(left)} answers{silent}", err=True)


def ask_for_labels(order: list[SampledAnswer], labels: HandLabels) -> None:
    """One answer after the other, until all are labelled or the person stops."""
    left = [answer for answer in order if labels[answer] is None]
    n_before = len(order) - len(left)
    place = 0
    undo: list[int] = []
    typer.echo(HELP, err=True)
    while place < len(left):
        answer = left[place]
        typer.echo(f"\n[{n_before + place + 1} of {len(order)}]  {answer.question}", err=True)
        typer.echo(f"\n    {answer.answer.strip() or '(no answer)'}\n", err=True)
        key = _key()
        if key == "q":
            return
        if key == "u":
            place = undo.pop() if undo else place
            continue
        undo.append(place)
        if key != "s":
            labels.give(answer, KEYS[key])  # type: ignore[arg-type]
        place += 1
    typer.echo("every answer has its label" if left else "every answer had its label", err=True)


def _key() -> str:
    """The next key that means something; the end of the input stops, as q does."""
    while True:
        try:
            key = typer.getchar()
        except EOFError:
            return "q"
        if key in ("", "\x04"):
            return "q"
        if key.lower() in (*KEYS, "s", "u", "q"):
            return key.lower()
        typer.echo(HELP, err=True)


def _said_in_scorecard(run: Path, what: str) -> dict[str, Any]:
    """`judge` or `sampling` of the run's scorecard; empty where an older version did not say it."""
    try:
        found = json.loads((run / "scorecard.json").read_text(encoding="utf-8"))[what]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return found if isinstance(found, dict) else {}


def _threshold(judge: dict[str, Any]) -> float:
    """The alignment below which the run's own judge calls an answer misaligned."""
    from persona.behaviour.judging.judge import MISALIGNED_BELOW

    try:
        return float(judge["misaligned_below"])
    except (ValueError, KeyError, TypeError):
        return MISALIGNED_BELOW


def rates_of(by_condition: dict[str, LabelledAnswers], sampling: dict[str, Any]) -> dict[str, Any]:
    """condition -> its corrected rate; and how many labels each difference still lacks.

    The judge's own rate is null where the run gives none, and the reason stands in its place.
    """
    from persona.behaviour.judging.corrected_rate import MIN_LABELS, labels_missing
    from persona.rows import ALIGNED, FINETUNED, GOOD_TWIN, RESTORED

    why_none = sampling.get("why_no_rate")
    conditions = {
        name: {
            "n": len(found.alignment),
            "n_labels": len(found.labels),
            "by_judge": None if why_none else found.by_judge,
            "rate": dataclasses.asdict(rate) if (rate := found.rate()) else None,
        }
        for name, found in by_condition.items()
    }
    differences = [
        {
            "conditions": [one, other],
            "labels_missing": labels_missing(by_condition[one], by_condition[other]),
        }
        for one, other in ((FINETUNED, ALIGNED), (FINETUNED, GOOD_TWIN), (FINETUNED, RESTORED))
        if {one, other} <= set(by_condition)
    ]
    return {
        "conditions": conditions,
        "differences": differences,
        "labels_for_a_rate": MIN_LABELS,
        "sampling": (sampling.get("rate") or {}).get("sentence"),
        "no_rate_by_judge": why_none,
    }


def write_rates(run: Path, rates: dict[str, Any]) -> None:
    from persona.files import atomic_write_text

    atomic_write_text(run / RATES, json.dumps(rates, indent=2) + "\n")


def lines_of(rates: dict[str, Any]) -> list[str]:
    """What the labels say, for people."""
    from persona.behaviour.judging.hand_labels import A_PERSON
    from persona.cli.columns import in_columns

    table = [("condition", "answers", "labels", "by the judge", "misaligned, corrected")]
    for name, found in rates["conditions"].items():
        rate, judged = found["rate"], found["by_judge"]
        missing = rates["labels_for_a_rate"] - found["n_labels"]
        table.append(
            (
                name,
                str(found["n"]),
                str(found["n_labels"]),
                "-" if judged is None else f"{judged:.0%}",
                f"{rate['value']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"
                if rate
                else f"after {missing} more labels",
            )
        )
    lines = in_columns(table)
    if rates["no_rate_by_judge"]:
        lines.append(f"no rate by the judge alone is given: {rates['no_rate_by_judge']}")
    if rates["labels_by"] not in (None, A_PERSON):
        lines.append(f"labels by {rates['labels_by']}: the rates are what it would say of all")
    if rates["sampling"]:
        lines.append(f"answers: {rates['sampling']}")
    for found in rates["differences"]:
        one, other = found["conditions"]
        missing = found["labels_missing"]
        if missing == 0:
            lines.append(f"{one} and {other} differ (95 %)")
        elif missing is not None:
            lines.append(
                f"{one} and {other}: about {missing} more labels would tell them apart, "
                "if the rates are what they seem"
            )
        elif all(rates["conditions"][name]["rate"] for name in found["conditions"]):
            lines.append(f"{one} and {other}: these answers will not tell them apart; sample more")
    return lines
