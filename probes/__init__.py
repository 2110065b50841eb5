"""Reading with a direction: whether the persona can be read, and whether the reading is real.

Estimators for scikit-learn, held-out evaluation, one-line fitting, sweeps, and monitoring.
"""

from probes.estimators import (
    AttentionPoolProbe,
    DifferenceOfMeansProbe,
    GradedProbe,
    LdaProbe,
    LogisticProbe,
    MultiLayerProbe,
    PooledProbe,
    RidgeProbe,
    RowsError,
    TokenRows,
    token_rows,
)
from probes.evaluation import Comparison, Evaluation, compare, evaluate, text_baselines
from probes.fitting import FittedProbe, fit
from probes.monitor import (
    Drift,
    Recording,
    TokenHeatMap,
    find_drift,
    monitoring,
    score_checkpoints,
    score_tokens,
    threshold_for,
    token_heat_map,
    turn_scores,
)
from probes.nulls import null_table
from probes.probe_file import load_probe, save_probe
from probes.screening import Screening, screen
from probes.separation import Separation, separation
from probes.sweep import sweep_figure, sweep_layers, sweep_table

__all__ = [
    "AttentionPoolProbe",
    "Comparison",
    "DifferenceOfMeansProbe",
    "Drift",
    "Evaluation",
    "FittedProbe",
    "GradedProbe",
    "LdaProbe",
    "LogisticProbe",
    "MultiLayerProbe",
    "PooledProbe",
    "Recording",
    "RidgeProbe",
    "RowsError",
    "Screening",
    "Separation",
    "TokenHeatMap",
    "TokenRows",
    "compare",
    "evaluate",
    "find_drift",
    "fit",
    "load_probe",
    "monitoring",
    "null_table",
    "save_probe",
    "score_checkpoints",
    "score_tokens",
    "screen",
    "separation",
    "sweep_figure",
    "sweep_layers",
    "sweep_table",
    "text_baselines",
    "threshold_for",
    "token_heat_map",
    "token_rows",
    "turn_scores",
]
