"""The main job: from two models to a direction, its proof, and its files.

The stages, each kept when it is finished so that a killed run goes on where it was:

1. cells      the 2x2 of activations on the training questions of the domains fine-tuned on
2. attribute  eigendirections from one forward and backward pass over the same questions
3. screen     first-order effect of every candidate at every block, on the selection questions
4. verify     real interventions for the most promising; block range, rank, coefficient
5. dose       gap against coefficient, with norm-matched random directions beside it
6. score      all conditions on the held-out domains and on fresh neutral text
7. sample     answers to read side by side, judged where there is a judge
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from persona.rows import COLUMNS
    from steering.diagnosis.config import DiagnoseConfig, DiagnosisRequest
    from steering.diagnosis.facts import summary_of
    from steering.diagnosis.memory import peak_rss_bytes
    from steering.diagnosis.outlook import Outlook, outlook_of
    from steering.diagnosis.preflight import Ahead, look_ahead
    from steering.diagnosis.questions import Questions
    from steering.diagnosis.run import Diagnosis, diagnose

__all__ = [
    "COLUMNS",
    "Ahead",
    "DiagnoseConfig",
    "Diagnosis",
    "DiagnosisRequest",
    "Outlook",
    "Questions",
    "diagnose",
    "look_ahead",
    "outlook_of",
    "peak_rss_bytes",
    "summary_of",
]

__getattr__ = named_late(
    __name__,
    {
        "COLUMNS": "persona.rows",
        "DiagnoseConfig": "steering.diagnosis.config",
        "Ahead": "steering.diagnosis.preflight",
        "DiagnosisRequest": "steering.diagnosis.config",
        "Outlook": "steering.diagnosis.outlook",
        "outlook_of": "steering.diagnosis.outlook",
        "look_ahead": "steering.diagnosis.preflight",
        "Diagnosis": "steering.diagnosis.run",
        "Questions": "steering.diagnosis.questions",
        "diagnose": "steering.diagnosis.run",
        "peak_rss_bytes": "steering.diagnosis.memory",
        "summary_of": "steering.diagnosis.facts",
    },
)
