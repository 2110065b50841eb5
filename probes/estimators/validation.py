"""What a probe takes: rows without NaN, labels of two classes; each refusal is one clear line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from persona.errors import DataError


class RowsError(DataError, ValueError):
    """Rows or labels that a probe cannot take; a ValueError too, as scikit-learn's tools expect."""


@contextlib.contextmanager
def as_rows_error() -> Iterator[None]:
    """What scikit-learn says to wrong input comes out as a RowsError with the same words."""
    try:
        yield
    except RowsError:
        raise
    except ValueError as error:
        raise RowsError(str(error)) from error


def require_finite(rows: NDArray[Any], first_axis: str = "row") -> None:
    """Raises: RowsError naming the first entry along axis 0 that holds NaN or infinity."""
    finite = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not finite.all():
        place = int(np.flatnonzero(~finite)[0])
        raise RowsError(
            f"{first_axis} {place} holds NaN or infinity ({int((~finite).sum())} of {len(rows)} "
            "do); read those activations again with --dtype float32, or leave them out"
        )


def two_classes(labels: Any, n_rows: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """The two class names in sorted order, and whether each row is of the second, the trait.

    Raises: RowsError for one label a row too few or too many, or not exactly two classes.
    """
    with as_rows_error():
        labels = column_or_1d(labels, warn=True)
        check_classification_targets(labels)
        kind = type_of_target(labels)
    if len(labels) != n_rows:
        raise RowsError(f"each row needs one label; got {len(labels)} labels for {n_rows} rows")
    classes, places = np.unique(labels, return_inverse=True)
    if len(classes) > 2:
        raise RowsError(
            f"Only binary classification is supported. The type of the target is {kind} with "
            f"{len(classes)} classes; give 1 to rows with the trait and 0 to the others"
        )
    if len(classes) < 2:
        raise RowsError(
            f"a probe needs rows with and without the trait; all {n_rows} labels are of one class, "
            f"{classes[0]!r}"
        )
    return classes, places == 1
