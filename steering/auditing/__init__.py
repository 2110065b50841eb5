"""Does a removal hold? A finished diagnosis under cues that could bring the persona back.

1. cues         what is asked with, beside the plain question (`cue`, `cue_list`)
2. cue_search   short prefixes screened to first order, the strongest verified
3. cue_scores   every condition under every cue, on the diagnosis's held-out questions
4. worst_cue    which cue brings most back, corrected for having chosen it
5. relearning   does the persona come back faster than it came?
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from persona.late_names import named_late

if TYPE_CHECKING:
    from steering.auditing.audit_preflight import AuditAhead, look_ahead_of_audit
    from steering.auditing.audit_request import AuditRequest
    from steering.auditing.cost_of_audit import AuditPlan, audit_plan
    from steering.auditing.cue import Cue
    from steering.auditing.run_audit import Audit, audit
    from steering.auditing.worst_cue import simultaneous

__all__ = [
    "Audit",
    "AuditAhead",
    "AuditPlan",
    "AuditRequest",
    "Cue",
    "audit",
    "audit_plan",
    "look_ahead_of_audit",
    "simultaneous",
]

__getattr__ = named_late(
    __name__,
    {
        "Audit": "steering.auditing.run_audit",
        "AuditAhead": "steering.auditing.audit_preflight",
        "AuditPlan": "steering.auditing.cost_of_audit",
        "AuditRequest": "steering.auditing.audit_request",
        "Cue": "steering.auditing.cue",
        "audit": "steering.auditing.run_audit",
        "audit_plan": "steering.auditing.cost_of_audit",
        "look_ahead_of_audit": "steering.auditing.audit_preflight",
        "simultaneous": "steering.auditing.worst_cue",
    },
)
