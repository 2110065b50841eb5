"""The same reading along a fine-tune: one row per checkpoint and text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persona.errors import DataError
from persona.models.load import load_pair
from persona.models.pair import Side
from probes.monitor.reader import reader_of
from probes.reading import Cache, Text, read_pooled


def score_checkpoints(
    aligned: str | Path,
    checkpoints: Sequence[str | Path],
    texts: Sequence[Text],
    monitored: Any,
    *,
    layer: int | None = None,
    token_set: str = "response",
    cache: Cache = True,
    **options: Any,
) -> pd.DataFrame:
    """Projection and score of the same texts in the aligned model and in each checkpoint, in order.

    checkpoints: adapters on `aligned`, or full models, as `load_pair` takes them. monitored, layer:
        as `score_tokens`. options: passed to `load_pair`.
    Columns: step (0 for the aligned model, then 1, 2, ...), checkpoint (its name), text (its place
    in `texts`), projection, score. The mean score of each step goes into `find_drift`.
    Raises: DataError without checkpoints; SpaceMismatchError for another model than the probe's.
    """
    if not checkpoints:
        raise DataError("there are no checkpoints to read; give their folders in order of training")
    reader = reader_of(monitored, layer)
    parts = []
    for step, name in enumerate(checkpoints, start=1):
        pair = load_pair(aligned, name, **options)
        if reader.space is not None:
            reader.space.require_same(pair.space(min(reader.layer, pair.n_layers - 1)))
        sides: list[tuple[int, Side]] = [(step, "finetuned")]
        if step == 1:
            sides.insert(0, (0, "aligned"))
        for at, side in sides:
            rows = read_pooled(
                pair, texts, [reader.layer], token_set=token_set, side=side, cache=cache
            )
            projection, score = reader.read(rows[:, 0])
            parts.append(
                pd.DataFrame(
                    {
                        "step": at,
                        "checkpoint": pair.names[side],
                        "text": range(len(texts)),
                        "projection": projection.numpy(),
                        "score": score.numpy(),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
