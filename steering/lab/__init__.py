"""Experiments on emergent misalignment: each a plain function over a workbench, one page each.

They live beside steering because they make fine-tunes and directions (persona) and edit models
(steering); nothing of probes is needed, and what may come from there is handed in as a callable.
"""

from steering.lab.bench.experiment import Experiment, Findings, Measured
from steering.lab.bench.plan import Plan
from steering.lab.bench.readings import edited_conditions
from steering.lab.bench.record import Run
from steering.lab.bench.settings import LabSettings
from steering.lab.bench.workbench import Workbench, middle_blocks
from steering.lab.catalogue import EXPERIMENTS, experiment
from steering.lab.run_experiment import last_run, redraw, run_experiment

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "Findings",
    "LabSettings",
    "Measured",
    "Plan",
    "Run",
    "Workbench",
    "edited_conditions",
    "experiment",
    "last_run",
    "middle_blocks",
    "redraw",
    "run_experiment",
]
