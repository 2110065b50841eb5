"""Real interventions around the best of the screen: block range, rank and coefficient."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

import pandas as pd

from persona.stages import Stages
from steering.identification.first_order import RANKS
from steering.identification.trials import Outcome, Trial, TrialSetup, best_within, outcomes

COEFFICIENTS = (0.75, 1.25)
RANGE_RANK = 2
N_CANDIDATES_VERIFIED = 4
N_BLOCKS_VERIFIED = 1
N_LEADERS = 1
N_PARTS = 3
"""Of the middle range that are tried alone, where a skill is to be kept."""


@dataclass(frozen=True)
class Searched:
    """The trial that was chosen, what every finished one did, and the rows of all of them."""

    best: Trial
    outcomes: tuple[Outcome, ...]
    rows: pd.DataFrame


def search(
    setup: TrialSetup, screened: pd.DataFrame, stages: Stages, max_damage: float
) -> Searched:
    """Verify by intervention and return the best trial with everything tried.

    Rounds: (1) over the middle range of blocks the candidates that the screen ranks first and
    those refitted block by block, which no screen can rank, those handed in, and the best single
    blocks; (2) the other ranges for those that did most, few blocks too where a skill is to be
    kept; (3) other ranks and coefficients of the
    best. Each round starts from the best so far, so the runs grow with the sum of the rounds, not
    their product. What can not be the best is not run in the aligned model: see `TrialSetup.run`.
    """
    middle, *other_ranges = block_ranges(setup.pair.n_layers, setup.first_layer)
    tables: list[pd.DataFrame] = []
    found: dict[Trial, Outcome] = {}

    def attempt(name: str, trials: Sequence[Trial]) -> None:
        new = [trial for trial in dict.fromkeys(trials) if trial not in found]
        if new:
            chosen = [o.merit for o in found.values() if o.may_be_chosen(max_damage)]
            beaten = max(chosen, default=-inf)
            rows = stages.table(
                f"verify-{name}",
                lambda: setup.run(new, f"Verifying {name}", max_damage, beaten),
            )
            tables.append(rows if not tables else rows[rows["candidate"].notna()])
            found.update({outcome.trial: outcome for outcome in outcomes(rows, new)})

    blocks = best_blocks(screened, setup.shift)
    always = [name for name, one in setup.candidates.items() if one.always_tried]
    wide = [
        Trial(name, min(setup.candidates[name].max_rank, RANGE_RANK), middle)
        for name in [*(trial.candidate for trial in blocks[:N_CANDIDATES_VERIFIED]), *always]
    ]
    attempt("candidates", [*wide, *blocks[:N_BLOCKS_VERIFIED]])
    leaders = leading(found.values())
    few = [] if setup.skill is None else few_blocks(setup.pair.n_layers, setup.first_layer)
    attempt("ranges", [replace(one, layers=r) for one in leaders for r in [*other_ranges, *few]])
    best = best_within(list(found.values()), max_damage).trial
    top = setup.candidates[best.candidate].max_rank
    ranks = [replace(best, rank=rank) for rank in RANKS if rank <= top]
    attempt("details", [*ranks, *(replace(best, coefficient=c) for c in COEFFICIENTS)])
    best = best_within(list(found.values()), max_damage).trial
    return Searched(best, tuple(found.values()), pd.concat(tables, ignore_index=True))


def best_blocks(screened: pd.DataFrame, shift: float) -> list[Trial]:
    """Each candidate at the rank and block whose predicted restoration is nearest to the whole.

    The most promising candidate comes first.
    shift: gap of the fine-tuned model above the aligned one's on the selection questions.
    """
    restoration = -screened.groupby(["candidate", "rank", "layer"])["value"].mean() / shift
    merit = 1 - (1 - restoration).abs()
    best = merit.groupby("candidate").idxmax()
    ordered = sorted(best, key=lambda place: merit[place], reverse=True)
    return [Trial(name, int(rank), (int(layer),)) for name, rank, layer in ordered]


def leading(found: Iterable[Outcome]) -> list[Trial]:
    """The trials over several blocks that restored most, one of each candidate."""
    leaders: dict[str, Trial] = {}
    for outcome in sorted(found, key=lambda o: o.merit, reverse=True):
        if len(outcome.trial.layers) > 1:
            leaders.setdefault(outcome.trial.candidate, outcome.trial)
    return list(leaders.values())[:N_LEADERS]


def block_ranges(n_layers: int, first: int = 0) -> list[tuple[int, ...]]:
    """Contiguous ranges to try, as shares of the depth, the middle one first, each once.

    The last block is left out: its output goes to the final norm and nothing after it can answer.
    first: the first block at which the models differ; ranges begin there at the earliest, and
        where it is the last block, that one is left.
    """
    shares = ((0.27, 0.97), (0.1, 0.97), (0.43, 0.97))
    ranges = [tuple(range(max(round(a * n_layers), first), round(b * n_layers))) for a, b in shares]
    return list(dict.fromkeys(r or (n_layers - 1,) for r in ranges))


def few_blocks(n_layers: int, first: int = 0) -> list[tuple[int, ...]]:
    """Thirds of the middle range: an edit of few blocks leaves more of everything else alone."""
    middle = block_ranges(n_layers, first)[0]
    ends = [round(part * len(middle) / N_PARTS) for part in range(N_PARTS + 1)]
    parts = [middle[a:b] for a, b in itertools.pairwise(ends) if b > a]
    return [part for part in parts if part != middle]


def front_of(found: Iterable[Outcome], max_damage: float) -> list[Outcome]:
    """The outcomes that no other beats in both, how much persona is gone and skill is kept.

    Only those that may be chosen, from the one that takes most persona to the one that keeps most
    skill; empty where no skill was to be kept.
    """
    able = [o for o in found if o.may_be_chosen(max_damage) and o.skill_kept is not None]
    front: list[Outcome] = []
    for outcome in sorted(able, key=lambda o: (o.persona_gone, o.skill_kept or 0.0), reverse=True):
        if not front or (outcome.skill_kept or 0.0) > (front[-1].skill_kept or 0.0):
            front.append(outcome)
    return front
