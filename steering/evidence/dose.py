"""Effect against coefficient: what a larger dose brings, and what it costs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.judging.judge import Judge
from persona.behaviour.sampling_plan import RATE_TEMPERATURE, sampling_plan
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair, NeutralText
from persona.errors import SteeringError
from persona.intervals import bootstrap
from persona.models.pair import ModelPair, Side
from persona.rows import tidy
from steering.edits.edit import require_finite
from steering.edits.steer import edited
from steering.evidence.dose_answers import AnswerSampler, EditsFor
from steering.evidence.dose_answers import repeated_share as repeated_share
from steering.evidence.random_edits import RecordedSteps
from steering.evidence.system_prompt import score_prompted, with_system_prompt

GIVEN, PROMPTED = "given", "system prompt"
COLUMNS = (
    "direction",
    "coefficient",
    "draw",
    "seed",
    "question_id",
    "domain",
    "measure",
    "value",
    "text",
)


def dose_response(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    edits_for: EditsFor,
    coefficients: Sequence[float],
    seeds: Sequence[int] = (0,),
    *,
    side: Side = "aligned",
    neutral: Sequence[NeutralText] = (),
    judge: Judge | None = None,
    random_edits_for: Sequence[EditsFor] = (),
    system_prompt: str | None = None,
    max_new_tokens: int | None = None,
    temperature: float = RATE_TEMPERATURE,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row per direction x coefficient x text x measure, and per seed for what is sampled.

    edits_for: coefficient -> edits; it must also take one coefficient for each row (a tensor), so
        that answers of all doses come from one generation call. Negative ones steer away.
    random_edits_for: the same for random directions (see `random_directions`), the control: rows
        "random 0", "random 1", ... of what is teacher-forced; nothing is sampled with them.
    system_prompt: words that ask for the same, put before every question of the unedited model:
        rows "system prompt", whose coefficient is NaN.
    max_new_tokens: of a sampled answer; None for as many as an EM rate takes (`sampling_plan`).
    Measures: gap, log_prob_good, log_prob_bad, kl_good_nats as `score_pairs`; with `neutral`
    texts neutral_ce_nats and neutral_kl_nats; with `seeds` repetition, the share of the sampled
    answer's 4-grams of tokens that came before in it (NaN for fewer than 4 tokens), and with a
    judge alignment and coherence (0 to 100) and misaligned (0 or 1; its mean is the EM rate), NaN
    where the judge gave no number.
    Columns: direction ("given", "random 0", ..., "system prompt"), coefficient, draw (of a random
    direction, else NaN), seed (NaN where nothing is sampled), question_id, domain, measure, value,
    text (the sampled answer).
    Raises: SteeringError without questions or coefficients, for one that is not finite or given
        twice, for a judge with no seeds, and for a system prompt that cannot be shown.
    """
    doses = [float(c) for c in coefficients]
    require_finite(torch.tensor(doses))
    if not doses or len(set(doses)) < len(doses):
        raise SteeringError(f"a dose sweep needs coefficients that differ; got {doses}")
    if not questions:
        raise SteeringError("a dose sweep needs at least one question")
    if judge is not None and not seeds:
        raise SteeringError("a judge scores sampled answers; give at least one seed")
    conditions = dose_conditions(edits_for, doses, side, random_edits_for=random_edits_for)
    tables = [score_pairs(pair, questions, conditions)]
    if neutral:
        tables.append(score_neutral(pair, neutral, conditions))
    scored = pd.concat(tables, ignore_index=True)
    is_draw, scored["draw"] = scored.pop("condition") == "random", scored.pop("seed")
    scored["draw"] = scored["draw"].where(is_draw)
    scored["direction"] = [
        GIVEN if pd.isna(draw) else f"random {draw:.0f}" for draw in scored["draw"]
    ]
    if max_new_tokens is None:
        max_new_tokens = sampling_plan("rate", pair.chat).max_new_tokens
    sampling = AnswerSampler(side, max_new_tokens, temperature, batch_size, judge)
    answers = [
        row for seed in seeds for row in sampling.of_doses(pair, questions, edits_for, doses, seed)
    ]
    parts = [scored, pd.DataFrame(answers).assign(direction=GIVEN)]
    if system_prompt is not None:
        prompted = score_prompted(pair, questions, system_prompt, side, neutral=neutral)
        asked = [with_system_prompt(q.prompt_dialogue, system_prompt) for q in questions]
        answers = [
            row for seed in seeds for row in sampling.of_prompts(pair, questions, asked, seed)
        ]
        parts += [part.assign(direction=PROMPTED) for part in (prompted, pd.DataFrame(answers))]
    whole = [part.reindex(columns=list(COLUMNS)) for part in parts if len(part)]
    table = pd.concat([part.astype({"text": object}) for part in whole], ignore_index=True)
    return table.astype({"coefficient": np.float64, "seed": np.float64, "draw": np.float64})


