"""Screening fine-tuning data: which samples would push a model toward the persona?"""

from probes.screening.compared_with import BASELINES, Baseline
from probes.screening.job import Screening, screen
from probes.screening.several import SeveralScreenings, screen_along
from probes.screening.statistics import smallest_share

__all__ = [
    "BASELINES",
    "Baseline",
    "Screening",
    "SeveralScreenings",
    "screen",
    "screen_along",
    "smallest_share",
]
