"""A study: recipes x seeds by a plan, into one table with intervals between seeds.

The plan is hashed before the first run, and a changed plan is refused. Every recipe is fine-tuned
anew with every seed and diagnosed on the same questions; what scatters between seeds, domains and
questions stands beside each number.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from steering.study.crossed_design import SCOPES, CrossedDesign
    from steering.study.run_study import Study, study
    from steering.study.study_ahead import StudyAhead, look_ahead
    from steering.study.study_comparisons import holm
    from steering.study.study_measures import MEASURES
    from steering.study.study_plan import Planned, StudyPlan, load_plan
    from steering.study.study_power import Power, VarianceParts
    from steering.study.study_table import StudyTable

__all__ = [
    "MEASURES",
    "SCOPES",
    "CrossedDesign",
    "Planned",
    "Power",
    "Study",
    "StudyAhead",
    "StudyPlan",
    "StudyTable",
    "VarianceParts",
    "holm",
    "load_plan",
    "look_ahead",
    "study",
]

__getattr__ = named_late(
    __name__,
    {
        "MEASURES": "steering.study.study_measures",
        "SCOPES": "steering.study.crossed_design",
        "CrossedDesign": "steering.study.crossed_design",
        "Planned": "steering.study.study_plan",
        "Power": "steering.study.study_power",
        "Study": "steering.study.run_study",
        "StudyAhead": "steering.study.study_ahead",
        "StudyPlan": "steering.study.study_plan",
        "StudyTable": "steering.study.study_table",
        "VarianceParts": "steering.study.study_power",
        "holm": "steering.study.study_comparisons",
        "load_plan": "steering.study.study_plan",
        "look_ahead": "steering.study.study_ahead",
        "study": "steering.study.run_study",
    },
)
