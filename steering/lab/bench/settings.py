"""How large an experiment is, and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from persona.models.precision import Placement


@dataclass(frozen=True)
class Sizes:
    """Counts that decide how long an experiment takes and how wide its intervals are.

    fine_tune: questions of a fine-tune; None for all of the training split.
    epochs: None for the recipe's own. learning_rate: None for the recipe's own.
    direction: questions that directions are made of. in_domain: kept-back questions scored.
    held_out: questions scored of each domain never trained on. neutral: texts of the damage.
    voiced: questions scored in each voice, of each set that nothing was trained on.
    n_random, random_questions: draws of the null, and questions of each split each is scored on.
    watch_every: optimiser steps between two readings of a fine-tune on its way, each on one
        question of every held-out domain and on `watch_neutral` texts.
    realign: numbers of good answers. bad_shares: of bad answers in the training data.
    samples, student_epochs, generations, tokens: of teachers that write texts for students.
    toy_seeds, toy_epochs: of the toy on digits.
    """

    fine_tune: int | None = None
    epochs: float | None = None
    learning_rate: float | None = None
    direction: int = 24
    in_domain: int = 16
    held_out: int = 8
    voiced: int = 16
    neutral: int = 16
    n_random: int = 20
    random_questions: int = 6
    watch_every: int = 5
    watch_neutral: int = 4
    realign: tuple[int, ...] = (10, 30, 100, 300)
    bad_shares: tuple[float, ...] = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
    samples: int = 96
    student_epochs: float = 3.0
    generations: int = 3
    tokens: int = 50
    toy_seeds: int = 10
    toy_epochs: int = 20


TINY = Sizes(
    fine_tune=6,
    epochs=2,
    learning_rate=1e-2,
    direction=5,
    in_domain=3,
    held_out=1,
    voiced=2,
    neutral=2,
    n_random=2,
    random_questions=2,
    watch_every=1,
    watch_neutral=1,
    realign=(2, 4),
    bad_shares=(0.0, 0.5, 1.0),
    samples=4,
    student_epochs=3.0,
    generations=2,
    tokens=24,
    toy_seeds=2,
    toy_epochs=5,
)


@dataclass(frozen=True)
class LabSettings:
    """Where an experiment keeps its work, and the model it is about.

    out: holds organisms/ and steps/, shared by all experiments, and one folder of results each.
    base: the aligned model. seeds: of the fine-tunes. None for the experiment's own.
    tiny: seconds-long sizes, for trying whether everything runs; what comes out is no result and
        writes no page.
    """

    out: Path
    base: str | None = None
    seeds: tuple[int, ...] | None = None
    placement: Placement = field(default_factory=Placement.of)
    tiny: bool = False

    @property
    def sizes(self) -> Sizes:
        """The counts of this run."""
        return TINY if self.tiny else Sizes()
