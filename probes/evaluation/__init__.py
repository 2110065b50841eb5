"""Honest numbers for probes: held-out questions, intervals, controls, comparisons, baselines."""

from probes.evaluation.baselines import text_baselines
from probes.evaluation.comparison import Comparison, compare
from probes.evaluation.held_out import Evaluation, evaluate
from probes.evaluation.splits import Scheme, grouped_folds

__all__ = [
    "Comparison",
    "Evaluation",
    "Scheme",
    "compare",
    "evaluate",
    "grouped_folds",
    "text_baselines",
]
