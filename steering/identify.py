"""Which candidate, where, how strong: chosen by cause on the domains fine-tuned on.

Three steps, none of which sees a held-out domain: a first-order screen of every candidate at every
single block; real interventions, with every candidate over a range of blocks beside the screen's
best; a search of block range, rank and coefficient around the best, under a damage budget on
neutral text. A single block says little about a range: the whitened model effect restores a third
of the gap at its best block and three quarters over many (docs/findings.md).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd
import torch

from persona.activations import collect_covariance
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair, NeutralText
from persona.directions import Cells, Effect, PersonaVector, collect_cells, two_by_two
from persona.models.pair import SIDES, ModelPair
from steering.attribution import attribution_matrices, first_order_effects
from steering.candidates import (
    Candidate,
    Means,
    Refit,
    build_vector,
    eigen_candidates,
    from_bases,
    refit_candidates,
    two_by_two_candidates,
)
from steering.hooks import restore_to_aligned, steered_by
from steering.refit import refit_block_by_block
from steering.rows import tidy
from steering.workspace import Stages, Unsaved

HandedIn = Callable[[Sequence[AnswerPair]], Mapping[str, torch.Tensor]]
"""Questions -> further candidates: name -> orthonormal rows [rank d_model], for every block."""

ATTRIBUTION_QUESTIONS = 16
COVARIANCE_QUESTIONS = 16
MAX_DAMAGE = 0.05
RANKS = (1, 2, 4, 8)
COEFFICIENTS = (0.75, 1.25)
RANGE_RANK = 2
N_CANDIDATES_VERIFIED = 4
N_BLOCKS_VERIFIED = 1
N_LEADERS = 1


@dataclass(frozen=True)
class Spec:
    """One thing to try: the first `rank` directions of a candidate at `layers`."""

    candidate: str
    rank: int
    layers: tuple[int, ...]
    coefficient: float = 1.0

    @property
    def label(self) -> str:
        blocks = (
            f"block {self.layers[0]}"
            if len(self.layers) == 1
            else f"blocks {self.layers[0]}-{self.layers[-1]}"
        )
        return f"{self.candidate} r{self.rank} {blocks} c{self.coefficient:g}"


@dataclass(frozen=True)
class Outcome:
    """What a spec did on the selection questions and on neutral text.

    gap_restoration, kl_restoration: as in the scorecard, but in-domain.
    damage: neutral cross-entropy above the fine-tuned model's, nats per token.
    """

    spec: Spec
    gap_restoration: float
    kl_restoration: float
    damage: float

    @property
    def merit(self) -> float:
        """How much of the aligned model is back: overshoot of the gap counts against it."""
        return 1 - abs(1 - self.gap_restoration) + self.kl_restoration


@dataclass(frozen=True)
class Bench:
    """Everything a spec is tried on: the pair, its candidates, selection questions, neutral text.

    train: the questions that directions are fitted to.
    handed_in: how the candidates of `identify(handed_in=...)` are made.
    shift: gap of the fine-tuned model above the aligned one's on the selection questions.
    """

    pair: ModelPair
    candidates: Mapping[str, Candidate | Refit]
    means: Means
    train: Sequence[AnswerPair]
    questions: Sequence[AnswerPair]
    neutral: Sequence[NeutralText]
    token_budget: int
    shift: float
    stages: Stages
    handed_in: HandedIn | None = None

    def vector(self, spec: Spec) -> PersonaVector:
        candidate = self.candidates[spec.candidate]
        if isinstance(candidate, Candidate):
            return build_vector(
                self.pair, candidate, self.means, spec.layers, spec.rank, spec.coefficient
            )
        kept = self.stages.tensors(
            f"{candidate.name}-r{spec.rank}-{spec.layers[0]}-{spec.layers[-1]}",
            lambda: {
                str(layer): rows
                for layer, rows in fit_rows(
                    self.pair, candidate, self.train, self.means, spec.layers, spec.rank
                ).items()
            },
        )
        bases = {int(layer): rows for layer, rows in kept.items()}
        return from_bases(
            self.pair, bases, self.means, candidate.name, spec.coefficient, read_whitened=True
        )

    def condition(self, spec: Spec) -> Condition:
        edits = restore_to_aligned(self.vector(spec))
        return Condition(spec.label, "finetuned", steered_by(edits), spec.layers[0])

    def run(self, specs: Sequence[Spec], description: str) -> pd.DataFrame:
        """Rows of both baselines and every spec on the selection questions and neutral text."""
        conditions = [
            Condition("aligned", "aligned"),
            Condition("finetuned", "finetuned"),
            *(self.condition(spec) for spec in specs),
        ]
        answers = score_pairs(
            self.pair,
            self.questions,
            conditions,
            token_budget=self.token_budget,
            description=description,
        ).assign(split="selection")
        neutral = score_neutral(
            self.pair,
            self.neutral,
            conditions,
            token_budget=self.token_budget,
            description=f"{description}: neutral text",
        ).assign(split="neutral")
        rows = pd.concat([answers, neutral], ignore_index=True)
        by_label = {spec.label: spec for spec in specs}
        return rows.assign(
            stage="verify",
            candidate=[_of(by_label, name, "candidate") for name in rows["condition"]],
            rank=[_of(by_label, name, "rank") for name in rows["condition"]],
            coefficient=[_of(by_label, name, "coefficient") for name in rows["condition"]],
        )


def fit_rows(
    pair: ModelPair,
    candidate: Refit,
    questions: Sequence[AnswerPair],
    means: Means,
    layers: Sequence[int],
    rank: int,
) -> dict[int, torch.Tensor]:
    """The orthonormal rows of a refitted candidate at the blocks it is to be restored at."""
    beside = candidate.beside if rank > 1 else None
    return refit_block_by_block(pair, questions, layers, means.aligned, means.covariance, beside)


def _of(by_label: Mapping[str, Spec], name: str, field: str) -> object:
    return getattr(by_label[name], field) if name in by_label else None


def outcomes(rows: pd.DataFrame, specs: Sequence[Spec]) -> list[Outcome]:
    """Restoration and damage of each spec from the rows of `Bench.run`."""
    table = rows.pivot_table("value", "condition", "measure", aggfunc="mean")
    aligned, finetuned = table.loc["aligned"], table.loc["finetuned"]
    shift = finetuned["gap"] - aligned["gap"]
    return [
        Outcome(
            spec,
            float((finetuned["gap"] - table.loc[spec.label, "gap"]) / shift),
            float(1 - table.loc[spec.label, "kl_good_nats"] / finetuned["kl_good_nats"]),
            float(table.loc[spec.label, "neutral_ce_nats"] - finetuned["neutral_ce_nats"]),
        )
        for spec in specs
    ]


def best_within(found: Sequence[Outcome], max_damage: float) -> Outcome:
    """The outcome of highest merit whose damage is within the budget; the least harmful if none."""
    allowed = [o for o in found if o.damage <= max_damage]
    if not allowed:
        return min(found, key=lambda o: o.damage)
    return max(allowed, key=lambda o: o.merit)


@dataclass(frozen=True)
class Identification:
    """The persona vector that was chosen, and why.

    vector: the chosen subspaces with their means; effects: the 2x2 by block; means: mean
    residuals of both models; split_half_cosines: by chosen block, see `split_half_cosines`.
    rows: stages "direction", "screen" and "verify" of rows.parquet.
    """

    vector: PersonaVector
    effects: Mapping[str, Effect]
    means: Means
    split_half_cosines: list[float]
    rows: pd.DataFrame


def identify(
    pair: ModelPair,
    train: Sequence[AnswerPair],
    selection: Sequence[AnswerPair],
    neutral: Sequence[NeutralText],
    *,
    max_damage: float = MAX_DAMAGE,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
    handed_in: HandedIn | None = None,
) -> Identification:
    """Find the persona vector that best gives the aligned model back.

    Directions are made of `train`, chosen on `selection` and `neutral`; questions that are to
    score must be in none of them.
    max_damage: rise of neutral cross-entropy over the fine-tuned model's, nats per token.
    handed_in: makes further candidates from questions, such as the latents of an autoencoder;
        they are screened at every block, and verified whatever the screen says.
    Raises: DataError for too few questions.
    """
    stages = stages or Unsaved()
    layers = range(pair.n_layers)
    cells = Cells(
        **stages.tensors(
            "cells", lambda: dict(vars(collect_cells(pair, train, token_budget=token_budget)))
        )
    )
    effects = two_by_two(cells, seed=seed)
    covariance = stages.tensors(
        "covariance", lambda: within_covariance(pair, train[:COVARIANCE_QUESTIONS], token_budget)
    )
    means = Means.of(cells, {int(layer): matrix for layer, matrix in covariance.items()})
    halves = stages.tensors(
        "attribute",
        lambda: {
            f"{half}.{layer}": matrix
            for half in (0, 1)
            for layer, matrix in attribution_matrices(
                pair,
                train[half:ATTRIBUTION_QUESTIONS:2],
                {layer: means.aligned[layer] for layer in layers},
                token_budget=token_budget,
            ).items()
        },
    )
    fixed = make_candidates(effects, mean_matrices(halves))
    if handed_in is not None:
        given = stages.tensors("handed-in", lambda: dict(handed_in(train)))
        fixed |= handed_in_candidates(given, pair.n_layers)
    screened = stages.table("screen", lambda: screen(pair, selection, fixed, means, token_budget))
    baseline = stages.table(
        "verify-baseline",
        lambda: score_pairs(
            pair,
            selection,
            [Condition("aligned", "aligned"), Condition("finetuned", "finetuned")],
            kl=False,
            token_budget=token_budget,
            description="Scoring selection questions",
        ),
    )
    gaps = baseline[baseline["measure"] == "gap"].groupby("condition")["value"].mean()
    shift = float(gaps["finetuned"] - gaps["aligned"])
    candidates: dict[str, Candidate | Refit] = {**fixed}
    candidates.update({refit.name: refit for refit in refit_candidates(effects)})
    bench = Bench(
        pair,
        candidates,
        means,
        train,
        selection,
        neutral,
        token_budget,
        shift,
        stages,
        handed_in,
    )
    spec, verified = search(bench, screened, stages, max_damage)
    return Identification(
        bench.vector(spec),
        effects,
        means,
        stages.tensors("halves", lambda: split_half_cosines(bench, cells, halves, spec))[
            "cosine"
        ].tolist(),
        tidy(pd.concat([effect_rows(effects), screened, verified], ignore_index=True)),
    )


def within_covariance(
    pair: ModelPair, questions: Sequence[AnswerPair], token_budget: int
) -> dict[str, torch.Tensor]:
    """layer -> covariance over answer tokens within a model, averaged over the two models."""
    dialogues = pair.chat.encode_all(
        [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    )
    found = []
    for side in SIDES:
        with pair.active(side) as bridge:
            found.append(
                collect_covariance(
                    bridge,
                    dialogues,
                    range(pair.n_layers),
                    token_budget=token_budget,
                    description=f"Reading covariances ({side})",
                )
            )
    return {str(layer): ((found[0][layer] + found[1][layer]) / 2).float() for layer in found[0]}


def make_candidates(
    effects: Mapping[str, Effect], matrices: Mapping[int, torch.Tensor]
) -> dict[str, Candidate]:
    """Every candidate by its name."""
    found = (*two_by_two_candidates(effects), *eigen_candidates(matrices, effects))
    return {candidate.name: candidate for candidate in found}


def handed_in_candidates(given: Mapping[str, torch.Tensor], n_layers: int) -> dict[str, Candidate]:
    """The same rows at every block: all blocks write to one residual stream."""
    return {
        name: Candidate(name, dict.fromkeys(range(n_layers), rows), handed_in=True)
        for name, rows in given.items()
    }


def mean_matrices(
    halves: Mapping[str, torch.Tensor], which: Sequence[int] = (0, 1)
) -> dict[int, torch.Tensor]:
    """layer -> mean over the halves asked for of the matrices named "half.layer"."""
    layers = sorted({int(name.split(".")[1]) for name in halves})
    return {
        layer: torch.stack([halves[f"{half}.{layer}"] for half in which]).mean(0)
        for layer in layers
    }


def split_half_cosines(
    bench: Bench, cells: Cells, halves: Mapping[str, torch.Tensor], spec: Spec
) -> dict[str, torch.Tensor]:
    """By block: how alike the chosen subspace is when made from either half of the questions.

    sqrt(||A B^T||^2 / rank) for orthonormal rows A and B: the root mean square cosine of the
    principal angles; |cosine| for rank 1. Two random subspaces give about sqrt(rank / d_model).
    Returned as "cosine", in the order of the blocks.
    """
    bases = []
    for half in (0, 1):
        part = Cells(**{name: cell[half::2] for name, cell in vars(cells).items()})
        effects = two_by_two(part, n_splits=1)
        chosen = bench.candidates[spec.candidate]
        if isinstance(chosen, Candidate):
            if chosen.handed_in:
                assert bench.handed_in is not None
                given = bench.handed_in(bench.train[half::2])
                made = handed_in_candidates(given, bench.pair.n_layers)
            else:
                made = make_candidates(effects, mean_matrices(halves, [half]))
            if spec.candidate not in made or made[spec.candidate].max_rank < spec.rank:
                # Half of the questions do not give so many directions: no likeness to speak of.
                return {"cosine": torch.full((len(spec.layers),), torch.nan, dtype=torch.float64)}
            rows = made[spec.candidate].rows
            bases.append({layer: rows[layer][: spec.rank] for layer in spec.layers})
        else:
            refit = {c.name: c for c in refit_candidates(effects)}[spec.candidate]
            means = Means.of(part, bench.means.covariance)
            questions = bench.train[half::2]
            bases.append(fit_rows(bench.pair, refit, questions, means, spec.layers, spec.rank))
    cosines = [
        float((bases[0][layer] @ bases[1][layer].T).norm()) / spec.rank**0.5
        for layer in spec.layers
    ]
    return {"cosine": torch.tensor(cosines, dtype=torch.float64)}


def screen(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    candidates: Mapping[str, Candidate],
    means: Means,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> pd.DataFrame:
    """First-order effect of every candidate, at a few ranks, at every block, by question."""
    tried = [
        (candidate, rank, layer)
        for candidate in candidates.values()
        for rank in sorted({*RANKS, candidate.max_rank})
        if rank <= candidate.max_rank
        for layer in range(pair.n_layers)
    ]
    subspaces = [
        build_vector(pair, candidate, means, [layer], rank).subspaces[layer]
        for candidate, rank, layer in tried
    ]
    effects = first_order_effects(pair, questions, subspaces, "gap", token_budget)
    return pd.DataFrame(
        [
            {
                "stage": "screen",
                "condition": "finetuned",
                "question_id": question.id,
                "domain": question.domain,
                "split": "selection",
                "measure": "predicted_gap_change",
                "value": float(effects[place, i]),
                "layer": layer,
                "candidate": candidate.name,
                "rank": rank,
            }
            for place, (candidate, rank, layer) in enumerate(tried)
            for i, question in enumerate(questions)
        ]
    )


def effect_rows(effects: Mapping[str, Effect]) -> pd.DataFrame:
    """Norm and split-half cosine of the 2x2 effects by block."""
    return pd.DataFrame(
        [
            {
                "stage": "direction",
                "condition": "",
                "question_id": "",
                "domain": "",
                "split": "train",
                "measure": measure,
                "value": float(values[layer]),
                "layer": layer,
                "candidate": name,
                "rank": 1,
            }
            for name, effect in effects.items()
            for measure, values in (
                ("norm", effect.norms),
                ("split_half_cosine", effect.split_half_cosine),
                ("split_half_low", effect.split_half_low),
                ("split_half_high", effect.split_half_high),
                ("bootstrap_cosine_low", effect.bootstrap_cosine[:, 0]),
                ("bootstrap_cosine_high", effect.bootstrap_cosine[:, 1]),
            )
            for layer in range(len(values))
        ]
    )


def search(
    bench: Bench, screened: pd.DataFrame, stages: Stages, max_damage: float
) -> tuple[Spec, pd.DataFrame]:
    """Verify by intervention and return the best spec with the rows of everything tried.

    Rounds: (1) over the middle range of blocks the candidates that the screen ranks first and
    those refitted block by block, which no screen can rank, those handed in, and the best single
    blocks; (2) the other ranges for those that did most; (3) other ranks and coefficients of the
    best. Each round starts from the best so far, so the runs grow with the sum of the rounds, not
    their product.
    """
    n_layers = bench.pair.n_layers
    middle, *other_ranges = block_ranges(n_layers)
    tables: list[pd.DataFrame] = []
    found: dict[Spec, Outcome] = {}

    def attempt(name: str, specs: Sequence[Spec]) -> None:
        new = [spec for spec in dict.fromkeys(specs) if spec not in found]
        if new:
            rows = stages.table(f"verify-{name}", lambda: bench.run(new, f"Verifying {name}"))
            tables.append(rows if not tables else rows[rows["candidate"].notna()])
            found.update({outcome.spec: outcome for outcome in outcomes(rows, new)})

    blocks = best_blocks(screened, bench.shift)
    always = [n for n, c in bench.candidates.items() if isinstance(c, Refit) or c.handed_in]
    wide = [
        Spec(name, min(bench.candidates[name].max_rank, RANGE_RANK), middle)
        for name in [*(spec.candidate for spec in blocks[:N_CANDIDATES_VERIFIED]), *always]
    ]
    attempt("candidates", [*wide, *blocks[:N_BLOCKS_VERIFIED]])
    leaders = leading(found.values())
    attempt("ranges", [replace(spec, layers=r) for spec in leaders for r in other_ranges])
    best = best_within(list(found.values()), max_damage).spec
    top = bench.candidates[best.candidate].max_rank
    ranks = [replace(best, rank=rank) for rank in RANKS if rank <= top]
    attempt("details", [*ranks, *(replace(best, coefficient=c) for c in COEFFICIENTS)])
    best = best_within(list(found.values()), max_damage).spec
    return best, pd.concat(tables, ignore_index=True)


def best_blocks(screened: pd.DataFrame, shift: float) -> list[Spec]:
    """Each candidate at the rank and block whose predicted restoration is nearest to the whole.

    The most promising candidate comes first.
    shift: gap of the fine-tuned model above the aligned one's on the selection questions.
    """
    restoration = -screened.groupby(["candidate", "rank", "layer"])["value"].mean() / shift
    merit = 1 - (1 - restoration).abs()
    best = merit.groupby("candidate").idxmax()
    ordered = sorted(best, key=lambda place: merit[place], reverse=True)
    return [Spec(name, int(rank), (int(layer),)) for name, rank, layer in ordered]


def leading(found: Iterable[Outcome]) -> list[Spec]:
    """The specs over several blocks that restored most, one of each candidate."""
    leaders: dict[str, Spec] = {}
    for outcome in sorted(found, key=lambda o: o.merit, reverse=True):
        if len(outcome.spec.layers) > 1:
            leaders.setdefault(outcome.spec.candidate, outcome.spec)
    return list(leaders.values())[:N_LEADERS]


def block_ranges(n_layers: int) -> list[tuple[int, ...]]:
    """Contiguous ranges to try, as shares of the depth, the middle one first.

    The last block is left out: its output goes to the final norm and nothing after it can answer.
    """
    shares = ((0.27, 0.97), (0.1, 0.97), (0.43, 0.97))
    return [tuple(range(round(a * n_layers), round(b * n_layers))) for a, b in shares]
