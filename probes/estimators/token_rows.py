"""Texts as bags of tokens: one array [tokens d_model] a text, in an object array.

scikit-learn's splitters, `cross_validate` and `clone` index the object array like any other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.estimators.validation import RowsError

TokenRows = NDArray[np.object_]
"""[text] of arrays [tokens d_model]; texts differ in their number of tokens."""


def token_rows(tokens: Any, mask: Any = None) -> TokenRows:
    """Makes TokenRows of a list of arrays [tokens d_model], or of a padded array and its mask.

    tokens: arrays or tensors, one a text; with `mask`, one of them [text pos d_model].
    mask: [text pos], true where a token stands.
    Raises: RowsError as `require_token_rows`, or for a mask of another shape.
    """
    if mask is not None:
        padded, kept = np.asarray(tokens), np.asarray(mask).astype(bool)
        if padded.ndim != 3 or padded.shape[:2] != kept.shape:
            raise RowsError(
                "padded tokens must be [text pos d_model] with a mask [text pos]; got "
                f"{list(padded.shape)} and {list(kept.shape)}"
            )
        tokens = [row[keep] for row, keep in zip(padded, kept, strict=True)]
    rows = np.empty(len(tokens), dtype=object)
    for place, row in enumerate(tokens):
        rows[place] = np.asarray(row)
    return require_token_rows(rows)


def require_token_rows(X: Any, d_model: int | None = None) -> TokenRows:
    """X as it is where it is TokenRows of one width, [text pos d_model] taken apart.

    Raises: RowsError for no texts, a text without tokens, arrays that are not [tokens d_model] of
    the same width (that of `d_model` where given), or NaN or infinity.
    """
    rows = X if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1 else None
    if rows is None:
        if not hasattr(X, "__len__"):
            raise RowsError(f"token rows are one array [tokens d_model] a text; got {type(X)}")
        rows = np.empty(len(X), dtype=object)
        rows[:] = [np.asarray(row) for row in X]
    if len(rows) == 0:
        raise RowsError("there are no texts: token rows need one array [tokens d_model] each")
    for place, row in enumerate(rows):
        if getattr(row, "ndim", 0) != 2 or row.shape[0] == 0 or row.dtype.kind not in "fiu":
            raise RowsError(
                f"text {place} must be numbers [tokens d_model] with at least one token; got "
                f"shape {list(getattr(row, 'shape', ()))}"
            )
        wanted = d_model or rows[0].shape[1]
        if row.shape[1] != wanted:
            raise RowsError(f"text {place} has d_model={row.shape[1]}; {wanted} was expected")
        if not np.isfinite(row).all():
            raise RowsError(
                f"text {place} holds NaN or infinity; read it again with --dtype float32, or "
                "leave it out"
            )
    return rows
