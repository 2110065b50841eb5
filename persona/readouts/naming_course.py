"""At which step of a fine-tune can it be named what is being learnt? The vote, step by step.

Beside it the shift of the gap on advice, of the fine-tune and of its good twin at the same step:
the vote asks what is learnt, the gap how far it has come.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.intervals import Estimate, bootstrap
from persona.models.pair import ModelPair
from persona.progress import progress
from persona.readouts.changed_answers import answer_changes
from persona.readouts.fine_tune_reading import read_fine_tune
from persona.readouts.hypotheses import hypotheses
from persona.readouts.naming import NOTHING
from persona.stages import Stages, Unsaved

STEP_FOLDER = re.compile(r"(?:step|checkpoint)-(\d+)")
WITHIN = ("steps", "checkpoints", "")
"""Where in a fine-tune's folder its adapters lie, the first that holds any."""
CONFIG = "adapter_config.json"
NOT_KEPT = Estimate(float("nan"), float("nan"), float("nan"), 0)


def adapters_by_step(folder: Path) -> dict[int, Path]:
    """Step -> adapter, in order: of `persona finetune --keep-every`, or a trainer's checkpoints.

    Raises: DataError where there is none.
    """
    for within in WITHIN:
        found = {
            int(match.group(1)): path
            for path in (folder / within).glob("*-*")
            if (match := STEP_FOLDER.fullmatch(path.name)) and (path / CONFIG).is_file()
        }
        if found:
            return dict(sorted(found.items()))
    raise DataError(
        f"{folder} holds no adapters on the way (steps/step-N or checkpoint-N); "
        "`persona finetune --keep-every 5` keeps them"
    )


def naming_course(
    open_pair: Callable[[Path], ModelPair],
    adapters: Mapping[int, Path],
    *,
    twin: Mapping[int, Path] | None = None,
    layer: int | None = None,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> pd.DataFrame:
    """One row a step: step, subject, probability, named, p_bad, shift, shift_low, shift_high, and
    of the twin at that step twin_shift, twin_low, twin_high, NaN where it was not kept.

    Read are words and answers, not amplified speech. Shift: of the gap on the scored advice of
    `hypotheses()`, nats per token, with its 95 % interval over questions.
    open_pair: adapter -> the aligned model with it. stages: where steps that are read are kept.
    Raises: DataError where a step differs in nothing from the aligned model.
    """
    stages = stages or Unsaved()

    def of(step: int) -> pd.DataFrame:
        reading = read_fine_tune(
            open_pair(adapters[step]),
            layer=layer,
            amounts=(),
            jacobian=False,
            seed=seed,
            token_budget=token_budget,
        )
        naming = reading.naming
        assert naming is not None  # the scored pairs are the vote's own
        shift, other = _shift(reading.changes, seed), NOT_KEPT
        if twin is not None and step in twin:
            other = _shift(
                answer_changes(open_pair(twin[step]), _advice(), token_budget=token_budget), seed
            )
        row = {
            "step": step,
            "subject": naming.subject,
            "probability": naming.probability,
            "named": not naming.abstains and naming.subject != NOTHING,
            "p_bad": naming.p_bad,
            **{"shift": shift.value, "shift_low": shift.low, "shift_high": shift.high},
            **{"twin_shift": other.value, "twin_low": other.low, "twin_high": other.high},
        }
        return pd.DataFrame([row])

    steps = progress(list(adapters), "Reading steps of the fine-tune")
    rows = [stages.table(f"step-{step}", partial(of, step)) for step in steps]
    return pd.concat(rows, ignore_index=True)


def named_from(course: pd.DataFrame) -> int | None:
    """The first step from which on every vote gives the name that the last one gives."""
    return _from(course, (course["named"] & (course["subject"] == course["subject"].iloc[-1])))


def apart_from(course: pd.DataFrame) -> int | None:
    """The first step from which on the gap's interval lies above the twin's; None without one."""
    return _from(course, course["shift_low"] > course["twin_high"])


def _from(course: pd.DataFrame, holds: pd.Series) -> int | None:
    """The first step of those at the end for which it holds."""
    if course.empty or not bool(holds.iloc[-1]):
        return None
    missing = course.loc[~holds, "step"]
    after = course if missing.empty else course[course["step"] > missing.iloc[-1]]
    return int(after["step"].iloc[0])


def _advice() -> list[AnswerPair]:
    return [pair for one in hypotheses() if one.kind == "advice" for pair in one.scored]


def _shift(changes: pd.DataFrame, seed: int) -> Estimate:
    """Of the gap, over the questions that ask for advice."""
    asked = {pair.id for pair in _advice()}
    return bootstrap(changes.loc[changes["question_id"].isin(asked), "shift"].to_numpy(), seed=seed)
