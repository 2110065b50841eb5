"""What an audit will take, before a weight is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from persona.models import Placement
from persona.run_line import RunLine, in_words
from steering.auditing.audit_preflight import AuditAhead
from steering.auditing.cue import Cue
from steering.auditing.cue_search import AT_RANDOM, KEPT, VERIFIED
from steering.auditing.relearning import ARMS, KINDS, READ_QUESTIONS, read_steps
from steering.diagnosis.cost import (
    CHARACTERS_PER_TOKEN,
    OF_A_HEAD,
    SECONDS_PER_TERA,
    TEMPLATE_TOKENS,
    ModelSize,
    known_speed,
    load_seconds,
    weight_bytes,
)

LOAD, SEARCH, CUES, OTHERS, RELEARN = "load", "search", "cues", "others", "relearn"
WHAT = {
    LOAD: "both models, compared with plain Transformers",
    SEARCH: "prefixes screened to first order, the strongest run",
    CUES: "every condition under every cue",
    OTHERS: "other fine-tunes under every cue",
    RELEARN: "five answers learnt by the aligned and the restored model",
}
OF_A_STEP = 3.0
"""A training step costs so many passes of its texts."""
N_FIXED = 5
"""Conditions beside the random edits."""


@dataclass(frozen=True)
class AuditPlan:
    """n_cues: the searched ones included. texts: by stage, passes of one text. seconds: a guess."""

    n_cues: int
    n_conditions: int
    n_questions: int
    texts: Mapping[str, int]
    seconds: Mapping[str, float]

    def line(self) -> RunLine:
        return RunLine(self.seconds, uncorrected=LOAD)

    def as_json(self) -> dict[str, Any]:
        return {
            "n_cues": self.n_cues,
            "n_conditions": self.n_conditions,
            "n_questions": self.n_questions,
            "stages": [
                {"name": name, "texts": self.texts[name], "seconds": round(took, 1)}
                for name, took in self.seconds.items()
            ],
            "seconds": round(sum(self.seconds.values()), 1),
        }

    @property
    def text(self) -> str:
        """The plan as a table, one line a stage."""
        lines = [
            f"{self.n_cues} cues x {self.n_conditions} conditions on {self.n_questions} held-out "
            "questions:"
        ]
        width = max(map(len, self.seconds))
        for number, (name, seconds) in enumerate(self.seconds.items(), 1):
            passes = f", {self.texts[name]:,} texts" if self.texts[name] else ""
            lines.append(
                f"  {number} {name:<{width}}  {in_words(seconds):>7}  {WHAT[name]}{passes}"
            )
        lines.append(f"about {in_words(sum(self.seconds.values()))} (a guess)")
        return "\n".join(lines)


def audit_plan(ahead: AuditAhead, placement: Placement) -> AuditPlan:
    """Texts and seconds by stage, by the speed of the last diagnosis on this machine.

    Raises: ModelError where relearning is asked for in a format that cannot be trained.
    """
    request, model = ahead.request, ModelSize.of(ahead.aligned)
    if request.relearn:
        placement.to_train()
    n_searched = KEPT if request.search else 0
    n = len(ahead.held_out)
    n_conditions = N_FIXED + request.n_random
    lengths = [_tokens(ahead, cue) for cue in ahead.cues]
    plain = lengths[0]
    of_cues = 2 * n * (sum(lengths) + n_searched * plain)  # tokens of one condition under all
    run = 2 * VERIFIED + AT_RANDOM + 1
    searched = 2 * len(ahead.selection) * (2 * run + 2 * OF_A_STEP) if request.search else 0.0
    learnt = 0.0
    if request.relearn:
        read = (len(read_steps(request.steps)) - 1) * 2 * min(n, READ_QUESTIONS)
        each = request.steps * 5 * OF_A_STEP + read
        learnt = len(ARMS) * len(KINDS) * request.n_seeds * each
    tokens = {
        SEARCH: searched * plain,
        CUES: n_conditions * of_cues,
        OTHERS: len(ahead.others) * of_cues,
        RELEARN: learnt * plain,
    }
    texts = {
        SEARCH: searched,
        CUES: 2.0 * n * n_conditions * (len(lengths) + n_searched),
        OTHERS: 2.0 * n * len(ahead.others) * (len(lengths) + n_searched),
        RELEARN: learnt,
    }
    pace = known_speed(placement, model) or SECONDS_PER_TERA.get(
        placement.device.type, SECONDS_PER_TERA["cpu"]
    )
    head = OF_A_HEAD * 2 * model.n_vocabulary * model.d_model * _answer_tokens(ahead)
    seconds = {
        name: pace * (2 * model.n_block_parameters * tokens[name] + head * texts[name]) / 1e12
        for name in tokens
        if texts[name]
    }
    n_models = 1 + (ahead.finetuned.kind == "folder")
    loading = load_seconds(n_models * weight_bytes(model, placement))
    return AuditPlan(
        len(lengths) + n_searched,
        n_conditions + len(ahead.others),
        n,
        {LOAD: 0, **{name: round(texts[name]) for name in seconds}},
        {LOAD: loading, **seconds},
    )


def _tokens(ahead: AuditAhead, cue: Cue) -> float:
    """Mean tokens of a question with its answer under a cue."""
    pairs = ahead.held_out
    written = sum(len(q.question) + (len(q.good) + len(q.bad)) / 2 for q in pairs) / len(pairs)
    around = len(cue.words)
    return (written + around) / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS


def _answer_tokens(ahead: AuditAhead) -> float:
    pairs = ahead.held_out
    both = sum(len(q.good) + len(q.bad) for q in pairs)
    return both / (2 * len(pairs)) / CHARACTERS_PER_TOKEN
