"""Writing with a direction: interventions, identification by cause, the scorecard.

`add`, `ablate`, `restore` and `induce` make edits of a direction, `steer` applies them. More stands
in the rooms: `steering.edits`, `steering.evidence`, `steering.identification`, `steering.weights`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from steering.auditing import AuditRequest, audit
    from steering.certificate import certify
    from steering.demo.notebook.explorer import explore
    from steering.diagnosis import DiagnoseConfig, diagnose
    from steering.edits import ablate, add, induce, restore, steer
    from steering.evidence import dose_response
    from steering.identification import compare_edits, identify

__all__ = [
    "AuditRequest",
    "DiagnoseConfig",
    "ablate",
    "add",
    "audit",
    "certify",
    "compare_edits",
    "diagnose",
    "dose_response",
    "explore",
    "identify",
    "induce",
    "restore",
    "steer",
]

__getattr__ = named_late(
    __name__,
    {
        "AuditRequest": "steering.auditing",
        "DiagnoseConfig": "steering.diagnosis",
        "ablate": "steering.edits",
        "add": "steering.edits",
        "audit": "steering.auditing",
        "certify": "steering.certificate",
        "compare_edits": "steering.identification",
        "diagnose": "steering.diagnosis",
        "dose_response": "steering.evidence",
        "explore": "steering.demo.notebook.explorer",
        "identify": "steering.identification",
        "induce": "steering.edits",
        "restore": "steering.edits",
        "steer": "steering.edits",
    },
)
