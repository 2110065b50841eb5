"""Watching a fine-tune while it happens: projection, gap and damage at every k steps."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.activations.passes import Reference, ResponseReadings, read_responses
from persona.data.jsonl import check_keys, read_jsonl
from persona.data.types import AnswerPair, NeutralText
from persona.directions.direction import Direction
from persona.errors import DataError, SpaceMismatchError
from persona.files import atomic_write_text
from persona.models.chat.chat_format import ChatFormat
from persona.models.hooks import model_width, n_layers
from persona.organisms.alarm import FamilyAlarm

logger = logging.getLogger("persona")

READINGS = "readings.jsonl"
COLUMNS = ("step", "question_id", "domain", "measure", "value")

Alarm = Callable[[Sequence[float]], bool]
"""Mean projections so far, the newest last -> whether something has changed."""


@dataclass(frozen=True)
class Watch:
    """What to read of a model in training, before the first step and after every `every` steps.

    direction: a persona direction of the aligned model; read is the mean over an answer's tokens of
        h . unit direction at its block, in residual-stream units. Or several by their names, such
        as a set of traits, which one pass reads.
    questions: answer pairs for projection and gap; never those trained on, or memory is measured.
    neutral: texts for the damage: cross-entropy, and KL from the model without its adapter.
    alarm: rings once for the mean projection of the good answers so far; see `cusum_alarm`, and of
        several directions `family_alarm`.
    Raises: DataError without questions or a direction, for steps that are no positive number, or an
        alarm on several of one.
    """

    direction: Direction | Mapping[str, Direction]
    questions: Sequence[AnswerPair]
    neutral: Sequence[NeutralText] = ()
    every: int = 5
    alarm: Alarm | FamilyAlarm | None = None

    @property
    def directions(self) -> Mapping[str, Direction]:
        """By name; one alone has none."""
        return self.direction if isinstance(self.direction, Mapping) else {"": self.direction}

    def __post_init__(self) -> None:
        if not self.directions:
            raise DataError("watching a fine-tune needs at least one direction to read along")
        several = isinstance(self.direction, Mapping)
        if self.alarm is not None and several != isinstance(self.alarm, FamilyAlarm):
            raise DataError(
                "several directions take one alarm for all of them (family_alarm), one alone takes "
                "its own (cusum_alarm)"
            )
        if not self.questions:
            raise DataError("watching a fine-tune needs at least one answer pair to read")
        if self.every < 1:
            raise DataError(f"readings are taken every 1 or more steps; got {self.every}")


class Monitor:
    """The rows of one watched run; readings.jsonl is written anew, whole, at each reading.

    Rows: step, question_id, domain, measure, value. Measures: projection_good, projection_bad (of
    several directions with the name behind a colon, projection_good:evil), log_prob_good,
    log_prob_bad, gap; neutral_ce_nats, neutral_kl_nats; alarm (value 1, domain the direction that
    rang it) where it rang. A run that goes on from a checkpoint drops what was read after it: no
    row comes twice.
    """

    def __init__(self, watch: Watch, chat: ChatFormat, path: Path) -> None:
        self.watch, self.path = watch, path
        self.alarm_step: int | None = None
        pairs = [d for q in watch.questions for d in (q.good_dialogue, q.bad_dialogue)]
        self._answers = chat.encode_all(pairs)
        self._neutral = chat.encode_all([text.dialogue for text in watch.neutral])
        self._reference: Reference | None = None
        self._rows: list[dict[str, Any]] = []

    def start(self, model: Any, step: int) -> None:
        """Begins, or goes on, at a step: rows of later steps are those of a lost part."""
        for direction in self.watch.directions.values():
            require_fit(model, direction)
        self._rows = []
        if step > 0 and self.path.exists():
            self._rows = [row for row in _rows_of(self.path) if row["step"] <= step]
        rung = [row["step"] for row in self._rows if row["measure"] == "alarm"]
        self.alarm_step = min(rung) if rung else None
        if not any(row["step"] == step for row in self._rows):
            self.read(model, step)

    def due(self, step: int, last: bool) -> bool:
        """Whether a reading is taken after this step; always after the last one."""
        return last or step % self.watch.every == 0

    def read(self, model: Any, step: int) -> None:
        """Takes one reading of the model as it stands, in evaluation mode, and writes it down."""
        was_training = model.training
        model.eval()
        try:
            self._rows += self._reading(model, step)
        finally:
            model.train(was_training)
        self._ring(step)
        lines = "".join(json.dumps(row) + "\n" for row in self._rows)
        atomic_write_text(self.path, lines)

    def _reading(self, model: Any, step: int) -> Iterator[dict[str, Any]]:
        directions = self.watch.directions
        layers = sorted({direction.space.layer for direction in directions.values()})
        answers = read_responses(model, self._answers, layers)
        projections = {
            name: (answers.means[:, layers.index(direction.space.layer)] @ direction.unit).tolist()
            for name, direction in directions.items()
        }
        for place, question in enumerate(self.watch.questions):
            for measure, value in _of_pair(answers, projections, place).items():
                yield dict(
                    zip(COLUMNS, (step, question.id, question.domain, measure, value), strict=True)
                )
        if not self._neutral:
            return
        if self._reference is None and hasattr(model, "disable_adapter"):
            with model.disable_adapter():
                self._reference = Reference.over(model, self._neutral)
        texts = read_responses(model, self._neutral, reference=self._reference)
        for place, text in enumerate(self.watch.neutral):
            measures = {"neutral_ce_nats": -float(texts.log_prob[place])}
            if self._reference is not None:
                measures["neutral_kl_nats"] = float(texts.kl[place])
            for measure, value in measures.items():
                yield dict(zip(COLUMNS, (step, text.id, text.kind, measure, value), strict=True))

    def _ring(self, step: int) -> None:
        if self.watch.alarm is None or self.alarm_step is not None:
            return
        rung = self._rung()
        if rung is None:
            return
        self.alarm_step = step
        self._rows.append(dict(zip(COLUMNS, (step, "", rung, "alarm", 1.0), strict=True)))
        logger.warning(
            "Step %d: the projection on %s has left its course; look at %s.",
            step,
            rung or self.watch.directions[rung].method,
            self.path.name,
        )

    def _rung(self) -> str | None:
        """Name of the direction whose alarm rings, None where none does."""
        alarm = self.watch.alarm
        if isinstance(alarm, FamilyAlarm):
            found = alarm.rings_at(
                {name: mean_projections(self._rows, name) for name in self.watch.directions}
            )
            return None if found is None else found[1]
        return "" if alarm is not None and alarm(mean_projections(self._rows)) else None


def projection_measure(answer: str, name: str = "") -> str:
    """What the rows call the projection of the good or bad answers on a direction of that name."""
    return f"projection_{answer}:{name}" if name else f"projection_{answer}"


def mean_projections(rows: Sequence[dict[str, Any]], name: str = "") -> list[float]:
    """Mean projection of the good answers at each step read, in order of the steps.

    name: of the direction, where several were read.
    """
    measure = projection_measure("good", name)
    by_step: dict[int, list[float]] = {}
    for row in rows:
        if row["measure"] == measure:
            by_step.setdefault(row["step"], []).append(row["value"])
    return [sum(values) / len(values) for _, values in sorted(by_step.items())]


def read_readings(folder: str | Path) -> pd.DataFrame:
    """Returns the readings of a watched fine-tune: step, question_id, domain, measure, value.

    Raises: DataError when there are none, or the file is damaged.
    """
    return pd.DataFrame(_rows_of(Path(folder) / READINGS), columns=list(COLUMNS))


def _rows_of(path: Path) -> list[dict[str, Any]]:
    def row(values: dict[str, Any], line: int) -> dict[str, Any]:
        check_keys(values, COLUMNS)
        return values

    return read_jsonl(path, row)


def _of_pair(
    answers: ResponseReadings, projections: Mapping[str, Sequence[float]], place: int
) -> dict[str, float]:
    good, bad = (float(value) for value in answers.log_prob[2 * place : 2 * place + 2])
    along = {
        projection_measure(answer, name): of_direction[2 * place + at]
        for name, of_direction in projections.items()
        for at, answer in enumerate(("good", "bad"))
    }
    return {
        **along,
        "log_prob_good": good,
        "log_prob_bad": bad,
        "gap": bad - good,
    }


def require_fit(model: Any, direction: Direction) -> None:
    """Raises: SpaceMismatchError for a direction of another width, or a block that is not there."""
    width, depth, space = model_width(model), n_layers(model), direction.space
    if space.d_model != width or not 0 <= space.layer < depth:
        raise SpaceMismatchError(
            f"the direction to watch is at {space.hook_name} of {space.model} with d_model="
            f"{space.d_model}, but the model in training has {depth} blocks and d_model={width}. "
            "Extract a direction from this model"
        )
