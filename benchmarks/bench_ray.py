"""What two Ray workers lose to overhead: the same extraction, two workers against one process.

Two workers have one thread each, the process has two. Repetitions are interleaved; the workers are
started, and their models opened, before the clock starts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from record import median_and_range, record

from persona.activations.extract import MomentsOfShard
from persona.data import load_pairs
from persona.engine import Engine, ShardRunner, cut_files
from persona.models import ModelPair, load_pair

LAYER = 20
N_ANSWERS = 256
SHARD_SIZE = 64
REPETITIONS = 3
WORKERS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--aligned", default="default")
    parser.add_argument("--layer", type=int, default=LAYER)
    parser.add_argument("--answers", type=int, default=N_ANSWERS)
    options = parser.parse_args()
    pair = load_pair(options.aligned, options.aligned, in_turn=True)
    with tempfile.TemporaryDirectory() as folder:
        data = write_answers(Path(folder) / "answers.jsonl", options.answers)
        measure(pair, data, options.layer)


def write_answers(path: Path, n: int) -> Path:
    """The shipped good and bad answers as samples, over and over."""
    rows = [
        {"prompt": q.question, "completion": answer}
        for q in load_pairs()
        for answer in (q.good, q.bad)
    ]
    lines = [json.dumps(rows[i % len(rows)]) for i in range(n)]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def measure(pair: ModelPair, data: Path, layer: int, repetitions: int = REPETITIONS) -> None:
    """The row: seconds of one process over seconds of the workers."""
    shards = cut_files([data], SHARD_SIZE)
    work = MomentsOfShard(pair, "aligned", (layer,))

    def seconds(run: ShardRunner) -> float:
        start = time.perf_counter()
        run(shards, work, lambda number, result: None, "Reading activations")
        return time.perf_counter() - start

    ratios = []
    with Engine().start() as here, Engine("ray", workers=WORKERS).start() as there:
        for _ in range(2):  # the first opens the models, the second lets the workers warm up
            seconds(there)
        with threads(WORKERS):
            seconds(here)
        for _ in range(repetitions):
            with threads(WORKERS):
                alone = seconds(here)
            ratios.append(alone / seconds(there))
    value, spread = median_and_range(ratios)
    n_rows = sum(shard.n_rows for shard in shards)
    record(
        "ray.two_workers.efficiency",
        value,
        "x",
        n=repetitions,
        spread=spread,
        ratio_to="seconds of one process with two threads, over those of two workers with one each",
        note=f"block {layer}, {n_rows} answers in {len(shards)} shards, models open",
    )


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
