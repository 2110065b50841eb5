"""Extraction methods against one extraction pass; a null of 1,000 directions at every layer.

500 questions, both answers of each in the aligned model: 1,000 answers, all 30 blocks.
"""

from __future__ import annotations

import time

import torch
from record import record

from persona.activations import collect_rows
from persona.data import load_pairs
from persona.directions import Contrast
from persona.directions.methods import METHODS
from persona.models import load_pair
from probes.nulls import null_table

N_QUESTIONS = 500
N_HELD_OUT = 100


def main() -> None:
    pair = load_pair("default", "car_maintenance_bad")
    questions = load_pairs()[:N_QUESTIONS]

    def encode(answer: str) -> list:
        return pair.chat.encode_all([getattr(q, answer) for q in questions])

    start = time.perf_counter()
    with pair.active("aligned") as bridge:
        layers = range(pair.n_layers)
        good = collect_rows(bridge, encode("good_dialogue"), layers)
        bad = collect_rows(bridge, encode("bad_dialogue"), layers)
    extraction = time.perf_counter() - start

    ids = tuple(q.id for q in questions)
    contrast = Contrast(bad, good, ids, ids)
    start = time.perf_counter()
    found = {name: method(contrast) for name, method in METHODS.items()}
    seconds = time.perf_counter() - start
    record(
        "methods.ratio_to_one_pass",
        (extraction + seconds) / extraction,
        "x",
        n=1,
        ratio_to="seconds of one extraction pass over the same answers",
        note=f"{len(METHODS)} methods {seconds:.1f} s, the pass {extraction:.0f} s, "
        f"{2 * len(questions)} answers, {pair.n_layers} blocks",
    )

    held = slice(0, N_HELD_OUT)
    few = Contrast(bad[held], good[held], ids[held], ids[held])
    mean = found["difference_of_means"][:, 0]
    start = time.perf_counter()
    null_table(few, {"difference_of_means": mean}, n_draws=1000)
    record(
        "nulls.1000_directions.seconds",
        time.perf_counter() - start,
        "s",
        n=1,
        note=f"isotropic, covariance and permutation, {N_HELD_OUT} questions, all blocks, "
        f"{torch.get_num_threads()} threads",
    )


if __name__ == "__main__":
    main()
