"""Reading samples block by block through the aligned model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from persona.data.types import Dialogue
from persona.models.pair import ModelPair
from probes.screening.chance import RandomDirections
from probes.screening.compared_with import (
    Baseline,
    Encoded,
    read_answers_and_baselines,
    require_room,
)
from probes.screening.monitored import Monitored

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Block:
    """Readings of a few samples.

    values: [sample 3]: projection, raw baseline (what the line is applied to), probe score.
    totals: [2 d_model]: sums of the answers' and of the baselines' mean activations.
    counts: [draw]: samples above the threshold of each random direction.
    """

    values: Array
    totals: Array
    counts: NDArray[np.int64]


@dataclass(frozen=True)
class BlockReader:
    """Reads blocks of samples through the aligned model.

    max_new_tokens: of the model's own answers.
    """

    pair: ModelPair
    monitored: Monitored
    random: RandomDirections
    baseline: Baseline
    max_new_tokens: int
    token_budget: int

    @property
    def d_model(self) -> int:
        return self.pair.d_model

    @property
    def n_draws(self) -> int:
        return len(self.random)

    def encode(self, dialogue: Dialogue) -> Encoded:
        """Raises: DataError for a dialogue that the model cannot read, or answer by itself."""
        chat = self.pair.chat
        tokens = chat.encode(dialogue)
        if self.baseline == "own":
            require_room(chat, tokens, self.max_new_tokens)
        return Encoded(dialogue, tokens)

    def read(self, block: Sequence[Encoded]) -> Block:
        """Raises: DataError for activations that are not finite."""
        monitored = self.monitored
        with self.pair.active("aligned") as bridge:
            answers, raw = read_answers_and_baselines(
                bridge,
                self.pair.chat,
                block,
                monitored.layers,
                self.baseline,
                self.max_new_tokens,
                self.token_budget,
            )
        at_direction, at_probe = answers[:, 0].double().numpy(), answers[:, -1].double().numpy()
        below = raw[:, 0].double().numpy()
        values = np.stack(
            [
                at_direction @ monitored.unit,
                below @ monitored.unit,
                at_probe @ monitored.coef + monitored.intercept,
            ],
            axis=1,
        )
        return Block(
            values,
            np.stack([at_direction.sum(0), below.sum(0)]),
            self.random.count_above(at_direction, below),
        )
