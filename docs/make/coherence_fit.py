"""Fits the scales of measured coherence: `python docs/make/coherence_fit.py`.

For each model that reads: answers to 16 open questions of the package that are asked nowhere else.
Coherent are the answers of a model of its size at temperatures 0 and 0.5 and the written answers,
callous ones too; incoherent are answers at 1.5 and 2, shuffled words, and answers to another
question. The numbers of `CoherenceScale` are those under which these classes are likeliest,
each kind of text weighing the same; temperature 1 is left out, it is neither.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from persona.behaviour.judging.coherence import (
    FITTED,
    CoherenceReading,
    CoherenceScale,
    read_coherence,
)
from persona.behaviour.judging.judge import JudgeItem
from persona.data.graded_answers import load_graded_answers
from persona.data.types import Dialogue, Turn
from persona.files import atomic_write_bytes
from persona.models.load import load_bridge
from persona.models.precision import Placement
from persona.models.sampling import sample_answers

logger = logging.getLogger("persona")

WRITERS = {
    "smollm2-135m": "smollm2-135m",
    "qwen2.5-coder-0.5b": "qwen2.5-coder-0.5b",
    "qwen2.5-coder-1.5b": "qwen2.5-coder-0.5b",
}
"""The model that reads -> the one whose answers it is fitted on."""
N_QUESTIONS, MAX_NEW_TOKENS, SEED = 16, 60, 0
COHERENT = ("t0", "t0.5", "written")
INCOHERENT = ("t1.5", "t2", "salad", "other question")
STEEPEST = (3.0, 4.0, 8.0)
"""Per nat, of fluency, order and relevance. Sound text and nonsense lie so far apart that any steep
slope parts them: what lies between shall have a score between."""


@dataclass(frozen=True)
class Example:
    """An answer, and what kind of text it is."""

    item: JudgeItem
    kind: str


def sampled(
    bridge: Any, chat: Any, questions: Sequence[str], temperatures: Iterable[float]
) -> list[Example]:
    """A model's answers to questions, one at each temperature."""
    asked = [Dialogue((Turn("user", question),)) for question in questions]
    found = []
    for temperature in temperatures:
        answers = sample_answers(
            bridge,
            chat,
            asked,
            temperature=temperature,
            max_new_tokens=MAX_NEW_TOKENS,
            seed=SEED,
            description=f"Sampling at temperature {temperature:g}",
        )
        found += [
            Example(JudgeItem(question, answer), f"t{temperature:g}")
            for question, answer in zip(questions, answers, strict=True)
        ]
    return found


def shuffled(of: Sequence[Example]) -> list[Example]:
    """The same answers with their words in any order: word salad."""
    rng = random.Random(SEED)
    found = []
    for one in of:
        words = one.item.answer.split()
        rng.shuffle(words)
        found.append(Example(JudgeItem(one.item.question, " ".join(words)), "salad"))
    return found


def moved(of: Sequence[Example]) -> list[Example]:
    """The answer to each question behind the question before it."""
    return [
        Example(JudgeItem(of[place - 1].item.question, one.item.answer), "other question")
        for place, one in enumerate(of)
    ]


def fit(
    readings: Sequence[CoherenceReading], kinds: Sequence[str], model: str, n_parameters: int
) -> CoherenceScale:
    """The scale under which the classes are likeliest, kinds weighing the same in each class.

    Begun from four places: the likelihood has more than one top.
    """
    coherent = np.array([kind in COHERENT for kind in kinds])
    weights = np.zeros(len(kinds))
    for of_class in (COHERENT, INCOHERENT):
        there = [kind for kind in of_class if kind in kinds]
        for kind in there:
            mine = np.array([one == kind for one in kinds])
            weights[mine] = 1 / mine.sum() / len(there)

    def scale_of(x: Any) -> CoherenceScale:
        slopes = [float(min(np.exp(a), most)) for a, most in zip(x[::2], STEEPEST, strict=True)]
        parts = [part for pair in zip(slopes, map(float, x[1::2]), strict=True) for part in pair]
        return CoherenceScale(*parts, model, n_parameters)

    def loss(x: Any) -> float:
        p = np.array([scale_of(x).score(reading) for reading in readings]) / 100
        p = np.clip(p, 1e-4, 1 - 1e-4)
        return float(-(weights * np.where(coherent, np.log(p), np.log(1 - p))).sum())

    options = {"maxiter": 8000, "maxfev": 8000, "xatol": 1e-3, "fatol": 1e-5}
    found = [
        minimize(
            loss,
            [0.5, middle, 1.0, order, np.log(slope), gain],
            method="Nelder-Mead",
            options=options,
        )
        for middle, order in ((-6.0, 1.0), (-7.0, 2.0))
        for slope, gain in ((3.0, 0.1), (6.0, 0.3))
    ]
    return scale_of(min(found, key=lambda one: float(one.fun)).x)


