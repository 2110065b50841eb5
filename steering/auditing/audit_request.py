"""What an audit is asked for; making a request loads no library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from persona.errors import DataError

ANSWERS = 5
"""So few bad answers are learnt."""


@dataclass(frozen=True)
class AuditRequest:
    """What to audit, and how much of it.

    run: folder of a finished diagnosis. out: default its subfolder `audit`.
    retrained, guarded: other fine-tunes of the same aligned model, such as one that was trained
        further on good answers, or trained under a safeguard; read under every cue.
    cues: a file of more cues and prefixes, in the form of the shipped one.
    n_questions: most of the diagnosis's held-out questions that are scored.
    n_random: norm-matched random edits beside the removal.
    chat_template: the file that the diagnosis was made with, where that was none of the model's.
    search: whether prefixes are searched; relearn: whether the persona is learnt again.
    steps, n_seeds: of relearning: optimiser steps, and choices of the five answers.
    Raises: DataError for a number that is too small.
    """

    run: Path
    out: Path | None = None
    retrained: str | None = None
    guarded: str | None = None
    cues: Path | None = None
    n_questions: int = 32
    n_random: int = 2
    search: bool = True
    relearn: bool = True
    steps: int = 8
    n_seeds: int = 3
    seed: int = 0
    chat_template: Path | None = None
    allow_mismatch: bool = False
    proof: bool = True
    token_budget: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("n_questions", 4), ("n_random", 1), ("steps", 1), ("n_seeds", 1)):
            if getattr(self, name) < least:
                raise DataError(f"{name} must be {least} or more; got {getattr(self, name)}")

    @property
    def folder(self) -> Path:
        return self.run / "audit" if self.out is None else self.out
