"""What a person sets in the panel, and what is read at that setting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from steering.demo.session.vector import Mode, Setting


@dataclass(frozen=True)
class Choice:
    """Everything a person sets.

    direction: its name. layer: the block that is read, and steered unless `every_block`, which
    steers at all blocks of the direction. mode, coefficient: as `Setting`; 0 changes nothing.
    question, answer: the text; without an answer it ends where one would begin.
    bad_answer: with it, `answer` is the good one, and the gap between the two is read.
    """

    question: str
    direction: str
    layer: int
    answer: str = ""
    mode: Mode = "add"
    coefficient: float = 0.0
    every_block: bool = False
    bad_answer: str = ""

    @property
    def setting(self) -> Setting:
        layers = None if self.every_block else (self.layer, self.layer)
        return Setting(self.coefficient, self.mode, layers)


@dataclass(frozen=True)
class Explored:
    """The readings of a choice. A condition is a side, or a side and "_steered".

    projections: columns condition, position, token, value: x . direction of the residual at the
        token itself, after the edits of that block; signed, residual-stream units.
    levels: where the models' means lie on the direction at this block, empty where not known.
    next_tokens: side -> columns token, before, after: log p (nats) of the first answer token
        without and with steering, of the tokens whose probability changes most either way.
    answers: columns condition (a side), before, after, shift: mean log p per token of the answer,
        nats per token; no row without an answer. bad_answers, gaps: the same of the bad answer,
        and of log p(bad answer) - log p(answer); no row unless there are both.
    response: [start, end) of the answer among the tokens.
    """

    choice: Choice
    projections: pd.DataFrame
    levels: Mapping[str, float]
    next_tokens: Mapping[str, pd.DataFrame]
    answers: pd.DataFrame
    bad_answers: pd.DataFrame
    response: tuple[int, int]

    @property
    def gaps(self) -> pd.DataFrame:
        good = self.answers.set_index("condition")
        gaps = (
            self.bad_answers.set_index("condition") - good.loc[list(self.bad_answers["condition"])]
        )
        return gaps.reset_index()
