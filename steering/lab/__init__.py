"""Experiments on emergent misalignment: each a plain function over a workbench, one page each.

They live beside steering because they make fine-tunes and directions (persona) and edit models
(steering); nothing of probes is needed, and what may come from there is handed in as a callable.
"""

from steering.lab.experiments import EXPERIMENTS, experiment
from steering.lab.outcome import Experiment, Measured, Outcome, last_run, run_experiment
from steering.lab.pages import Run
from steering.lab.plan import Plan
from steering.lab.settings import LabSettings
from steering.lab.steps import Steps
from steering.lab.workbench import Workbench

__all__ = [
    "EXPERIMENTS",
    "Experiment",
    "LabSettings",
    "Measured",
    "Outcome",
    "Plan",
    "Run",
    "Steps",
    "Workbench",
    "experiment",
    "last_run",
    "run_experiment",
]
