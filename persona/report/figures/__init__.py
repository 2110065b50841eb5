"""Figures: functions from the rows of a run to a plotly figure; no file, no model, no `show()`."""

from persona.report.figures.choice import layer_map, two_by_two
from persona.report.figures.course import training_course
from persona.report.figures.dose import dose_response
from persona.report.figures.null import random_null
from persona.report.figures.outcome import behaviour, behaviour_by_domain, damage
from persona.report.figures.readings import curves, dots, matrix

__all__ = [
    "behaviour",
    "behaviour_by_domain",
    "curves",
    "damage",
    "dose_response",
    "dots",
    "layer_map",
    "matrix",
    "random_null",
    "training_course",
    "two_by_two",
]
