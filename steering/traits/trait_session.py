"""Answers and scores of one run on a trait: asked once, kept, and asked again only if lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from persona.directions.direction import Direction
from persona.models.pair import ModelPair
from persona.stages import Stages
from persona.traits.artefacts import TraitArtefacts
from persona.traits.asking import Half, Pole, answer_rows, as_column, asked, judged_items
from persona.traits.trait_judge import TraitJudge
from steering.edits.from_directions import add
from steering.edits.steer import steered_by

TIMED = "seconds"


@dataclass(frozen=True)
class TraitSession:
    """Model, texts, judge and the folder of finished stages.

    pair: its aligned side answers. max_new_tokens: of an answer, at temperature 1.
    """

    pair: ModelPair
    artefacts: TraitArtefacts
    judge: TraitJudge
    stages: Stages
    max_new_tokens: int
    batch_size: int
    seed: int

    def answers(
        self,
        half: Half,
        pole: Pole,
        draws: Sequence[int],
        condition: str,
        direction: Direction | None = None,
        coefficient: float = 0.0,
    ) -> pd.DataFrame:
        """Answers of one condition: columns of `asked`, condition, answer, seconds.

        direction, coefficient: what is added while it answers, at every token but the first.
        Draw d has the same random numbers under every condition. Each draw is a stage of its own.
        """

        def make(draw: int) -> pd.DataFrame:
            began = time.perf_counter()
            edits = [] if direction is None else list(add(direction, coefficient))
            rows = answer_rows(
                self.pair,
                asked(self.artefacts, half, pole, [draw]),
                condition=condition,
                intervene=steered_by(edits) if edits else None,
                max_new_tokens=self.max_new_tokens,
                batch_size=self.batch_size,
                seed=self.seed + 7919 * draw,
            )
            return rows.assign(seconds=time.perf_counter() - began)

        def kept(draw: int) -> pd.DataFrame:
            name = f"answers-{half}-{condition}-{draw}".replace(" ", "_")
            return self.stages.table(name, lambda: make(draw))

        return pd.concat([kept(draw) for draw in draws], ignore_index=True)

    def scored(self, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with the column trait, NaN without a score."""
        return rows.assign(trait=as_column(self.judge.trait(judged_items(rows))))

    def coherent(self, name: str, rows: pd.DataFrame) -> pd.DataFrame:
        """The rows with the column coherence, kept as a stage of this name."""

        def make() -> pd.DataFrame:
            scores = self.judge.coherence(judged_items(rows))
            return pd.DataFrame({"coherence": as_column(scores)})

        found = self.stages.table(name, make)["coherence"]
        return rows.assign(coherence=found.to_numpy())
