"""The stages of a run as a person sees them, and which of them a stage of the workspace is part of.

What is kept on the disk is finer: the chunks of a score, a refit for each range of blocks.
"""

from __future__ import annotations

LOAD, READ, ATTRIBUTE, VERIFY, CONTROLS, SCORE, ANSWER = (
    *("load", "read", "attribute", "verify", "controls", "score", "answer"),
)
WHAT = {
    LOAD: "both models, compared with plain Transformers",
    READ: "activations of good and bad answers in both models",
    ATTRIBUTE: "which directions move the gap, to first order",
    VERIFY: "candidates tried by intervention",
    CONTROLS: "good twin, placebos, dose",
    SCORE: "every condition on held-out questions and neutral text",
    ANSWER: "answers of each condition, and the judge",
}
BEGINNINGS = (
    (READ, ("cells", "covariance", "skill-cells", "skill-twin")),
    (ATTRIBUTE, ("attribute-", "handed-in", "screen", "skill-moments")),
    (
        VERIFY,
        (
            *("verify-", "model_effect_refit", "model_and_answer_refit", "halves"),
            "model_effect_sparing_skill",
        ),
    ),
    (
        CONTROLS,
        (
            *("placebo-", "score-good-twin", "skill-good-twin", "sample-good_twin"),
            *("null-moments", "dose", "induction"),
        ),
    ),
    (SCORE, ("score-", "baselines")),
    (ANSWER, ("sample-", "judge")),
)
"""How the names of the workspace's stages begin; the first that fits counts."""


def run_stage_of(name: str) -> str | None:
    """The stage of the run that a stage of the workspace is part of; None for an unknown name."""
    return next(
        (stage for stage, starts in BEGINNINGS if name.startswith(starts)),
        None,
    )