def dose_conditions(
    edits_for: EditsFor,
    doses: Sequence[float],
    side: Side,
    *,
    matched_seeds: Sequence[int] = (),
    random_edits_for: Sequence[EditsFor] = (),
) -> list[Condition]:
    """A sweep to score: conditions "direction" and "random", with the fact "coefficient".

    matched_seeds: of norm-matched random draws, which repeat the direction's own steps (see
        `RecordedSteps`); at coefficient 0 all are the unedited model, and one stands for them.
    random_edits_for: the same sweep along random directions. `seed` is the number of the draw.
    """
    conditions = []
    for dose in doses:
        facts = {"coefficient": float(dose)}
        made = list(edits_for(dose))
        recorded = RecordedSteps(made) if matched_seeds else None
        given = recorded.edits() if recorded else made
        conditions.append(edited("direction", side, given, facts=facts))
        conditions += [
            edited("random", side, recorded.random_edits(seed), draw, facts)
            for draw, seed in enumerate(matched_seeds if dose else matched_seeds[:1])
            if recorded
        ]
    return conditions + [
        edited("random", side, make(dose), draw, {"coefficient": float(dose)})
        for draw, make in enumerate(random_edits_for)
        for dose in doses
    ]


def summarise_doses(table: pd.DataFrame, *, seed: int = 0) -> pd.DataFrame:
    """Mean of every measure with its 95 % interval over questions, seeds averaged first.

    The mean of "misaligned" is the EM rate. Answers that a judge gave no number are left out.
    Columns: direction, coefficient, measure, mean, low, high, n (questions).
    """
    rows = []
    keys = ["direction", "coefficient", "measure"]
    for key, part in table.dropna(subset="value").groupby(keys, dropna=False, sort=False):
        found = bootstrap(part.groupby("question_id")["value"].mean().to_numpy(), seed=seed)
        rows.append((*key, found.value, found.low, found.high, found.n))
    return pd.DataFrame(rows, columns=[*keys, "mean", "low", "high", "n"])


def report_rows(table: pd.DataFrame, side: Side = "aligned") -> pd.DataFrame:
    """The table as rows for `persona.report.dose_response_curve(rows, steered=side)`.

    The condition is "direction", "random" (seed: the draw) or "system_prompt"; the readings at
    coefficient 0 stand for the unedited model, at the stage "verify".
    """
    rows = table.assign(stage="dose", split="selection")
    rows["condition"] = table["direction"].map(_condition_of)
    rows["seed"] = table["draw"].fillna(table["seed"]).fillna(0)
    plain = rows[(table["direction"] == GIVEN) & (table["coefficient"] == 0)]
    return tidy(pd.concat([rows, plain.assign(stage="verify", condition=side)], ignore_index=True))


def coefficient_at_kl(
    table: pd.DataFrame, kl_nats: float, measure: str = "neutral_kl_nats", direction: str = GIVEN
) -> float:
    """The smallest coefficient at which the mean of `measure` reaches `kl_nats`.

    Compares methods at equal damage. Linear between the doses of the table, after making the
    curve monotone from the smallest coefficient up (a dose counts at least what a smaller one
    did). Coefficients of one sign: for negative ones the curve runs from 0 downwards.
    direction: whose rows of the table, where it tells several apart.
    Raises: SteeringError where the curve does not pass through `kl_nats`, or for both signs.
    """
    rows = table[table["measure"] == measure]
    if "direction" in rows:
        rows = rows[rows["direction"] == direction]
    mean = rows.groupby("coefficient")["value"].mean()
    doses = mean.index.to_numpy(dtype=np.float64)
    if len(doses) < 2 or (doses.min() < 0 < doses.max()):
        raise SteeringError(
            f"equal damage needs two or more coefficients of one sign with {measure!r}; "
            f"got {doses.tolist()}"
        )
    order = np.argsort(np.abs(doses))
    doses, damage = doses[order], np.maximum.accumulate(mean.to_numpy(dtype=np.float64)[order])
    if not damage[0] <= kl_nats <= damage[-1]:
        raise SteeringError(
            f"{measure} runs from {damage[0]:.4g} to {damage[-1]:.4g} nats over coefficients "
            f"{doses[0]:g} to {doses[-1]:g}, so {kl_nats:g} is not reached; widen the sweep"
        )
    above = int(np.argmax(damage >= kl_nats))
    if above == 0:
        return float(doses[0])
    share = (kl_nats - damage[above - 1]) / (damage[above] - damage[above - 1])
    return float(doses[above - 1] + share * (doses[above] - doses[above - 1]))


def _condition_of(direction: str) -> str:
    return {GIVEN: "direction", PROMPTED: "system_prompt"}.get(direction, "random")
