"""Activations of both models on disk: one pass over the text, float16, read back in any order.

Row order: all tokens of the aligned model, then the same tokens of the fine-tuned one. 300,000
rows of d_model 576 are 350 MB a layer, and memory holds only what is being read.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.activations.passes import Read, Reduce, passes, require_layers
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.models.pair import SIDES, ModelPair, Side
from persona.sae.texts import Text

logger = logging.getLogger("persona")

MAX_NORM_RATIO = 10.0
FLUSH_EVERY = 25
_CHUNK_ROWS = 8192


@dataclass(frozen=True)
class ActivationBuffer:
    """Residuals [row d_model], float16, of both models at one block output.

    kept: rows to train on. Left out are those whose norm is above ten times the median (massive
        activations on single tokens, which would take up latents of their own).
    centre: mean of the kept rows [d_model], float32. spread: mean distance from it.
    """

    path: Path
    n_rows: int
    d_model: int
    kept: NDArray[np.int64]
    centre: Tensor
    spread: float

    def rows(self) -> NDArray[np.float16]:
        """The rows, mapped from disk."""
        return np.memmap(self.path, np.float16, "r", shape=(self.n_rows, self.d_model))


def collect_buffers(
    pair: ModelPair,
    texts: Sequence[Text],
    layers: Sequence[int],
    folder: Path,
    *,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[int, ActivationBuffer]:
    """layer -> the residuals of every token to read, in both models; one pass for all layers.

    A pass that was stopped goes on where it was, given the same folder and texts.
    Raises: DataError without texts or for activations that are not finite; OSError where the disk
    has no room, before anything is read.
    """
    if not texts:
        raise DataError("there is no text to read activations from")
    n_tokens = sum(text.n_tokens for text in texts)
    shape = (2 * n_tokens, pair.d_model)
    files = {layer: folder / f"activations-{layer}.f16" for layer in layers}
    mark = folder / "collected.json"
    done = _done(mark, files.values(), shape)
    for path in files.values():
        _reserve(path, 2 * shape[0] * shape[1])
    maps = {layer: np.memmap(path, np.float16, "r+", shape=shape) for layer, path in files.items()}
    starts = np.concatenate([[0], np.cumsum([text.n_tokens for text in texts])])
    dialogues, places = [text.tokens for text in texts], [range(*text.span) for text in texts]
    for place, side in enumerate(SIDES):
        with pair.active(side) as model:
            require_layers(model, layers)
            read = passes(
                model,
                dialogues,
                layers,
                places,
                _halved,
                first=done[side],
                token_budget=token_budget,
                description=f"Reading activations ({side})",
            )
            n_read = done[side]
            for one in read:
                n_read += 1
                for layer, parts in zip(layers, one.kept, strict=True):
                    for i, part in zip(one.batch.indices, parts, strict=True):
                        start = place * n_tokens + starts[i]
                        maps[layer][start : start + len(part)] = part.numpy()
                if n_read % FLUSH_EVERY == 0:
                    _flush(maps.values(), done | {side: n_read}, mark)
            done[side] = n_read
            _flush(maps.values(), done, mark)
    return {layer: _summary(path, shape) for layer, path in files.items()}


def _halved(read: Read) -> Reduce:
    """The tokens of each text; beyond float16 a value becomes infinite, and its row is left out as
    an outlier."""
    return lambda resid_BPD: read.tokens(resid_BPD).half().cpu().split(read.counts)


def _flush(maps: Iterable[np.memmap[Any, Any]], done: dict[Side, int], mark: Path) -> None:
    """What was read is on disk before it is said to be."""
    for rows in maps:
        rows.flush()
    atomic_write_text(mark, json.dumps(done))


def _done(mark: Path, files: Iterable[Path], shape: tuple[int, int]) -> dict[Side, int]:
    """side -> batches that an earlier run has read; none, said, where its files are damaged.

    A missing or shorter file, or one of zeros where a model has been read to the end, would be
    trained on as if it were activations.
    """
    none = dict.fromkeys(SIDES, 0)
    if not mark.exists():
        return none
    try:
        done = {side: int(json.loads(mark.read_text(encoding="utf-8"))[side]) for side in SIDES}
        if min(done.values()) < 0:
            raise ValueError("a number below 0")
        for path in files:
            if path.stat().st_size != 2 * shape[0] * shape[1]:
                raise ValueError(f"{path.name} has another size")
            if done[SIDES[1]] and _has_an_empty_row(path, shape):
                raise ValueError(f"{path.name} has rows of zeros")
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        logger.warning("what lies in %s is damaged (%s): read anew", mark.parent, error)
        return none
    return done


def _has_an_empty_row(path: Path, shape: tuple[int, int]) -> bool:
    """Whether a row of the first model's half, which is read to the end, is all zero."""
    rows = np.memmap(path, np.float16, "r", shape=shape)
    half = shape[0] // 2
    return any(
        not rows[at : min(at + _CHUNK_ROWS, half)].any(axis=1).all()
        for at in range(0, half, _CHUNK_ROWS)
    )


def _reserve(path: Path, n_bytes: int) -> None:
    """Take the room on disk now: a full disk under a memory map kills the process later."""
    if path.exists() and path.stat().st_size == n_bytes:
        return
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, n_bytes)
        else:
            file.truncate(n_bytes)


def _summary(path: Path, shape: tuple[int, int]) -> ActivationBuffer:
    rows = np.memmap(path, np.float16, "r", shape=shape)
    chunks = [slice(at, at + _CHUNK_ROWS) for at in range(0, shape[0], _CHUNK_ROWS)]
    norms = np.concatenate([np.linalg.norm(rows[c].astype(np.float32), axis=1) for c in chunks])
    finite = np.isfinite(norms)
    if not finite.any():
        raise DataError(f"no activation in {path.name} fits into float16")
    inside = finite & (norms <= MAX_NORM_RATIO * np.median(norms[finite]))
    kept = np.flatnonzero(inside)
    total = sum(rows[c][inside[c]].astype(np.float64).sum(0) for c in chunks)
    centre = (total / len(kept)).astype(np.float32)
    distance = sum(
        float(np.linalg.norm(rows[c][inside[c]].astype(np.float32) - centre, axis=1).sum())
        for c in chunks
    )
    return ActivationBuffer(
        path, shape[0], shape[1], kept, torch.from_numpy(centre), distance / len(kept)
    )
