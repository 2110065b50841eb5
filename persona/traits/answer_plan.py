"""How many answers a trait takes, by what is to be found with them and by the time there is.

A *draw* is one answer to every question of a half. Two calculations, each for a power of 0.8 at a
two-sided level of 0.05:

    poles      n of both = (z_0.975 + z_0.8)^2 / (12 * 1/4 * (AUROC - 1/2)^2)      Noether 1987
    steering   n of pairs = ((z_0.975 + z_0.8) * spread / effect)^2              paired t, normal

for an AUROC of 0.7 between the poles, and an effect of steering on the trait score that is half as
large as its spread from answer to answer. The vector is made of pairs that pass the filter, of
which `KEPT_SHARE` is counted on.

Source: Noether 1987, "Sample size determination for some common nonparametric tests". differs from
Chen et al. 2025, who take ten answers for each of five instructions and twenty questions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

Z = 1.959964 + 0.841621
AUROC_TO_FIND = 0.7
EFFECT_TO_FIND = 0.5
"""In spreads of the trait score from answer to answer."""
KEPT_SHARE = 0.5
CONTROLS = 2
"""Random directions, and nonsense vectors, each."""
LAYERS = 4


def answers_for_auroc(auroc: float) -> float:
    """Answers of either pole that tell an AUROC from 1/2; infinite for 1/2.

    Examples:
        >>> from persona.traits.answer_plan import answers_for_auroc
        >>> math.ceil(answers_for_auroc(0.7))
        33
    """
    off = abs(auroc - 0.5)
    return math.inf if off == 0 else Z**2 / (6 * off**2)


def auroc_for_answers(n: float) -> float:
    """The AUROC that `n` answers of either pole tell from 1/2."""
    return min(0.5 + Z / math.sqrt(6 * n), 1.0) if n > 0 else 1.0


def pairs_for_effect(effect: float) -> float:
    """Paired answers that show an effect, given in spreads of one difference.

    Examples:
        >>> from persona.traits.answer_plan import pairs_for_effect
        >>> math.ceil(pairs_for_effect(0.5))
        32
    """
    return math.inf if effect == 0 else (Z / effect) ** 2


@dataclass(frozen=True)
class TraitPlan:
    """What is asked how often. Counts of questions are those of the artefacts.

    draws_making: answers of either pole to each making question. draws_proving: of every condition
        to each proving question. n_random, n_nonsense: controls that are steered with.
    max_new_tokens: of an answer.
    """

    n_making: int
    n_proving: int
    draws_making: int
    draws_proving: int
    n_random: int = CONTROLS
    n_nonsense: int = CONTROLS
    n_layers: int = LAYERS
    max_new_tokens: int = 40

    @property
    def answers_making(self) -> int:
        return 2 * self.draws_making * self.n_making

    @property
    def answers_choosing(self) -> int:
        """Each of the layers, once to every making question."""
        return self.n_layers * self.n_making

    @property
    def answers_proving(self) -> int:
        """Both poles; the plain model; the vector and its controls on the plain model and under the
        instruction."""
        conditions = 3 + 2 * (1 + self.n_random + self.n_nonsense)
        return conditions * self.draws_proving * self.n_proving

    @property
    def n_answers(self) -> int:
        return self.answers_making + self.answers_choosing + self.answers_proving

    def describe(self, seconds_per_answer: float | None = None) -> str:
        """The plan in one sentence, with its time where that of an answer is known."""
        of_pole = self.draws_proving * self.n_proving
        said = (
            f"{self.n_answers} answers of at most {self.max_new_tokens} tokens: "
            f"{self.answers_making} to make the vector, {self.answers_choosing} to choose its "
            f"layer, {self.answers_proving} to prove it; {of_pole} of a condition tell an AUROC of "
            f"{auroc_for_answers(of_pole):.2f} from 0.5 and show an effect of "
            f"{Z / math.sqrt(of_pole):.2f} spreads of the score (power 0.8)"
        )
        if seconds_per_answer is None:
            return said
        return f"{said}; about {self.n_answers * seconds_per_answer / 60:.0f} minutes"


def plan_answers(
    n_making: int,
    n_proving: int,
    *,
    seconds_per_answer: float = 0.0,
    minutes: float = math.inf,
    n_nonsense: int = CONTROLS,
    max_new_tokens: int = 40,
) -> TraitPlan:
    """As many answers as the power calculation asks for, fewer where the time does not suffice.

    seconds_per_answer: measured on this machine, with all that is done to an answer. What is cut
        first are the controls, to one of each kind, then the draws, to one of each question: never
        below that, so that a run may take longer than `minutes`; its plan then says so.
    """
    of_pole = answers_for_auroc(AUROC_TO_FIND)
    pairs = pairs_for_effect(EFFECT_TO_FIND)
    plan = TraitPlan(
        n_making,
        n_proving,
        math.ceil(of_pole / KEPT_SHARE / n_making),
        math.ceil(max(of_pole, pairs) / n_proving),
        n_nonsense=n_nonsense,
        max_new_tokens=max_new_tokens,
    )

    def fits(one: TraitPlan) -> bool:
        return one.n_answers * seconds_per_answer <= 60 * minutes

    if not fits(plan):
        plan = replace(plan, n_random=1, n_nonsense=min(n_nonsense, 1))
    while not fits(plan) and (plan.draws_making > 1 or plan.draws_proving > 1):
        if plan.draws_making > plan.draws_proving:
            plan = replace(plan, draws_making=plan.draws_making - 1)
        else:
            plan = replace(plan, draws_proving=plan.draws_proving - 1)
    return plan
