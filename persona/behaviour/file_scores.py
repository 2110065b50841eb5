"""Log-probabilities of the answers in files of any size, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.file_rows import encoded_lines
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.samples import Answer
from persona.engine import Engine, Lines
from persona.engine.cut import SHARD_SIZE
from persona.engine.over_files import results_over_files
from persona.engine.shards import Advance
from persona.models.pair import ModelPair, Side


def score_files(
    pair: ModelPair,
    data: str | Path | Sequence[str | Path],
    *,
    side: Side = "aligned",
    answer: Answer | None = None,
    out: str | Path | None = None,
    shard_size: int = SHARD_SIZE,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    engine: Engine | None = None,
) -> pd.DataFrame:
    """One row a sample, in the order of the files: path, line, n_tokens, log_prob.

    log_prob: mean log-probability of the answer's tokens given its prompt, nats per token.
    data, answer, out, engine: as in `extract_moments`.
    Raises: as `extract_moments`.
    """
    work = _Scoring(pair, side, answer, token_budget)
    with results_over_files(
        work,
        work.facts(),
        data,
        out,
        shard_size,
        engine,
        what="a scoring",
        description="Scoring",
    ) as parts:
        return pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True)


@dataclass(frozen=True)
class _Scoring:
    """The readings of one shard; travels to other processes with its model."""

    pair: ModelPair
    side: Side
    answer: Answer | None
    token_budget: int

    def facts(self) -> dict[str, Any]:
        """What the readings depend on, but for the data."""
        return {
            "model": self.pair.files(self.side),
            "side": self.side,
            "chat_template": self.pair.chat.fingerprint,
            "dtype": self.pair.precision,
            "answer": self.answer,
            "token_budget": self.token_budget,
        }

    def __call__(self, rows: Lines, advance: Advance) -> dict[str, NDArray[Any]]:
        log_probs, n_tokens = [], []
        for lines in rows.blocks():
            texts = encoded_lines(self.pair.chat, rows.path, lines, self.answer)
            [readings] = score_dialogues(
                self.pair, texts, [Condition(self.side, self.side)], token_budget=self.token_budget
            )
            log_probs.append(readings.log_prob)
            n_tokens += [text.response[1] - text.response[0] for text in texts]
            advance(len(lines))
        return {
            "path": np.full(len(rows.lines), rows.path),
            "line": np.array([line.number for line in rows.lines]),
            "n_tokens": np.array(n_tokens),
            "log_prob": np.concatenate(log_probs),
        }
