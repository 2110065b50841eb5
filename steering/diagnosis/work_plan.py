"""What a diagnosis will take: the work of each stage, the memory, and a first guess of the time.

Counts come from the constants that the stages themselves read and from the questions of the run; a
test holds them to the passes that a run makes. What they cost in seconds is first guessed, from the
last run on this machine where there was one, and corrected while the run goes on: see
`steering.diagnosis.run_stages`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from persona.behaviour.sampling_plan import SamplingPlan
from persona.behaviour.scoring import UNEDITED
from persona.data import Skill, load_tasks
from steering.diagnosis.conditions import (
    DOSE_DRAWS,
    DOSE_QUESTIONS,
    DOSES,
    INDUCED_DRAWS,
    INDUCTIONS,
    KINDS,
    QUICK_RUN_DRAWS,
    RUN_DRAWS,
)
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.pipeline import plans_of
from steering.diagnosis.questions import Questions
from steering.diagnosis.run_stages import ANSWER, ATTRIBUTE, CONTROLS, LOAD, READ, SCORE, VERIFY
from steering.evidence.answers import Plans
from steering.evidence.scorecard import LABELS_SWAPPED
from steering.identification.identify import ATTRIBUTION_QUESTIONS, COVARIANCE_QUESTIONS
from steering.identification.search import (
    COEFFICIENTS,
    N_BLOCKS_VERIFIED,
    N_CANDIDATES_VERIFIED,
    N_LEADERS,
    RANGE_RANK,
    block_ranges,
    few_blocks,
)
from steering.identification.skill_candidates import (
    N_DIFFERENTIATED,
    N_LESSONS,
    SKILL_CANDIDATES,
)
from steering.identification.trials import N_PROMISING

N_REFITS = 2
"""Candidates that are fitted anew for each range of blocks and rank."""
MAY_BE_BEST = 0.5
"""Of the trials that do not promise most, the share that runs in the aligned model too; a guess."""
FRONT_GUESS = 3
"""Removals that are scored beside the chosen one, where a skill is to be kept; a guess."""
N_PLACEBOS = 3
"""Placebos that need no other fine-tune."""
OF_A_SHARED_PROMPT = 0.8
"""What a text costs in the blocks where two answers share a row and its prompt, as in scoring."""
OF_A_READING, OF_A_REFIT = 0.05, 1.2
"""What reading activations, or fitting block by block, adds to a pass. The first is of two demos on
two cores, in float32 and in bfloat16 (0.42 and 0.58 of the pace of the other stages, had it cost
2.1 passes); the others were measured on a model of the default's widths with 10 of its 30 blocks,
in bfloat16 on one core."""
OF_A_BACKWARD_PASS = 1.4
"""What it adds to a forward pass: the gradient of every activation and of no weight."""


@dataclass(frozen=True)
class Work:
    """What a stage does, in units that cost alike whatever the text.

    passes: forward passes of one text; one that begins above the first block counts as a part.
    blocks: what passes cost in the blocks, backward passes included. heads: texts whose answers are
        scored over the whole vocabulary.
    answers: written, and tokens: of them at most.
    decompositions: of matrices [d_model d_model].
    """

    passes: float = 0.0
    blocks: float = 0.0
    heads: float = 0.0
    answers: int = 0
    tokens: int = 0
    decompositions: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            *(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True))
        )


def reading(n_texts: float, more: float = OF_A_READING) -> Work:
    """Texts read for their activations; more: what that takes beside the pass, in passes."""
    return Work(n_texts, n_texts * (1 + more))


def scoring(n_texts: float, n_whole: float, n_edited: float = 0.0, share: float = 1.0) -> Work:
    """Texts scored under so many conditions; those that are edited run a share of the blocks."""
    passes = n_texts * (n_whole + n_edited * share)
    return Work(passes, OF_A_SHARED_PROMPT * passes, n_texts * (n_whole + n_edited))


def differentiating(n_texts: float) -> Work:
    """Texts whose gap is differentiated by every activation."""
    return Work(n_texts, n_texts * (1 + OF_A_BACKWARD_PASS), n_texts * 2)


def writing(*plans: SamplingPlan) -> Work:
    """Answers of one condition."""
    return Work(
        answers=sum(plan.n_answers for plan in plans),
        tokens=sum(plan.n_answers * plan.max_new_tokens for plan in plans),
    )


@dataclass(frozen=True)
class Sizes:
    """What the work depends on.

    n_skill_texts: answers that are scored of a skill, n_choosing_texts: that choose.
    n_lessons: answers that directions are made of. n_handed_in: candidates of an autoencoder.
    """

    config: DiagnoseConfig
    questions: Questions
    n_layers: int
    plans: Plans | None
    n_skill_texts: int = 0
    n_choosing_texts: int = 0
    n_lessons: int = 0
    n_handed_in: int = 0

    @classmethod
    def of(
        cls,
        config: DiagnoseConfig,
        questions: Questions,
        n_layers: int,
        skill: Skill | None = None,
    ) -> Sizes:
        plans = plans_of(config, None, questions) if config.samples else None
        handed_in = int(config.sae is not None)
        if skill is None:
            return cls(config, questions, n_layers, plans, n_handed_in=handed_in)
        parts = skill.divided()
        scored, choosing = (
            sum(len(asked) * (1 + len(item.wrong)) for item, asked in of_one)
            for of_one in (
                [(item, (*item.train, *item.held_out)) for item in parts.scores.items],
                [(item, item.held_out) for item in parts.chooses.items],
            )
        )
        n_lessons = min(N_LESSONS, len(parts.lessons.items))
        return cls(config, questions, n_layers, plans, scored, choosing, n_lessons, handed_in)

    @property
    def keeps(self) -> bool:
        """Whether a skill is to be kept."""
        return self.n_choosing_texts > 0

    def above(self, layers: Sequence[int]) -> float:
        """Share of the blocks that run anew where the first of these is the lowest edited one."""
        return 1 - layers[0] / self.n_layers


def work_of(sizes: Sizes) -> dict[str, Work]:
    """Stage -> its work, in order."""
    work = {
        LOAD: Work(),
        READ: _read(sizes),
        ATTRIBUTE: _attribute(sizes),
        VERIFY: _verify(sizes),
        CONTROLS: _controls(sizes),
        SCORE: _score(sizes),
    }
    if sizes.plans is not None:
        work[ANSWER] = _answer(sizes, sizes.plans)
    return work


def _read(sizes: Sizes) -> Work:
    """Both answers in both models, for the cells and for the covariance."""
    train = len(sizes.questions.train)
    covariance = min(COVARIANCE_QUESTIONS, train)
    twin = sizes.keeps * train * (sizes.config.good_twin is not None)
    return reading(4 * train) + reading(4 * covariance) + reading(2 * sizes.n_lessons + twin)


def _attribute(sizes: Sizes) -> Work:
    """Both halves, and the screen on the selection questions."""
    train = len(sizes.questions.train)
    n = min(ATTRIBUTION_QUESTIONS, train) + len(sizes.questions.selection)
    n += sizes.n_handed_in * train + sizes.keeps * min(N_DIFFERENTIATED, sizes.n_lessons)
    return differentiating(2 * n) + Work(decompositions=2 * sizes.n_layers)


def _verify(sizes: Sizes) -> Work:
    """The baseline; every round of trials; the refits that they take; the halves."""
    selection, neutral = len(sizes.questions.selection), len(sizes.questions.neutral_selection)
    train = len(sizes.questions.train)
    middle, *others = block_ranges(sizes.n_layers)
    of_skill = sizes.keeps * len(SKILL_CANDIDATES)
    handed_in = sizes.n_handed_in + len(sizes.config.traits)
    if sizes.keeps:
        others = [*others, *few_blocks(sizes.n_layers)]
    rounds = [
        [*[middle] * (N_CANDIDATES_VERIFIED + N_REFITS + handed_in + of_skill)]
        + [(sizes.n_layers // 2,)] * N_BLOCKS_VERIFIED,
        others * N_LEADERS,
        [middle] * (RANGE_RANK - 1 + len(COEFFICIENTS)),
    ]
    work = scoring(2 * selection, 2)
    for trials in rounds:
        n, share = len(trials), sum(sizes.above(layers) for layers in trials) / len(trials)
        n_promising = min(n, N_PROMISING)
        n_in_aligned = n_promising + (n - n_promising) * MAY_BE_BEST
        work += scoring(2 * selection, len(UNEDITED), n + n_in_aligned, share)
        work += scoring(neutral, len(UNEDITED), n_in_aligned, share)
        work += scoring(sizes.n_choosing_texts, len(UNEDITED), n, share)
    n_refits = N_REFITS + len(others) * N_LEADERS + 1 + 1  # other ranges, another rank, the halves
    work += reading(n_refits * train, OF_A_REFIT)
    return work + Work(decompositions=4 * sizes.n_layers)


def _controls(sizes: Sizes) -> Work:
    """The good twin, placebos, the moments of what is scored, dose, strength of the induction."""
    q, (middle, *_) = sizes.questions, block_ranges(sizes.n_layers)
    above, neutral = sizes.above(middle), len(q.neutral_selection)
    work = reading(2 * neutral, OF_A_REFIT) + differentiating(2 * len(q.held_out))
    dosed = len(DOSES) * (1 + DOSE_DRAWS)
    work += scoring(2 * min(DOSE_QUESTIONS, len(q.selection)), 1, dosed, above)
    work += scoring(neutral, len(UNEDITED), len(INDUCTIONS), above)
    if sizes.config.other_finetune is not None:
        work += reading(2 * len(q.train), OF_A_REFIT)
    if sizes.config.good_twin is not None:
        scored = 2 * len(q.held_out) + 2 * len(q.trained_on) + len(q.neutral_score)
        work += reading(2 * len(q.train), OF_A_REFIT) + scoring(scored, 1)
        work += scoring(len(q.neutral_score), 1)  # the aligned model, for the KL
        work += scoring(sizes.n_skill_texts, 1)
        if sizes.plans is not None:
            answered = [sizes.plans.read, *[sizes.plans.rate] * sizes.plans.with_controls]
            work += writing(*answered)
    return work


def _score(sizes: Sizes) -> Work:
    """Every condition on held-out questions; a few on those trained on and on neutral text."""
    config, q = sizes.config, sizes.questions
    quick = config.questions_per_domain is not None
    above = sizes.above(block_ranges(sizes.n_layers)[0])
    twin = config.good_twin is not None
    n_fixed = 4  # no-op, induced, zero-ablated, restored
    strong = len(KINDS) * (QUICK_RUN_DRAWS if quick else RUN_DRAWS) + 1
    n_placebos = N_PLACEBOS + twin + (config.other_finetune is not None)
    controls = 1 + INDUCED_DRAWS + twin + 2 * n_placebos + strong + 2 * sizes.keeps * FRONT_GUESS
    draws = 2 * len(LABELS_SWAPPED) * config.label_draws
    draws += 0 if quick else 1 + 2 * config.n_random
    work = scoring(2 * len(q.held_out), len(UNEDITED), n_fixed + controls + draws, above)
    n_else = n_fixed + (not quick)
    work += scoring(2 * len(q.trained_on) + len(q.neutral_score), len(UNEDITED), n_else, above)
    edits = 2 + FRONT_GUESS  # restored, zero-ablated
    work += scoring(sizes.n_skill_texts, len(UNEDITED), edits, above)
    if swaps := config.label_draws:  # refits of the chosen candidate, and screens of all others
        train = len(q.train)
        work += reading(swaps * train, OF_A_REFIT)
        screened = min(ATTRIBUTION_QUESTIONS, train) + len(q.selection)
        work += differentiating(2 * swaps * screened)
        work += Work(decompositions=swaps * sizes.n_layers)
    if config.scores_tasks:
        n_choices = sum(len(item.choices) for item in load_tasks())
        work += scoring(n_choices, len(UNEDITED), 2, above)  # restored, zero-ablated
    return work + Work(decompositions=5 * len(block_ranges(sizes.n_layers)[0]))


def _answer(sizes: Sizes, plans: Plans) -> Work:
    """Each condition's answers, and what the judge makes of those that are counted."""
    n_conditions = 3 + plans.with_controls
    n_counted = n_conditions if plans.with_controls else 1
    work = Work()
    for condition in range(n_conditions):
        work += writing(plans.read, *[plans.rate] * (condition < n_counted))
    if sizes.config.judge != "none":
        n_judged = n_counted + plans.with_controls * (sizes.config.good_twin is not None)
        work += scoring(n_judged * plans.rate.n_answers, 1)
    return work
