"""The second pass: ranks over all samples, and the rows written again with what was found."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from persona.data.jsonl import Line, stream_lines
from persona.data.samples import Answer, sample_dialogue
from persona.errors import DataError
from persona.progress import progress
from probes.screening.reference import ScoreScale
from probes.screening.stream import KEY, SampleReadings

FLAGS = ("none", "projection", "probe", "both")
MAX_TEXT = 300


def rank_table(readings: SampleReadings, scale: ScoreScale) -> pd.DataFrame:
    """One row a sample, in the order of the file.

    Columns: line; projection and projection_difference (residual-stream units); z (SDs of the
    reference's good answers above their mean); percentile (share of samples below, 0 to 100); rank
    by projection difference and probe_rank by probe score (1 is most toward the trait, equal
    scores in the order of the file); probe_score (log-odds); flag (which of the two readings is
    above its threshold: "none", "projection", "probe", "both").
    """
    projection, raw, probe_score = readings.values.T
    difference = scale.difference(projection, raw)
    flags = (difference > scale.threshold) + 2 * (probe_score > scale.probe_threshold)
    below = np.searchsorted(np.sort(difference), difference, side="left")
    return pd.DataFrame(
        {
            "line": readings.lines,
            "projection": projection,
            "projection_difference": difference,
            "z": (difference - scale.mean) / scale.sd,
            "percentile": 100 * below / len(difference),
            "rank": _ranks(difference),
            "probe_score": probe_score,
            "probe_rank": _ranks(probe_score),
            "flag": np.array(FLAGS)[flags],
        }
    )


def write_rows(data: Path, table: pd.DataFrame, path: Path) -> None:
    """Writes each sample's row as it stands in `data`, with a "screen" object at its end.

    Not a character of a row is changed, so that numbers and escapes stay as they are. The file
    appears whole or not at all; a line is in memory at a time.
    Raises: DataError where `data` has lost a line meanwhile.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    rows = zip(table["line"].to_numpy(), _objects(table), strict=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            lines = stream_lines(data)
            for number, screened in progress(rows, "Writing", total=len(table)):
                file.write(with_screen(_line(lines, int(number), data).text, screened) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def with_screen(row: str, screened: Mapping[str, Any]) -> str:
    """A JSON object's text with one more entry at its end."""
    inside = row.rstrip()[:-1].rstrip()
    comma = "" if inside == "{" else ", "
    return f'{inside}{comma}"{KEY}": {json.dumps(screened, allow_nan=False)}}}'


def top_samples(
    data: Path, table: pd.DataFrame, n: int, answer: Answer | None = None
) -> list[dict[str, Any]]:
    """The n samples of the lowest rank with the last user turn and the answer, both cut short."""
    best = table.nsmallest(n, "rank")
    wanted = set(best["line"].tolist())
    texts: dict[int, tuple[str, str]] = {}
    for line in stream_lines(data):
        if line.number in wanted:
            dialogue = sample_dialogue(line.json_object(), answer=answer)
            texts[line.number] = (
                dialogue.turns[-2].content[:MAX_TEXT],
                dialogue.turns[-1].content[:MAX_TEXT],
            )
            if len(texts) == len(wanted):
                break
    found = []
    for record in best.to_dict("records"):
        asked, answered = texts[record["line"]]
        found.append({**record, "prompt": asked, "answer": answered})
    return found


def _ranks(scores: NDArray[np.float64]) -> NDArray[np.int64]:
    ranks = np.empty(len(scores), dtype=np.int64)
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return ranks


def _objects(table: pd.DataFrame) -> Any:
    """Each row as a dict of plain values, one at a time."""
    columns = [table[name].to_numpy() for name in table]
    for row in zip(*columns, strict=True):
        yield {
            name: value.item() if isinstance(value, np.generic) else value
            for name, value in zip(table, row, strict=True)
        }


def _line(lines: Any, number: int, data: Path) -> Line:
    for line in lines:
        if line.number == number:
            return line
    raise DataError(f"{data} has changed while it was screened: line {number} is gone")
