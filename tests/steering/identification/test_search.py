"""What decides between trials: merit, the damage budget, the order of the screen, the rounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import pytest
import torch

from persona.behaviour.scoring import Condition
from persona.stages import Unsaved
from steering.identification import trials
from steering.identification.candidates import FixedRows, Means, Refit
from steering.identification.search import (
    COEFFICIENTS,
    best_blocks,
    leading,
    search,
)
from steering.identification.trials import Outcome, Trial, TrialSetup, best_within, outcomes

WIDE = Trial("eigen", 2, (1, 2, 3))


def outcome(gap=1.0, kl=1.0, damage=0.0, trial=WIDE, noop_gap=0.0, noop_kl=0.0):
    return Outcome(trial, gap, kl, noop_gap, noop_kl, damage)


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (outcome(gap=0.8), outcome(gap=0.5)),
        (outcome(gap=1.1), outcome(gap=1.3)),  # overshoot counts against it, as much as shortfall
        (outcome(gap=0.9), outcome(gap=1.2)),
        (outcome(kl=0.6), outcome(kl=0.2)),
        (outcome(gap=0.0), outcome(gap=-0.5)),
    ],
)
def test_merit_is_how_much_of_the_aligned_model_is_back(better, worse):
    assert better.merit > worse.merit


def test_merit_of_the_aligned_model_itself_is_2_and_of_the_fine_tuned_one_0():
    assert outcome(gap=1.0, kl=1.0).merit == 2
    assert outcome(gap=0.0, kl=0.0).merit == 0
    assert outcome(gap=1.2, kl=0.4).merit == pytest.approx(outcome(gap=0.8, kl=0.4).merit)


def test_the_best_within_the_budget_is_chosen_however_good_a_more_harmful_one_is():
    harmful = outcome(gap=1.0, damage=0.0501)
    good, fair = outcome(gap=0.8, damage=0.05), outcome(gap=0.6, damage=-0.2)
    assert best_within([fair, harmful, good], 0.05) is good
    assert best_within([fair, harmful, good], 0.1) is harmful


def test_the_least_harmful_is_chosen_where_none_is_within_the_budget():
    bad, worse = outcome(gap=0.1, damage=0.2), outcome(gap=1.0, damage=0.3)
    assert best_within([worse, bad], 0.05) is bad


@pytest.mark.parametrize("moves", [{"noop_gap": -0.11}, {"noop_gap": 0.11}, {"noop_kl": 0.11}])
def test_an_edit_that_moves_the_aligned_model_is_chosen_only_where_all_do(moves):
    pushes, weaker = outcome(gap=1.0, **moves), outcome(gap=0.6, noop_gap=-0.1, noop_kl=0.1)
    assert not pushes.leaves_aligned and weaker.leaves_aligned
    assert best_within([pushes, weaker], 0.05) is weaker
    assert best_within([pushes, outcome(gap=0.5, **moves)], 0.05) is pushes


def screened(effects):
    """(candidate, rank, layer) -> predicted change of the gap, the same for two questions."""
    return pd.DataFrame(
        [
            {"candidate": name, "rank": rank, "layer": layer, "value": value + noise}
            for (name, rank, layer), value in effects.items()
            for noise in (-0.1, 0.1)
        ]
    )


def test_each_candidate_stands_at_its_most_promising_block_and_rank_the_best_first():
    effects = {
        ("eigen", 1, 0): -0.1,
        ("eigen", 1, 3): -0.3,
        ("eigen", 2, 3): -0.9,  # 2.25 of the shift: past the aligned model by more than the whole
        ("span", 2, 1): -0.36,
        ("span", 2, 2): -0.5,
        ("wrong", 1, 2): 0.4,
        ("wrong", 1, 1): 0.2,
    }
    assert best_blocks(screened(effects), shift=0.4) == [
        Trial("span", 2, (1,)),  # 0.9 of the shift
        Trial("eigen", 1, (3,)),  # 0.75
        Trial("wrong", 1, (1,)),  # away from the aligned model, the least
    ]


def test_a_fine_tune_that_lowers_the_gap_is_restored_by_raising_it():
    """The share is signed by the shift, so that the best takes the gap back where it was."""
    effects = {("down", 1, 1): -0.3, ("up", 1, 1): 0.3}
    assert best_blocks(screened(effects), shift=-0.4)[0].candidate == "up"
    assert best_blocks(screened(effects), shift=0.4)[0].candidate == "down"


def test_leaders_are_specs_over_several_blocks_the_best_of_each_candidate():
    single = outcome(gap=1.0, trial=Trial("eigen", 2, (3,)))
    second, first = outcome(gap=0.5), outcome(gap=0.7, trial=Trial("span", 2, (1, 2, 3)))
    assert leading([single, second, first]) == [first.trial]
    assert leading([single]) == []


def trial_rows(readings):
    """condition -> (gap, KL, neutral cross-entropy), over two questions that differ in level."""
    return pd.DataFrame(
        [
            {"condition": name, "measure": measure, "value": value + level}
            for name, values in readings.items()
            for measure, value in zip(
                ("gap", "kl_good_nats", "neutral_ce_nats"), values, strict=True
            )
            for level in ((-1.0, 1.0) if measure == "gap" else (0.0, 0.0))
        ]
    )


def test_outcomes_are_shares_of_the_shift_and_the_rise_of_cross_entropy():
    other = Trial("span", 1, (2,), 0.75)
    rows = trial_rows(
        {
            "aligned": (-0.2, 0.0, 3.0),
            "finetuned": (0.2, 0.5, 3.1),
            WIDE.label: (-0.1, 0.1, 3.13),
            WIDE.on_aligned: (-0.22, 0.04, 3.0),
            other.label: (0.3, 0.6, 3.05),
            other.on_aligned: (-0.2, 0.0, 3.0),
        }
    )
    found = {o.trial: o for o in outcomes(rows, [WIDE, other])}
    # 0.3 of the shift of 0.4 taken back, and 0.02 of it in the aligned model as well.
    assert found[WIDE].net_restoration == pytest.approx(0.7)
    assert found[WIDE].noop_gap == pytest.approx(-0.05)
    assert found[WIDE].noop_kl == pytest.approx(0.08)
    assert found[WIDE].kl_restoration == pytest.approx(0.8)
    assert found[WIDE].damage == pytest.approx(0.03)
    assert found[other].net_restoration == pytest.approx(-0.25)
    assert found[other].kl_restoration == pytest.approx(-0.2)
    assert found[other].damage == pytest.approx(-0.05)


@dataclass(frozen=True, eq=False)
class GivenEffects(TrialSetup):
    """A setup that runs no model: a trial has the effect (gap, KL, damage, no-op) it is given."""

    effect: Callable[[Trial], tuple[float, ...]] = lambda trial: (0.0, 0.0, 0.0)
    tried: list[Trial] = field(default_factory=list)
    in_aligned: list[Trial] = field(default_factory=list)

    def _condition(self, trial, name, side):
        (self.tried if side == "finetuned" else self.in_aligned).append(trial)
        return Condition(name, side, facts={"candidate": trial.candidate, "trial": trial})

    def _on_questions(self, conditions, description):
        return self._rows(conditions, ("gap", "kl_good_nats"))

    def _on_neutral(self, conditions, description):
        return self._rows(conditions, ("neutral_ce_nats",))

    def _rows(self, conditions, measures):
        return pd.concat([self._of(condition, measures) for condition in conditions])

    def _of(self, condition, measures):
        trial = condition.facts.get("trial")
        gap, kl, damage, noop = (*self.effect(trial), 0.0)[:4] if trial else (0.0, 0.0, 0.0, 0.0)
        readings = {"gap": 0.4 * (1 - gap), "kl_good_nats": 0.5 * (1 - kl)}
        if condition.side == "aligned":
            readings = {"gap": 0.4 * noop, "kl_good_nats": 0.0}
        readings["neutral_ce_nats"] = 3.0 + damage
        rows = trial_rows({condition.name: tuple(readings.values())})
        rows = rows[rows["measure"].isin(measures)]
        return rows.assign(candidate=condition.facts.get("candidate"))


def given_effects(pair, effect) -> GivenEffects:
    rows = dict.fromkeys(range(pair.n_layers), torch.eye(4, pair.d_model))
    nowhere = torch.zeros(pair.n_layers, pair.d_model)
    means = Means(nowhere, nowhere, {})
    candidates = {
        "eigen": FixedRows("eigen", rows),
        "dull": FixedRows("dull", rows),
        "refit": Refit("refit", pair, [], means),
    }
    return GivenEffects(pair, candidates, means, [], [], 64, 0.4, effect=effect)


MIDDLE, EARLY = (1, 2, 3), (0, 1, 2, 3)
SCREENED = {("eigen", 1, 1): -0.2, ("eigen", 4, 2): -0.4, ("dull", 1, 1): -0.01}


def test_the_search_finds_the_best_of_range_rank_and_coefficient_round_by_round(tiny_pair):
    def effect(trial):
        if trial.candidate != "eigen":
            return (0.1, 0.1, 0.0)
        good = 0.2 * (trial.layers == EARLY) + 0.1 * (trial.rank == 4)
        return (0.5 + good + 0.05 * (trial.coefficient == 0.75), 0.5, 0.0)

    setup = given_effects(tiny_pair, effect)
    searched = search(setup, screened(SCREENED), Unsaved(), max_damage=0.05)
    best, rows = searched.best, searched.rows
    assert {o.trial for o in searched.outcomes} == set(setup.in_aligned)
    in_order = list(dict.fromkeys(setup.tried))
    first, second, third = in_order[:4], in_order[4:6], in_order[6:]
    # Every candidate over the middle range, the refitted one too, which no screen can rank, and
    # the best of the screen at its one block.
    assert first == [
        Trial("eigen", 2, MIDDLE),
        Trial("dull", 2, MIDDLE),
        Trial("refit", 1, MIDDLE),
        Trial("eigen", 4, (2,)),
    ]
    assert second == [Trial("eigen", 2, EARLY), Trial("eigen", 2, (2, 3))]
    assert third == [
        *(Trial("eigen", rank, EARLY) for rank in (1, 4)),  # rank 2 was tried before
        *(Trial("eigen", 2, EARLY, coefficient) for coefficient in COEFFICIENTS),
    ]
    assert best == Trial("eigen", 4, EARLY)
    assert set(rows["condition"]) == {
        "aligned",
        "finetuned",
        *(trial.label for trial in setup.tried),
        *(trial.on_aligned for trial in setup.in_aligned),
    }
    of_aligned = rows[rows["condition"] == "aligned"]
    assert len(of_aligned) == 6  # once, and not again in every round


def test_the_search_keeps_to_the_damage_budget(tiny_pair):
    def effect(trial):
        return (1.0, 1.0, 0.2) if trial.candidate == "eigen" else (0.3, 0.2, 0.01)

    def chosen(max_damage):
        setup = given_effects(tiny_pair, effect)
        return search(setup, screened(SCREENED), Unsaved(), max_damage).best

    assert chosen(max_damage=0.05).candidate != "eigen"
    assert chosen(max_damage=0.3).candidate == "eigen"


TRIALS = [Trial("eigen", 1, (layer,)) for layer in range(12)]


def run(setup, beaten=-math.inf):
    rows = setup.run(TRIALS, "Trying", 0.05, beaten)
    return outcomes(rows, TRIALS)


def test_what_is_not_run_in_the_aligned_model_could_not_have_been_chosen(tiny_pair, monkeypatch):
    """Over many random effects the choice is that of running everything, and much is left out."""
    rng, n_left_out = np.random.default_rng(0), 0
    for _ in range(40):
        drawn = dict(
            zip(
                TRIALS,
                rng.normal((0.6, 0.4, 0.02, 0.0), (0.3, 0.3, 0.03, 0.1), (12, 4)),
                strict=True,
            )
        )

        def effect(trial, drawn=drawn):
            return tuple(drawn[trial])

        pruned = run(given_effects(tiny_pair, effect))
        with monkeypatch.context() as everything:
            everything.setattr(trials, "N_PROMISING", len(TRIALS))
            whole = run(given_effects(tiny_pair, effect))
        assert len(whole) == len(TRIALS)
        n_left_out += len(TRIALS) - len(pruned)
        if any(o.may_be_chosen(0.05) for o in whole):
            assert best_within(pruned, 0.05) == best_within(whole, 0.05)
        else:
            assert len(pruned) == len(TRIALS)
    assert n_left_out > 40 * len(TRIALS) / 3


def test_a_trial_that_the_best_so_far_beats_for_certain_is_not_run_in_the_aligned_model(tiny_pair):
    def effect(trial):
        return (0.15 * trial.layers[0], 0.0, 0.0)

    assert len(run(given_effects(tiny_pair, effect), beaten=1.9)) == 2
    # 1.05 is run: its merit is 0.95. 0.9 may give 1.0 net of the no-op; 1.2 gives 0.9 at most.
    assert [o.trial.layers[0] for o in run(given_effects(tiny_pair, effect))] == [6, 7]
