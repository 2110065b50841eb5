"""What a run left beside its direction: questions to begin with, and what each dose costs."""

from __future__ import annotations

import dataclasses
import itertools
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from persona.choices import MAX_DAMAGE
from persona.data.text import as_question
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.report.finished_run import FinishedRun, read_run
from persona.rows import ALIGNED, FINETUNED, IN_ALIGNED

logger = logging.getLogger("persona")

FORMAT = "personascope/demo-evidence"
SHOWN = 3
"""Selection questions that a page offers as examples; beside them stand some of other domains."""


@dataclass(frozen=True)
class Example:
    """A selection question and its gap (nats per token) in both models and under steering."""

    id: str
    question: str
    aligned: float
    finetuned: float
    steered: float

    @property
    def fall(self) -> float:
        """How far steering brought the gap down."""
        return self.finetuned - self.steered


@dataclass(frozen=True)
class Dose:
    """damage: neutral cross-entropy above the unsteered fine-tuned model's, nats per token."""

    coefficient: float
    damage: float


@dataclass(frozen=True)
class Evidence:
    """What is known of a direction from the run that found it.

    examples: the run's selection questions that come with the package, the largest fall first.
        Directions and coefficients were chosen on them; nothing is scored on them.
    doses: of the whole direction in the mode restore, 0 among them, by coefficient.
    n_neutral: texts that the damage was read on.
    written: cross-entropy of the written good answers to the selection questions under the
        unsteered aligned model, nats per token.
    """

    examples: tuple[Example, ...]
    doses: tuple[Dose, ...]
    n_neutral: int
    written: tuple[float, ...]

    @property
    def shown(self) -> tuple[Example, ...]:
        """Those that a page offers: where steering brought the gap down most."""
        return self.examples[:SHOWN]


@dataclass(frozen=True)
class Budget:
    """Where doses leave the damage budget.

    edge: the first coefficient at which they do, straight lines between what was measured; None
        where none that was measured does. measured_to: the highest that was.
    """

    edge: float | None
    measured_to: float


def budget_of(doses: Sequence[Dose], most: float = MAX_DAMAGE) -> Budget | None:
    """None without two doses to draw a line through."""
    curve = sorted((d for d in doses if d.coefficient >= 0), key=lambda dose: dose.coefficient)
    if len(curve) < 2:
        return None
    for low, high in itertools.pairwise(curve):
        if low.damage <= most < high.damage:
            share = (most - low.damage) / (high.damage - low.damage)
            edge = low.coefficient + share * (high.coefficient - low.coefficient)
            return Budget(edge, curve[-1].coefficient)
    return Budget(None, curve[-1].coefficient)


def evidence_beside(direction: Path) -> Evidence | None:
    """Of the run in whose folder a direction lies, else of a file of its name; None where neither.

    A folder that holds no finished run, or one of another direction, says nothing.
    """
    kept = direction.with_suffix(".evidence.json")
    if kept.is_file():
        return read_evidence(kept)
    if direction.name != "direction.safetensors":
        return None
    try:
        return evidence_of_run(read_run(direction.parent))
    except (DataError, LookupError, TypeError, AttributeError) as error:
        logger.debug("no evidence beside %s: %s", direction, error)
        return None


def evidence_of_run(run: FinishedRun) -> Evidence:
    """What the search of a run measured of the direction that it chose."""
    chosen, rows = run.scorecard["direction"], run.rows
    tried = rows[rows["stage"] == "verify"]
    tried = tried[~tried["condition"].str.endswith(IN_ALIGNED).astype(bool)]
    place = (chosen["method"], chosen["rank"], chosen["layers"][0], chosen["layers"][-1])
    same = tried["candidate"] == place[0]
    for column, value in zip(("rank", "layer", "last_layer"), place[1:], strict=True):
        same &= tried[column].eq(value).fillna(False).astype(bool)
    own = tried[same]
    at_chosen = own[own["coefficient"] == chosen["coefficient"]]
    written = _means(tried[tried["condition"] == ALIGNED], "log_prob_good", "question_id")
    neutral = _of(tried, "neutral_ce_nats")
    return Evidence(
        _examples(tried, at_chosen),
        _doses(tried, own),
        int(neutral["question_id"].nunique()),
        tuple(-round(float(value), 4) for value in written),
    )


def _examples(tried: pd.DataFrame, at_chosen: pd.DataFrame) -> tuple[Example, ...]:
    gaps = {
        "aligned": _means(tried[tried["condition"] == ALIGNED], "gap", "question_id"),
        "finetuned": _means(tried[tried["condition"] == FINETUNED], "gap", "question_id"),
        "steered": _means(at_chosen, "gap", "question_id"),
    }
    table = pd.DataFrame(gaps).dropna()
    known = {pair.id: pair.question for pair in shipped_pairs().values()}
    found = [
        Example(str(each), known[str(each)], *(round(float(gap), 4) for gap in row))
        for each, row in zip(table.index, table.to_numpy(), strict=True)
        if each in known
    ]
    return tuple(sorted(found, key=lambda example: (-example.fall, example.id)))


def _doses(tried: pd.DataFrame, own: pd.DataFrame) -> tuple[Dose, ...]:
    plain = _means(tried[tried["condition"] == FINETUNED], "neutral_ce_nats", "question_id").mean()
    steered = _means(own, "neutral_ce_nats", "coefficient")
    if steered.empty or pd.isna(plain):
        return ()
    found = {0.0: 0.0} | {float(at): float(ce - plain) for at, ce in steered.items()}
    return tuple(Dose(at, round(damage, 4)) for at, damage in sorted(found.items()))


def _of(rows: pd.DataFrame, measure: str) -> pd.DataFrame:
    return rows[(rows["measure"] == measure) & rows["value"].notna()]


def _means(rows: pd.DataFrame, measure: str, by: str) -> Any:
    return _of(rows, measure).groupby(by)["value"].mean()


@cache
def shipped_pairs() -> dict[str, AnswerPair]:
    """The answer pairs that come with the package, by their question in one form."""
    from persona.data import load_pairs

    return {as_question(pair.question): pair for pair in load_pairs()}


def save_evidence(evidence: Evidence, direction: Path, run: str) -> Path:
    """Write it beside a direction, with what made it; the path."""
    record = {"format": FORMAT, "schema_version": 1, "run": run} | dataclasses.asdict(evidence)
    path = direction.with_suffix(".evidence.json")
    atomic_write_text(path, json.dumps(record, indent=1) + "\n")
    return path


def read_evidence(path: Path) -> Evidence:
    """Raises: DataError for a file that is damaged or of another kind."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT or record["schema_version"] != 1:
            raise DataError(f"{path} is {record['format']!r}; needed: {FORMAT} version 1")
        return Evidence(
            tuple(Example(**each) for each in record["examples"]),
            tuple(Dose(**each) for each in record["doses"]),
            int(record["n_neutral"]),
            tuple(map(float, record["written"])),
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path} cannot be read: {type(error).__name__}: {error}") from error
