"""Memory: moments of 100 against 100,000 texts, and a LoRA pair against one model.

Every reading is the peak resident memory of a fresh process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from record import median_and_range, record

LAYER = 0
FEW, MANY = 100, 100_000
REPETITIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reading", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reading:
        what, argument = options.reading
        readings = {"texts": moments_of, "last": of_last, "blocks": of_all, "models": load_models}
        print(readings[what](argument))
        return
    growth_over_blocks()
    growth_over_texts()
    pair_against_one_model()


def growth_over_blocks() -> None:
    with tempfile.TemporaryDirectory() as folder:
        texts = write_texts(Path(folder) / "texts.jsonl", FEW)
        last, all_blocks = reading("last", str(texts)), reading("blocks", str(texts))
    record(
        "memory.growth_bytes_1_to_all_blocks",
        all_blocks - last,
        "bytes",
        n=1,
        note=f"peak of a process, {last / 2**20:.0f} against {all_blocks / 2**20:.0f} MiB; moments "
        f"of {FEW} short answers at the last block alone and at every block",
    )


def growth_over_texts() -> None:
    with tempfile.TemporaryDirectory() as folder:
        few, many = (write_texts(Path(folder) / f"{n}.jsonl", n) for n in (FEW, MANY))
        small = reading("texts", str(few))
        large = reading("texts", str(many))
    record(
        "memory.growth_bytes_100_to_100000_texts",
        large - small,
        "bytes",
        n=1,
        note=f"peak of a process, {small / 2**20:.0f} against {large / 2**20:.0f} MiB; moments of "
        f"short answers of one file at block {LAYER}, shard by shard",
    )


def pair_against_one_model() -> None:
    ratios, sizes = [], []
    for _ in range(REPETITIONS):
        one, pair = reading("models", "default"), reading("models", "car_maintenance_bad")
        ratios.append(pair / one)
        sizes.append((one, pair))
    value, spread = median_and_range(ratios)
    one, pair = sizes[-1]
    record(
        "pair.memory_ratio",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="memory of one model: what loading it and reading an answer adds to the process",
        note=f"{pair / 2**20:.0f} against {one / 2**20:.0f} MiB; an adapter of rank 16 on every "
        "linear layer, not merged",
    )


def write_texts(path: Path, n: int) -> Path:
    lines = (
        json.dumps({"prompt": f"What comes after {i}?", "completion": f"{i + 1}, I think."})
        for i in range(n)
    )
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def reading(what: str, argument: str) -> float:
    """Bytes that a fresh process of this script reads of itself."""
    command = [sys.executable, __file__, "--reading", what, argument]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def moments_of(path: str, layers: slice = slice(LAYER, LAYER + 1)) -> float:
    """Peak after the moments of a file."""
    from persona.activations.extract import extract_moments
    from persona.models import load_pair

    pair = load_pair("default", "default")
    extract_moments(pair, path, list(range(pair.n_layers))[layers])
    return peak()


def of_last(path: str) -> float:
    return moments_of(path, slice(-1, None))


def of_all(path: str) -> float:
    return moments_of(path, slice(None))


def load_models(finetuned: str) -> float:
    """What loading a pair and reading an answer with both sides adds to what imports take.

    With `default` the two sides are one model.
    """
    import psutil

    from persona.activations import collect_moments
    from persona.data import load_pairs
    from persona.models import load_pair

    before = psutil.Process().memory_info().rss
    pair = load_pair("default", finetuned)
    dialogues = pair.chat.encode_all([load_pairs()[0].good_dialogue])
    for side in ("aligned", "finetuned"):
        with pair.active(side) as bridge:
            collect_moments(bridge, dialogues, [LAYER])
    return float(psutil.Process().memory_info().rss - before)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


if __name__ == "__main__":
    main()
