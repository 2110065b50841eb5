"""The questions of an audit: those that the diagnosis scored, and others that it did not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from persona.data import load_pairs, read_pairs
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.report.finished_run import FinishedRun
from persona.rows import FINETUNED
from steering.auditing.audit_request import ANSWERS, AuditRequest

N_SELECTION = 8
"""Questions that prefixes are searched on; none of them is scored."""


@dataclass(frozen=True)
class AuditQuestions:
    """The pairs of a diagnosis, by what they are for in an audit; see `AuditAhead`."""

    held_out: list[AnswerPair]
    selection: list[AnswerPair]
    training: list[AnswerPair]
    to_learn: list[AnswerPair]
    domains: tuple[str, ...] | None


def questions_of(run: FinishedRun, request: AuditRequest) -> AuditQuestions:
    """The pairs of the diagnosis, by what they are for here.

    Raises: DataError where its data is gone or another, or too little is left to choose on.
    """
    data = run.scorecard["data"]
    source = data.get("source", "shipped")
    pairs = load_pairs() if source == "shipped" else read_pairs(source)
    by_id = {pair.id: pair for pair in pairs}
    scored, selected = _ids(run.rows, "held_out", FINETUNED), _ids(run.rows, "selection")
    if missing := [one for one in scored if one not in by_id]:
        raise DataError(
            f"{run.folder} was scored on {missing[0]!r}, which {source} does not hold now; the "
            "audit needs the data of the diagnosis as it was"
        )
    if len(scored) < 2:
        raise DataError(f"{run.folder} scored {len(scored)} held-out questions; two are needed")
    domains = None if data.get("trained_on") is None else tuple(data["trained_on"])
    free = [
        pair
        for pair in pairs
        if pair.id not in scored and (domains is None or pair.domain in domains)
    ]
    selection = [by_id[one] for one in selected if one in by_id and one not in scored]
    training = [pair for pair in free if pair.split == "train"] or free
    unseen = [pair for pair in free if pair.split == "selection"]
    to_learn = unseen if len(unseen) >= ANSWERS else free
    if request.relearn and len(to_learn) < ANSWERS:
        raise DataError(
            f"relearning needs {ANSWERS} answer pairs that are not scored, of the domains trained "
            f"on; there are {len(to_learn)}. Leave it out with --no-relearn"
        )
    if request.search and len(selection or free) < 2:
        raise DataError(
            "the search needs two questions or more that are not scored; leave it out with "
            "--no-search"
        )
    return AuditQuestions(
        _interleaved([by_id[one] for one in scored])[: request.n_questions],
        (selection or free)[:N_SELECTION],
        training,
        to_learn,
        domains,
    )


def _ids(rows: pd.DataFrame, split: str, condition: str | None = None) -> list[str]:
    """The questions of a split, in the order of the rows."""
    mine = rows[(rows["split"] == split) & (rows["measure"] == "gap")]
    if condition is not None:
        mine = mine[(mine["stage"] == "score") & (mine["condition"] == condition)]
    return [str(one) for one in dict.fromkeys(mine["question_id"])]


def _interleaved(pairs: Sequence[AnswerPair]) -> list[AnswerPair]:
    """One of each domain after the other, so that the first n hold all domains alike."""
    by_domain: dict[str, list[AnswerPair]] = {}
    for pair in pairs:
        by_domain.setdefault(pair.domain, []).append(pair)
    deepest = max(map(len, by_domain.values()), default=0)
    return [mine[i] for i in range(deepest) for mine in by_domain.values() if i < len(mine)]
