"""Reading with a direction: whether the persona can be read, and whether the reading is real.

Estimators for scikit-learn, one-line fitting, held-out evaluation and comparison, monitoring while
a model writes, screening of data. More stands in the rooms: `probes.monitor`, `probes.evaluation`,
`probes.sweep`, `probes.nulls`, `probes.separation`.
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
)
from probes.evaluation import compare, evaluate
from probes.fitting import FittedProbe, fit
from probes.monitor import monitoring
from probes.probe_file import load_probe, save_probe
from probes.screening import screen

__all__ = [
    "AttentionPoolProbe",
    "DifferenceOfMeansProbe",
    "FittedProbe",
    "GradedProbe",
    "LdaProbe",
    "LogisticProbe",
    "MultiLayerProbe",
    "PooledProbe",
    "RidgeProbe",
    "compare",
    "evaluate",
    "fit",
    "load_probe",
    "monitoring",
    "save_probe",
    "screen",
]
