"""From a trait's texts to a vector and the verdict on it; every stage is kept, so a run goes on.

making half    answers for and against -> judged -> pairs kept -> read -> vector at every block
               -> block and coefficient
proving half   answers for, against and plain, steered with the vector and its controls
               -> judged -> AUROC without instructions, induction, suppression -> verdict
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.data.shipped import load_neutral
from persona.data.types import NeutralText
from persona.directions.direction import Direction
from persona.intervals import Estimate, bootstrap
from persona.traits.answer_plan import CONTROLS, TraitPlan
from persona.traits.kept_answers import read_without_instruction, shuffled_poles
from persona.traits.trait_facts import PoleTexts, SteeredEffect, TraitFacts, TraitReading
from persona.traits.trait_verdict import Verdict, verdict_on
from steering.traits.choose_place import choose_place
from steering.traits.trait_effects import (
    VECTOR,
    control_directions,
    score_difference,
    shuffled_controls,
    steered_effect,
)
from steering.traits.trait_place import TraitPlace, damage_of, vector_at
from steering.traits.trait_session import TraitSession
from steering.traits.trait_vector import MadeVector, make_vector, planned

ReadTrait = Callable[[Tensor, PoleTexts, Tensor, Tensor, PoleTexts], TraitReading]
"""Proving rows, their texts, vector, vectors of shuffled poles, making texts -> how well it reads;
`probes.trait_reading.read_trait`."""

N_SHUFFLED = 200
N_NEUTRAL = 24
"""Neutral texts: the first half chooses the coefficient, the second is what damage is told of."""
NOTHING_READ = Estimate(math.nan, math.nan, math.nan, 0)
INDUCED, SUPPRESSED = "added", "taken away"


@dataclass(frozen=True)
class ProvedTrait:
    """All that a run found out.

    made: of the making half. place: None where no vector was made, as what else is None. rows: all
        answers of the proving half with their scores. damage: on neutral texts that chose nothing,
        rise of the cross-entropy in nats per token. coherence: mean by condition.
    """

    made: MadeVector
    plan: TraitPlan
    facts: TraitFacts
    verdict: Verdict
    rows: pd.DataFrame
    place: TraitPlace | None = None
    choice: pd.DataFrame = field(default_factory=pd.DataFrame)
    damage: Mapping[str, Estimate] = field(default_factory=dict)
    coherence: Mapping[str, float] = field(default_factory=dict)


def prove_trait(
    session: TraitSession,
    read: ReadTrait,
    *,
    minutes: float = math.inf,
    nonsense: Mapping[str, Float[Tensor, "layer d_model"]] | None = None,
    given: Float[Tensor, "layer d_model"] | None = None,
    neutral: list[NeutralText] | None = None,
) -> ProvedTrait:
    """Make the vector of a trait and prove it; block, coefficient and centre by the making half.

    read: tells the poles apart, see `ReadTrait`.
    nonsense: vectors of other, meaningless traits, the controls beside random directions; where
        there are none, vectors of shuffled poles stand in. The first ones, where time is short.
    given: a vector at every block, NaN where there is none, that is proved in place of the one that
        the making half gives; that half still chooses block and coefficient.
    neutral: default the first of the shipped ones.
    """
    plan = planned(session, minutes, len(nonsense) if nonsense else CONTROLS)
    made = make_vector(session, plan)
    if given is not None and made.vectors is not None:
        made = replace(made, vectors=given)
    draws = range(plan.draws_proving)
    told = [session.answers("proving", pole, draws, pole) for pole in ("for", "against")]
    if made.vectors is None:
        rows = session.scored(pd.concat(told, ignore_index=True))
        none = SteeredEffect(NOTHING_READ, NOTHING_READ, math.nan, {})
        no = NOTHING_READ
        unread = TraitReading(no, no, no, no, no, math.nan, math.nan, math.nan, math.nan)
        facts = _facts(rows, made, unread, none, none, session.seed)
        return ProvedTrait(made, plan, facts, verdict_on(facts), rows)
    texts = (load_neutral() if neutral is None else neutral)[:N_NEUTRAL]
    place, choice = choose_place(session, plan, made.vectors, texts[::2])
    direction = vector_at(session.pair, made.vectors, place.layer)
    shuffled = shuffled_poles(made.read, N_SHUFFLED, session.seed)
    others = (
        {name: vectors[place.layer] for name, vectors in list(nonsense.items())[: plan.n_nonsense]}
        if nonsense
        else shuffled_controls(shuffled, place.layer, plan.n_nonsense)
    )
    controls = control_directions(direction, others, plan.n_random, session.seed)
    rows = pd.concat(
        [*told, *_steered(session, draws, place, {VECTOR: direction, **controls})],
        ignore_index=True,
    )
    rows = session.scored(rows)
    main = rows["condition"].isin(["plain", "for", f"{VECTOR} {INDUCED}", f"{VECTOR} {SUPPRESSED}"])
    coherence = session.coherent("coherence-proving", rows[main].reset_index(drop=True))
    induction, suppression = (
        _effect(rows, kind, list(controls), session.seed) for kind in (INDUCED, SUPPRESSED)
    )
    reading = _reading(session, read, rows, made, place, shuffled)
    facts = _facts(rows, made, reading, induction, suppression, session.seed)
    return ProvedTrait(
        made,
        plan,
        facts,
        verdict_on(facts),
        rows,
        place,
        choice,
        _damage(session, {VECTOR: direction, **controls}, place, texts[1::2]),
        {
            str(name): float(part["coherence"].mean())
            for name, part in coherence.groupby("condition")
        },
    )


def _steered(
    session: TraitSession, draws: range, place: TraitPlace, directions: Mapping[str, Direction]
) -> list[pd.DataFrame]:
    """The plain model; every direction added to it, and taken away under the instruction."""
    found = [session.answers("proving", "plain", draws, "plain")]
    for name, direction in directions.items():
        for kind, pole, sign in ((INDUCED, "plain", 1.0), (SUPPRESSED, "for", -1.0)):
            found.append(
                session.answers(
                    "proving",
                    pole,  # type: ignore[arg-type]
                    draws,
                    f"{name} {kind}",
                    direction,
                    sign * place.coefficient,
                )
            )
    return found


def _effect(rows: pd.DataFrame, kind: str, controls: list[str], seed: int) -> SteeredEffect:
    """Of the conditions `NAME added` above the plain model, or `NAME taken away` below the told."""
    base, sign = ("plain", 1.0) if kind == INDUCED else ("for", -1.0)
    named = rows.assign(condition=rows["condition"].str.removesuffix(f" {kind}"))
    mine = named[rows["condition"].str.endswith(kind) | (rows["condition"] == base)]
    return steered_effect(mine, base=base, controls=controls, sign=sign, seed=seed)


def _reading(
    session: TraitSession,
    read: ReadTrait,
    rows: pd.DataFrame,
    made: MadeVector,
    place: TraitPlace,
    shuffled: Float[Tensor, "draw layer d_model"],
) -> TraitReading:
    assert made.vectors is not None
    told = rows[rows["condition"].isin(["for", "against"]) & rows["answer"].str.strip().ne("")]
    told = told.reset_index(drop=True)
    activations = session.stages.tensors(
        "read-proving", lambda: {"rows": read_without_instruction(session.pair, told)}
    )["rows"]
    kept = made.kept
    making = PoleTexts(
        [*kept["answer_for"], *kept["answer_against"]],
        pd.Series([True] * len(kept) + [False] * len(kept)).to_numpy(),
        [*kept["question_id"], *kept["question_id"]],
    )
    proving = PoleTexts(
        told["answer"].tolist(), (told["pole"] == "for").to_numpy(), told["question_id"].tolist()
    )
    layer = place.layer
    return read(activations[:, layer], proving, made.vectors[layer], shuffled[:, layer], making)


def _damage(
    session: TraitSession,
    directions: Mapping[str, Direction],
    place: TraitPlace,
    neutral: list[NeutralText],
) -> dict[str, Estimate]:
    """Rise of the cross-entropy by direction, nats per token, over neutral texts."""
    table = session.stages.table(
        "damage-proving",
        lambda: damage_of(session.pair, directions, [place.coefficient], neutral),
    )
    return {
        str(name): bootstrap(part["ce_rise_nats"].to_numpy(), seed=session.seed)
        for name, part in table.groupby("direction", sort=False)
    }


def _facts(
    rows: pd.DataFrame,
    made: MadeVector,
    reading: TraitReading,
    induction: SteeredEffect,
    suppression: SteeredEffect,
    seed: int,
) -> TraitFacts:
    told = rows[rows["condition"].isin(["for", "against"])].dropna(subset="trait")
    within = told.groupby("condition")["trait"]
    return TraitFacts(
        len(made.kept),
        int(within.size().min()) if len(told) else 0,
        score_difference(told, "for", "against", seed),
        float(within.std().mean()) if len(told) else math.nan,
        reading,
        induction,
        suppression,
    )
