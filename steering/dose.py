"""Effect against coefficient: what a larger dose brings, and what it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.sampling import sample_answers
from persona.behaviour.scoring import Condition, Intervention
from persona.data.types import AnswerPair, NeutralText
from persona.errors import DataError, SteeringError
from persona.models.pair import ModelPair, Side
from steering.edit import Edit, require_finite
from steering.hooks import steer
from steering.interventions import Coefficient

EditsFor = Callable[[Coefficient], Sequence[Edit]]
N_GRAM = 4


def dose_response(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    edits_for: EditsFor,
    coefficients: Sequence[float],
    seeds: Sequence[int] = (0,),
    *,
    side: Side = "aligned",
    neutral: Sequence[NeutralText] = (),
    max_new_tokens: int = 60,
    temperature: float = 1.0,
    batch_size: int = 32,
) -> pd.DataFrame:
    """One row per coefficient x text x measure, and per seed for what is sampled.

    edits_for: coefficient -> edits; it must also take one coefficient for each row (a tensor), so
        that answers of all doses come from one generation call.
    Measures: gap, log_prob_good, log_prob_bad, kl_good_nats as `score_pairs`; with `neutral`
    texts neutral_ce_nats and neutral_kl_nats; with `seeds` repetition, the share of the sampled
    answer's 4-grams of tokens that came before in it (NaN for fewer than 4 tokens).
    Columns: coefficient, seed (NaN where nothing is sampled), question_id, domain, measure, value.
    Raises: SteeringError without coefficients, or for one that is not finite or given twice.
    """
    doses = [float(c) for c in coefficients]
    require_finite(torch.tensor(doses))
    if not doses or len(set(doses)) < len(doses):
        raise SteeringError(f"a dose sweep needs coefficients that differ; got {doses}")
    conditions = [_condition(edits_for, dose, side) for dose in doses]
    tables = [score_pairs(pair, questions, conditions)]
    if neutral:
        tables.append(score_neutral(pair, neutral, conditions))
    scored = pd.concat(tables, ignore_index=True).drop(columns="seed")
    scored.insert(0, "coefficient", scored.pop("condition").astype(float))
    scored.insert(1, "seed", np.nan)
    sampled = [
        _repetitions(
            pair, questions, edits_for, doses, seed, side, max_new_tokens, temperature, batch_size
        )
        for seed in seeds
    ]
    return pd.concat([scored, *sampled], ignore_index=True)


def coefficient_at_kl(
    table: pd.DataFrame, kl_nats: float, measure: str = "neutral_kl_nats"
) -> float:
    """The smallest coefficient at which the mean of `measure` reaches `kl_nats`.

    Compares methods at equal damage. Linear between the doses of the table, after making the
    curve monotone from the smallest coefficient up (a dose counts at least what a smaller one
    did). Coefficients of one sign: for negative ones the curve runs from 0 downwards.
    Raises: SteeringError where the curve does not pass through `kl_nats`, or for both signs.
    """
    rows = table[table["measure"] == measure]
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


def repeated_share(tokens: Sequence[int], n: int = N_GRAM) -> float:
    """Share of the n-grams that came before in the same text: 1 - distinct / all.

    0 where none repeats; NaN where the text is shorter than one n-gram.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else float("nan")


def _condition(edits_for: EditsFor, dose: float, side: Side) -> Condition:
    edits = list(edits_for(dose))
    first = min((edit.layer for edit in edits), default=0)
    return Condition(repr(dose), side, _steering(edits), first_layer=first)


def _steering(edits: Sequence[Edit]) -> Intervention:
    def intervene(bridge: Any) -> contextlib.AbstractContextManager[Any]:
        return steer(bridge, edits)

    return intervene


def _repetitions(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    edits_for: EditsFor,
    doses: Sequence[float],
    seed: int,
    side: Side,
    max_new_tokens: int,
    temperature: float,
    batch_size: int,
) -> pd.DataFrame:
    """Repetition of one sampled answer per question and dose; all doses share a batch."""
    if not questions:
        raise DataError("a dose sweep needs at least one question")
    prompts = [question.good_dialogue.prompt for question in questions]
    lengths = [len(encoded) for encoded in pair.chat.encode_all(prompts)]
    # `sample_answers` sorts by length: asked in that order already, row and coefficient agree.
    order = sorted(range(len(questions)), key=lengths.__getitem__)
    per_call = max(batch_size // len(doses), 1)
    rows = []
    for start in range(0, len(order), per_call):
        chunk = order[start : start + per_call]
        edits = edits_for(torch.tensor(doses).repeat(len(chunk)))
        with pair.active(side) as bridge:
            answers = sample_answers(
                bridge,
                pair.chat,
                [prompts[i] for i in chunk for _ in doses],
                intervene=_steering(edits),
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                batch_size=len(chunk) * len(doses),
                seed=seed + start,
                description="Sampling doses",
            )
        for place, answer in enumerate(answers):
            question = questions[chunk[place // len(doses)]]
            tokens = pair.tokenizer(answer, add_special_tokens=False)["input_ids"]
            rows.append(
                {
                    "coefficient": doses[place % len(doses)],
                    "seed": float(seed),
                    "question_id": question.id,
                    "domain": question.domain,
                    "measure": "repetition",
                    "value": repeated_share(tokens),
                }
            )
    return pd.DataFrame(rows)