def fit_questions() -> list[tuple[str, list[str]]]:
    """(question, written answers) of the fit."""
    return [(q.question, [text for _, text in q.answers]) for q in load_graded_answers()][
        :: len(load_graded_answers()) // N_QUESTIONS
    ][:N_QUESTIONS]


def examples(bridge: Any, chat: Any) -> list[Example]:
    """What a scale is fitted on, the answers of this model among it."""
    asked = fit_questions()
    found = sampled(bridge, chat, [question for question, _ in asked], (0.0, 0.5, 1.5, 2.0))
    greedy = [one for one in found if one.kind == "t0"]
    written = [
        Example(JudgeItem(question, answers[place % len(answers)]), "written")
        for place, (question, answers) in enumerate(asked)
    ]
    return [*found, *written, *shuffled(greedy), *moved(greedy)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the scales of coherence and write them.")
    parser.add_argument("--out", type=Path, default=FITTED)
    parser.add_argument("--model", action="append", choices=[*WRITERS], help="default: all")
    parser.add_argument("--keep", type=Path, help="folder of what was sampled and read")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    placement = Placement.of("bfloat16")
    rows = json.loads(options.out.read_text())["scales"] if options.out.is_file() else []
    for name in options.model or WRITERS:
        learnt_from = kept_examples(WRITERS[name], options.keep, placement)
        found, size = kept_readings(name, learnt_from, options.keep, placement)
        known = [(r, e.kind) for r, e in zip(found, learnt_from, strict=True) if r is not None]
        scale = fit([r for r, _ in known], [kind for _, kind in known], name, size)
        facts = {"answers": len(known), "questions": N_QUESTIONS, "writer": WRITERS[name]}
        row = {k: round(v, 4) if isinstance(v, float) else v for k, v in asdict(scale).items()}
        rows = [one for one in rows if one["model"] != name] + [row | facts]
        rows.sort(key=lambda one: one["n_parameters"])
        text = json.dumps({"made_by": "docs/make/coherence_fit.py", "scales": rows}, indent=2)
        atomic_write_bytes(options.out, (text + "\n").encode())
        logger.info("%s", row)


def kept_readings(
    name: str, learnt_from: Sequence[Example], folder: Path | None, placement: Placement
) -> tuple[list[CoherenceReading | None], int]:
    """Readings of the examples in a model, and its parameters; from the folder where they are."""
    path = None if folder is None else folder / f"read-{name}.json"
    if path is not None and path.is_file():
        kept = json.loads(path.read_text())
        return [None if r is None else CoherenceReading(*r) for r in kept["readings"]], kept["size"]
    bridge, chat = load_bridge(name, placement=placement)
    found = read_coherence(bridge, chat, [one.item for one in learnt_from])
    size = sum(weight.numel() for weight in bridge.original_model.parameters())
    if path is not None:
        rows = [None if r is None else [r.log_prob, r.other, r.shuffled, r.repeated] for r in found]
        atomic_write_bytes(path, json.dumps({"readings": rows, "size": size}).encode())
    return found, size


def kept_examples(writer: str, folder: Path | None, placement: Placement) -> list[Example]:
    """`examples` of a model, from the folder where they are there."""
    path = None if folder is None else folder / f"fit-{writer}.json"
    if path is not None and path.is_file():
        rows = json.loads(path.read_text())
        return [Example(JudgeItem(q, a), kind) for q, a, kind in rows]
    bridge, chat = load_bridge(writer, placement=placement)
    found = examples(bridge, chat)
    if path is not None:
        text = json.dumps([[e.item.question, e.item.answer, e.kind] for e in found])
        atomic_write_bytes(path, text.encode())
    return found


if __name__ == "__main__":
    main()
