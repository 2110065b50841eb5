"""Probes as scikit-learn estimators: over pooled rows, over single tokens, over several layers."""

from probes.estimators.attention import AttentionPoolProbe
from probes.estimators.graded import GradedProbe
from probes.estimators.linear import (
    DifferenceOfMeansProbe,
    LdaProbe,
    LinearProbe,
    LogisticProbe,
    RidgeProbe,
)
from probes.estimators.multi_layer import MultiLayerProbe
from probes.estimators.pooled import PooledProbe
from probes.estimators.token_rows import TokenRows, token_rows
from probes.estimators.validation import RowsError

__all__ = [
    "AttentionPoolProbe",
    "DifferenceOfMeansProbe",
    "GradedProbe",
    "LdaProbe",
    "LinearProbe",
    "LogisticProbe",
    "MultiLayerProbe",
    "PooledProbe",
    "RidgeProbe",
    "RowsError",
    "TokenRows",
    "token_rows",
]
