"""Dose and response, and every condition scored on questions that chose nothing."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd
from torch import Tensor

from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED, Condition
from persona.data import load_tasks
from persona.data.types import AnswerPair
from persona.directions import PersonaVector
from persona.engine import ShardRunner
from persona.errors import DataError
from persona.models import ModelPair, load_pair
from persona.rows import (
    ALIGNED,
    FINETUNED,
    GOOD_TWIN,
    INDUCED,
    INDUCED_RANDOM,
    INDUCED_TWIN,
    NOOP,
    NULL_PRINCIPAL,
    NULL_SELECTION,
    NULL_SWAPPED,
    PLACEBO,
    PLACEBO_NOOP,
    RANDOM,
    RANDOM_MATCHED,
    RESTORED,
    ZERO_ABLATED,
    on_aligned,
)
from persona.stages import Workspace
from persona.vllm import vllm_sampler
from steering.diagnosis.chunks import ChunkScoring, score_in_chunks
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.keeping import SkillScoring, front_conditions
from steering.diagnosis.questions import Questions
from steering.edits.from_directions import ablate, induce, restore
from steering.edits.steer import edited
from steering.evidence.answers import Plans, sample_good_twin
from steering.evidence.dose import dose_conditions
from steering.evidence.first_order_null import Draws, first_order_null
from steering.evidence.null_summary import null_of_first_order
from steering.evidence.question_table import question_table
from steering.evidence.random_edits import RecordedSteps
from steering.evidence.task_damage import score_task_damage
from steering.identification.attribution import attribution_moments
from steering.identification.candidates import Means, random_vector
from steering.identification.identify import ATTRIBUTION_QUESTIONS, Identification
from steering.identification.label_nulls import (
    construction,
    kept_vectors,
    selection_vectors,
    swapped_label_vectors,
)
from steering.identification.null_vectors import (
    null_conditions,
    principal_vectors,
    screened_draws,
)
from steering.identification.placebos import (
    OTHER_FINE_TUNE,
    TWIN,
    placebo_of_fine_tune,
    placebos_of,
)

logger = logging.getLogger("persona")

DOSE_QUESTIONS = 3
DOSES = (0.0, 0.5, 1.0, 1.5)
DOSE_DRAWS = 3
KINDS: Mapping[Draws, str] = {"isotropic": "isotropic", "covariance": "covariance_matched"}
"""Random subspaces, and what scorecard.json calls them."""
Moments = Mapping[int, Tensor]
"""layer -> attribution moments of the scored questions, see `attribution_moments`."""
INDUCTIONS = (1.0, 0.75, 0.5, 0.25)
"""Shares of the way to the fine-tuned mean that may be induced; the largest that harms no more."""
HARM_TIE = 0.005
"""Nats per token of neutral text: less than this is rounding, and harms no more."""
INDUCED_DRAWS = 3
RUN_DRAWS, QUICK_RUN_DRAWS = 20, 3
"""The strongest of so many screened draws that are run, of either kind; in a quick run."""


class _WhenAsked:
    """A pair that is loaded the first time that it is asked for."""

    def __init__(self, load: Callable[[], ModelPair]) -> None:
        self._load = load

    @cached_property
    def pair(self) -> ModelPair:
        return self._load()


@dataclass(frozen=True)
class Scoring:
    """Readings of the chosen vector; budget: padded tokens of a batch."""

    config: DiagnoseConfig
    pair: ModelPair
    questions: Questions
    workspace: Workspace
    budget: int

    def dose(self, vector: PersonaVector) -> pd.DataFrame:
        """Gap of the selection questions against coefficient, with norm-matched random draws."""
        rows = score_pairs(
            self.pair,
            self.questions.selection[:DOSE_QUESTIONS],
            dose_conditions(
                lambda coefficient: restore(vector, coefficient),
                DOSES,
                "finetuned",
                matched_seeds=[self._draw_seed(draw) for draw in range(DOSE_DRAWS)],
            ),
            kl=False,
            token_budget=self.budget,
            description="Dose and response",
        )
        return rows[rows["measure"] == "gap"].assign(stage="dose", split="selection")

    def placebos(self, found: Identification) -> dict[str, PersonaVector]:
        """Those that need no other fine-tune; the good twin's comes from `of_good_twin`."""
        neutral = [text.dialogue for text in self.questions.neutral_selection]
        return placebos_of(self.pair, found, neutral, self.budget, self.workspace)

    def induction(self, vector: PersonaVector) -> tuple[float, pd.DataFrame]:
        """The strongest induction that costs neutral text no more than the fine-tune does.

        One that does more harm shows harm. Chosen on the neutral texts of the selection; where all
        of them harm more, the weakest.
        """
        shares = {f"induced {share:g}": share * vector.coefficient for share in INDUCTIONS}

        def tried() -> pd.DataFrame:
            conditions = [
                edited(name, "aligned", induce(vector, strength), facts={"coefficient": strength})
                for name, strength in shares.items()
            ]
            return score_neutral(
                self.pair,
                self.questions.neutral_selection,
                [*UNEDITED, *conditions],
                token_budget=self.budget,
                description="Choosing how strongly to induce",
            ).assign(stage="induction", split="neutral")

        rows = self.workspace.table("induction", tried)
        ce = rows[rows["measure"] == "neutral_ce_nats"].groupby("condition")["value"].mean()
        bearable = ce[FINETUNED] + HARM_TIE
        harmless = [at for name, at in shares.items() if ce[name] <= bearable]
        return max(harmless, default=min(shares.values())), rows

    def strong_nulls(
        self, vector: PersonaVector, means: Means, moments: Moments
    ) -> tuple[list[Condition], pd.DataFrame]:
        """The strongest of a thousand random subspaces of either kind, and principal components.

        Ranked by their first-order effect on the very questions that score; rows: what was
        predicted of every draw.
        """
        n_run = QUICK_RUN_DRAWS if self.quick else RUN_DRAWS
        screened = [
            screened_draws(
                self.pair, vector, means, moments, kind, n_run=n_run, seed=self.config.seed
            )
            for kind in KINDS
        ]
        conditions = [c for one in screened for c in null_conditions(one.name, one.vectors)]
        principal = principal_vectors(self.pair, vector, means)
        conditions += null_conditions(NULL_PRINCIPAL, principal)
        return conditions, pd.concat([one.rows() for one in screened], ignore_index=True)

    def label_nulls(self, found: Identification) -> list[Condition]:
        """What the choice finds where nothing says which answer is bad, in both models.

        Twice: the chosen candidate made of swapped answers, and the screen's choice on them.
        """
        like, means, train = found.vector, found.means, self.questions.train
        make = construction(self.pair, means.covariance, self.budget)
        made = {
            NULL_SWAPPED: lambda: swapped_label_vectors(
                self.pair,
                like,
                means,
                train,
                found.cells,
                make,
                n=self.config.label_draws,
                seed=self.config.seed,
            ),
            NULL_SELECTION: lambda: selection_vectors(
                self.pair,
                like,
                means,
                train,
                found.cells,
                self.questions.selection,
                found.rows,
                n=self.config.label_draws,
                n_attributed=ATTRIBUTION_QUESTIONS,
                seed=self.config.seed,
                token_budget=self.budget,
            ),
        }
        conditions = []
        for name, vectors_of in made.items():
            kept = kept_vectors(self.workspace, name, self.pair, like, means, vectors_of)
            conditions += null_conditions(name, kept)
            conditions += null_conditions(on_aligned(name), kept, "aligned")
        return conditions

    def closed_form_nulls(
        self, vector: PersonaVector, means: Means, moments: Moments, rows: pd.DataFrame
    ) -> dict[str, Any]:
        """How often random subspaces would do as much to first order, of which no draw is run.

        rows: with the scored gaps, of which the restoration's fall is taken.
        """
        gaps = question_table(rows, "gap", "held_out").mean()
        shift, fall = gaps[FINETUNED] - gaps[ALIGNED], gaps[FINETUNED] - gaps[RESTORED]
        return {
            name: null_of_first_order(
                first_order_null(
                    vector,
                    moments,
                    means.covariance,
                    kind,
                    measured=float(fall),
                    seed=self.config.seed,
                ),
                float(shift),
            )
            for kind, name in KINDS.items()
        }

    def moments(self, vector: PersonaVector, means: Means) -> Moments:
        """What restoring a subspace of a block does to the scored questions, to first order."""
        return self.workspace.by_layer(
            "null-moments",
            lambda: attribution_moments(
                self.pair,
                self.questions.held_out,
                {layer: means.aligned[layer] for layer in vector.layers},
                token_budget=self.budget,
            ),
        )

    @property
    def quick(self) -> bool:
        """Whether few questions of a domain are scored."""
        return self.config.questions_per_domain is not None

    def score(
        self,
        found: Identification,
        vector: PersonaVector,
        placebos: Mapping[str, PersonaVector],
        moments: Moments,
    ) -> list[pd.DataFrame]:
        """Every condition on held-out questions, on those trained on, and on fresh neutral text.

        The good twin is another pair of models: see
        `of_good_twin`. vector: that of `found`, with its card.
        """
        means, front = found.means, found.front
        strength, tried = self.induction(vector)
        nulls, predicted = self.strong_nulls(vector, means, moments)
        restoration = RecordedSteps(restore(vector))
        induction = RecordedSteps(induce(vector, strength))
        fixed = [
            *UNEDITED,
            edited(NOOP, "aligned", restore(vector)),
            edited(INDUCED, "aligned", induction.edits(), facts={"coefficient": strength}),
            edited(ZERO_ABLATED, "finetuned", ablate(vector)),
            # The norm-matched draws repeat this one's steps, so it comes last before them.
            edited(RESTORED, "finetuned", restoration.edits()),
        ]
        controls = [
            edited(INDUCED_RANDOM, "aligned", induction.random_edits(self._draw_seed(draw)), draw)
            for draw in range(INDUCED_DRAWS)
        ]
        if TWIN in placebos:
            controls.append(edited(INDUCED_TWIN, "aligned", induce(placebos[TWIN], strength)))
        for name, placebo in placebos.items():
            facts = {"candidate": name}
            controls += [
                edited(PLACEBO, "finetuned", restore(placebo), facts=facts),
                edited(PLACEBO_NOOP, "aligned", restore(placebo), facts=facts),
            ]
        for in_aligned in (False, True):
            controls += front_conditions(front, in_aligned=in_aligned)
        controls += nulls
        if self.config.label_draws:
            controls += self.label_nulls(found)
        draws = [] if self.quick else self._draws(vector, means, restoration)
        q = self.questions
        with self.config.engine.start() as run:
            parts = self._score_held_out(run, fixed, controls, draws)
        parts += [tried, predicted]
        if self.config.scores_tasks:
            parts.append(
                self.workspace.table(
                    "score-tasks",
                    lambda: score_task_damage(self.pair, vector, load_tasks(), self.budget),
                )
            )
        # One draw says what a random edit does where it is not the null.
        few = [*fixed, *(c for c in draws if c.name == RANDOM and c.seed == 0)]
        if q.trained_on:
            parts.append(
                self.workspace.table(
                    "score-trained-on", lambda: self._score_pairs(q.trained_on, few, "trained_on")
                )
            )
        parts.append(
            self.workspace.table(
                "score-neutral",
                lambda: score_neutral(
                    self.pair, q.neutral_score, few, token_budget=self.budget
                ).assign(stage="score", split="neutral"),
            )
        )
        return parts

    def _draws(
        self, vector: PersonaVector, means: Means, restoration: RecordedSteps
    ) -> list[Condition]:
        """Random subspaces, and random steps as long as the restoration's, of every seed.

        A quick run has the strongest of a thousand screened subspaces in their place.
        """
        subspaces, matched = [], []
        for draw in range(self.config.n_random):
            seed = self._draw_seed(draw)
            elsewhere = restore(random_vector(self.pair, vector, means, seed))
            subspaces.append(edited(RANDOM, "finetuned", elsewhere, draw))
            matched.append(
                edited(RANDOM_MATCHED, "finetuned", restoration.random_edits(seed), draw)
            )
        return [*matched, *subspaces]

    def of_good_twin(
        self, found: Identification, plans: Plans | None, keep: SkillScoring | None = None
    ) -> tuple[list[pd.DataFrame], dict[str, PersonaVector]]:
        """The good twin's readings, of a skill too, its answers, and the placebo made of it.

        It is loaded once for all of them.
        """
        if not (named := self.config.good_twin):
            return [], {}
        twin = _WhenAsked(lambda: self._load_fine_tune(named))
        placebos = self._placebo_of(TWIN, twin, found)
        parts = [self.workspace.table("score-good-twin", lambda: self._good_twin(twin.pair))]
        if keep is not None:
            parts.append(keep.of_twin(lambda: twin.pair))
        if plans is not None:
            parts.append(
                self.workspace.table(
                    f"sample-{GOOD_TWIN}",
                    lambda: sample_good_twin(twin.pair, plans, self.workspace.table),
                )
            )
        return parts, placebos

    def of_other_fine_tune(self, found: Identification) -> dict[str, PersonaVector]:
        """The placebo made of another fine-tune of the same model, where one is named."""
        if not (named := self.config.other_finetune):
            return {}
        other = _WhenAsked(lambda: self._load_fine_tune(named))
        return self._placebo_of(OTHER_FINE_TUNE, other, found)

    def _placebo_of(
        self, name: str, other: _WhenAsked, found: Identification
    ) -> dict[str, PersonaVector]:
        """Empty where that fine-tune moves no answer."""
        try:
            vector = placebo_of_fine_tune(
                self.pair,
                lambda: other.pair,
                name,
                found,
                self.questions.train,
                self.budget,
                self.workspace,
            )
        except DataError as alike:
            logger.warning("no placebo is made of the %s: %s", name.replace("_", " "), alike)
            return {}
        return {name: vector}

    def _score_held_out(
        self,
        run: ShardRunner,
        fixed: list[Condition],
        controls: list[Condition],
        nulls: list[Condition],
    ) -> list[pd.DataFrame]:
        """All conditions on the held-out questions.

        A norm-matched draw repeats the steps of an edit run before it on the same batch, so the
        restoration and the induction, whose rows are there already, run again.
        """
        q = self.questions.held_out
        conditions = ChunkScoring(self.pair, tuple(fixed), "held_out", True, self.budget)
        induced = [c for c in fixed if c.name == INDUCED]
        with_controls = dataclasses.replace(
            conditions, conditions=(*induced, *controls), kl=False, left_out=(INDUCED,)
        )
        restored = [c for c in fixed if c.name == RESTORED]
        with_nulls = dataclasses.replace(
            conditions, conditions=(*restored, *nulls), kl=False, left_out=(RESTORED,)
        )
        to_do = [
            ("score-held-out", conditions, "Scoring held-out questions"),
            ("score-controls", with_controls, "Scoring controls"),
        ]
        if nulls:
            to_do.append(("score-nulls", with_nulls, "Scoring random directions"))
        return [
            part
            for stage, scoring, doing in to_do
            for part in score_in_chunks(run, self.workspace, stage, q, scoring, doing)
        ]

    def _score_pairs(
        self, questions: list[AnswerPair], conditions: list[Condition], split: str, kl: bool = True
    ) -> pd.DataFrame:
        return score_pairs(
            self.pair,
            questions,
            conditions,
            kl=kl,
            token_budget=self.budget,
            description=f"Scoring {split.replace('_', ' ')} questions",
        ).assign(stage="score", split=split)

    def good_twin(self) -> ModelPair:
        """The aligned model with the good twin. Raises: DataError where none is named."""
        if not (named := self.config.good_twin):
            raise DataError("there is no good twin in this run")
        return self._load_fine_tune(named)

    def _load_fine_tune(self, name: str) -> ModelPair:
        """Another fine-tune of the aligned model, beside it."""
        pair = load_pair(
            self.config.aligned,
            name,
            placement=self.config.placement,
            chat_template=self.config.chat_template,
            template_arguments=self.config.template_arguments,
            allow_mismatch=self.config.allow_mismatch,
            proof=self.config.proof,
            beside=self.pair,
        )
        if self.config.vllm is not None:
            pair.sampler = vllm_sampler(pair, self.config.vllm)
        return pair

    def _good_twin(self, twin: ModelPair) -> pd.DataFrame:
        """The same readings of the same fine-tune on the good answers."""
        condition = [Condition(GOOD_TWIN, "finetuned")]
        options: dict[str, Any] = {"token_budget": self.budget}
        parts = [
            score_pairs(
                twin, questions, condition, kl=False, description="Scoring the good twin", **options
            ).assign(split=split)
            for questions, split in (
                (self.questions.held_out, "held_out"),
                (self.questions.trained_on, "trained_on"),
            )
            if questions
        ]
        parts.append(
            score_neutral(twin, self.questions.neutral_score, condition, **options).assign(
                split="neutral"
            )
        )
        return pd.concat(parts, ignore_index=True).assign(stage="score")

    def _draw_seed(self, draw: int) -> int:
        return 1_000_003 * (self.config.seed + 1) + draw
