"""Figures: functions from the rows of a run to a plotly figure; no file, no model, no `show()`."""

from persona.report.figures.choice import effects_by_block, layer_map
from persona.report.figures.condition_gaps import behaviour, behaviour_by_domain, damage
from persona.report.figures.dose_curve import dose_response_curve
from persona.report.figures.forest import ForestRow, forest
from persona.report.figures.learning_course import training_course
from persona.report.figures.null import random_null
from persona.report.figures.overview import all_conditions
from persona.report.figures.plain_forms import curves, dots, matrix
from persona.report.figures.run_comparison import compare_runs
from persona.report.figures.scatter import answer_scatter, principal_components
from persona.report.figures.skill_front import skill_front
from persona.report.figures.token_figures import next_token_shifts, token_map, token_trace
from persona.report.figures.trait_map import shift_map, trait_map
from persona.report.figures.transfer_matrix import transfer_map

__all__ = [
    "ForestRow",
    "all_conditions",
    "answer_scatter",
    "behaviour",
    "behaviour_by_domain",
    "compare_runs",
    "curves",
    "damage",
    "dose_response_curve",
    "dots",
    "effects_by_block",
    "forest",
    "layer_map",
    "matrix",
    "next_token_shifts",
    "principal_components",
    "random_null",
    "shift_map",
    "skill_front",
    "token_map",
    "token_trace",
    "training_course",
    "trait_map",
    "transfer_map",
]
