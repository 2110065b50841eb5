"""What work costs on this machine: floating-point operations, seconds, memory.

Rough on purpose: counts come from the sizes in config.json, the speed from the last run here. The
figures that stand for what is not multiplication were measured on one core, see
`steering.diagnosis.work_plan`.
"""

from __future__ import annotations

import contextlib
import json
import math
import platform
from collections.abc import Iterable
from dataclasses import dataclass

from persona.files import atomic_write_text
from persona.models.kept_folder import cache_folder
from persona.models.on_disk import OnDisk
from persona.models.precision import Placement
from steering.diagnosis.questions import Questions
from steering.diagnosis.work_plan import Work

CHARACTERS_PER_TOKEN = 4.2
TEMPLATE_TOKENS = 30
"""What a chat template adds to a question and an answer."""

OF_A_HEAD = 1.3
"""What an answer's tokens take at the head and in the softmax, in multiplications of the head."""
PER_TOKEN_WRITTEN = 6.5
"""A token that is written costs what reading so many does, in batches of 8 and of 16 alike; of two
demos on two cores."""
PER_DECOMPOSITION = 25.0
"""Operations of an eigendecomposition, times d_model^3."""

SECONDS_PER_TERA = {"cpu": 7.0, "cuda": 0.2, "mps": 3.0}
"""Before anything was measured here: a demo took 816 s on two cores with bfloat16; the others are
guesses."""
LOAD_SECONDS, LOAD_BYTES_PER_SECOND = 10.0, 2e8
SPEEDS = "speeds.json"

BASE_BYTES = 1.5e9
"""Of the process without a model. With 2.5 times the weights and 10 float64 matrices a block it
gives the 2.9 GB of the 135M and 5.5 of the 5.7 GB of the 0.5B that were measured in bfloat16."""
OF_WEIGHTS, OF_MATRICES = 2.5, 10
BYTES_OF = {"float32": 4.0, "int8": 1.0, "nf4": 0.6}
"""Of a weight; 2 in any other format."""


@dataclass(frozen=True)
class ModelSize:
    """n_parameters: all; n_block_parameters: those of the blocks. n_vocabulary: entries."""

    n_parameters: int
    n_block_parameters: int
    n_layers: int
    d_model: int
    n_vocabulary: int

    @classmethod
    def of(cls, model: OnDisk) -> ModelSize:
        """What its config says; of a model that is not here yet, a guess by its parameters."""
        n = model.n_parameters or 500_000_000
        d_model = model.d_model or round((n / 600) ** 0.5)
        n_vocabulary = model.size("vocab_size") or 50_000
        tied = model.config.get("tie_word_embeddings", True)
        embeddings = n_vocabulary * d_model * (1 if tied else 2)
        n_blocks = max(n - embeddings, n // 5)
        return cls(n, n_blocks, model.n_layers or 28, d_model, n_vocabulary)


@dataclass(frozen=True)
class TextSize:
    """Mean tokens of a question with its answer, and of the answer."""

    n_tokens: float
    n_answer_tokens: float

    @classmethod
    def of(cls, questions: Questions) -> TextSize:
        asked = [*questions.train, *questions.selection, *questions.held_out]
        answers = _mean(len(text) for q in asked for text in (q.good, q.bad))
        both = _mean(len(q.question) for q in asked) + answers
        return cls(both / CHARACTERS_PER_TOKEN + TEMPLATE_TOKENS, answers / CHARACTERS_PER_TOKEN)


def _mean(lengths: Iterable[int]) -> float:
    found = list(lengths)
    return sum(found) / len(found)


def tera_operations(work: Work, model: ModelSize, text: TextSize) -> float:
    """What work costs, in 10^12 operations."""
    operations = 2 * model.n_block_parameters * text.n_tokens * work.blocks
    head = 2 * model.n_vocabulary * model.d_model
    operations += OF_A_HEAD * head * text.n_answer_tokens * work.heads
    operations += 2 * model.n_parameters * PER_TOKEN_WRITTEN * work.tokens
    operations += PER_DECOMPOSITION * model.d_model**3 * work.decompositions
    return operations / 1e12


def load_seconds(bytes_of_weights: float) -> float:
    """Reading the weights, wrapping and comparing the models."""
    return LOAD_SECONDS + bytes_of_weights / LOAD_BYTES_PER_SECOND


def weight_bytes(model: ModelSize, placement: Placement) -> float:
    return model.n_parameters * BYTES_OF.get(placement.dtype_name, 2.0)


def peak_bytes(model: ModelSize, placement: Placement, n_checkpoints: int) -> float:
    """The most memory that a run is expected to hold; on a card most of the weights lie there."""
    weights = weight_bytes(model, placement)
    matrices = 8.0 * model.n_layers * model.d_model**2
    return BASE_BYTES + (OF_WEIGHTS + n_checkpoints - 1) * weights + OF_MATRICES * matrices


def known_speed(placement: Placement, model: ModelSize) -> float | None:
    """Seconds per 10^12 operations of the last run on this machine, of a model of like size."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        found = json.loads((cache_folder() / SPEEDS).read_text(encoding="utf-8"))
        speed = float(found[_key(placement, model)])
        return speed if 0 < speed < 1e6 else None
    return None


def keep_speed(placement: Placement, model: ModelSize, seconds_per_tera: float) -> None:
    """Notes what the operations of a finished run took, for the guess before the next one."""
    path = cache_folder() / SPEEDS
    known: dict[str, float] = {}
    with contextlib.suppress(OSError, ValueError, TypeError):
        known = dict(json.loads(path.read_text(encoding="utf-8")))
    with contextlib.suppress(OSError):  # a cache that cannot be written costs a guess
        known[_key(placement, model)] = seconds_per_tera
        atomic_write_text(path, json.dumps(known, indent=2))


def _key(placement: Placement, model: ModelSize) -> str:
    """A decade of sizes has one speed: the smaller, the less of the time is multiplication."""
    decade = math.floor(math.log10(model.n_parameters))
    return f"{platform.node()}, {placement}, 10^{decade} parameters"
