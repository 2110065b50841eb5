"""What one can do with a finished run: commands, as they are typed in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.wording import as_float, cleaned

DIRECTION = "direction.safetensors"


def next_steps(scorecard: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to do and the command for it, which may be empty."""
    steps = []
    if scorecard.get("direction"):
        models = scorecard.get("models") or {}
        names = [cleaned(models[s]) if isinstance(models.get(s), str) else "MODEL" for s in SIDES]
        asked = " ".join(f"--{side} {_word(name)}" for side, name in zip(SIDES, names, strict=True))
        steps += [
            (
                "Ask both models and the restored one",
                f"persona chat {asked} --direction {DIRECTION}",
            ),
            ("Does the removal hold when the persona is asked for?", "persona audit ."),
            ("Take the vector to llama.cpp", f"persona convert {DIRECTION} persona.gguf"),
        ]
    power = scorecard.get("power") or {}
    whole = as_float(power.get("if_whole"))
    if whole is not None and whole < 0.8:
        steps.append(
            (
                "More questions: with so few even a whole removal would often miss its bar; run "
                "the diagnosis again with a larger --questions-per-domain, or without it",
                "",
            )
        )
    if not (scorecard.get("models") or {}).get("good_twin"):
        steps.append(
            (
                "Any fine-tune, or this one? The same fine-tune on good answers (--good-twin) is "
                "the control for it",
                "",
            )
        )
    return steps


SIDES = ("aligned", "finetuned")


def _word(name: str) -> str:
    """As a shell takes it."""
    from shlex import quote

    return quote(name)
