"""What steering costs while generating, and what a sweep in one batch saves.

Both sides of a ratio go through `bridge.generate` with the same batch and the same forced number of
tokens, one after the other; repetitions are interleaved.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import torch
from record import median_and_range, record

from persona.data import load_pairs
from persona.directions import Direction
from persona.models import ModelPair, load_pair
from steering import add, steer
from steering.edits import ALL_BLOCKS

BATCH = 8
N_TOKENS = 48
REPETITIONS = 9
COEFFICIENTS = (-4.0, -2.0, -1.0, -0.5, 0.5, 1.0, 2.0, 4.0)


def main() -> None:
    pair = load_pair("default", "car_maintenance_bad")
    questions = load_pairs()[:BATCH]
    texts = pair.chat.encode_all([q.prompt_dialogue for q in questions])
    measure(pair, texts)


def measure(
    pair: ModelPair, texts: list, n_tokens: int = N_TOKENS, repetitions: int = REPETITIONS
) -> None:
    """The three rows, from as many prompts as `texts` has."""
    layer = pair.n_layers // 2
    generator = torch.Generator().manual_seed(0)
    direction = Direction(torch.randn(pair.d_model, generator=generator), pair.space(layer), "any")
    shortest = min(len(text) for text in texts)
    ids = torch.tensor([text.ids[-shortest:] for text in texts])
    note = f"{len(ids)} rows, {shortest} prompt tokens, {n_tokens} forced tokens"
    with pair.active("aligned") as bridge:

        def seconds(edits: list, rows: torch.Tensor = ids) -> float:
            return generation_seconds(bridge, rows.to(pair.device), edits, n_tokens)

        lists = {
            "one_layer": add(direction, 0.01),
            "all_layers": add(direction, 0.01, ALL_BLOCKS),
        }
        for edits in ([], *lists.values()):
            seconds(edits)
        ratios: dict[str, list[float]] = {name: [] for name in lists}
        for _ in range(repetitions):
            for name, edits in lists.items():
                ratios[name].append(steered_over_plain(seconds, edits))
        for name, found in ratios.items():
            value, spread = median_and_range(found)
            record(
                f"steer.{name}.generation_ratio",
                value,
                "x",
                n=repetitions,
                spread=spread,
                ratio_to="seconds of unsteered generation on the same path",
                note=note,
            )
        speedups = []
        swept = add(direction, torch.tensor(COEFFICIENTS))
        for _ in range(repetitions):
            single = sum(seconds(add(direction, c), ids[:1]) for c in COEFFICIENTS)
            speedups.append(single / seconds(swept, ids[:1].expand(len(COEFFICIENTS), -1)))
        value, spread = median_and_range(speedups)
        record(
            "sweep.eight_coefficients.speedup",
            value,
            "x",
            n=repetitions,
            spread=spread,
            ratio_to="one batch with a coefficient for each row, against eight runs of one row",
            note=note.replace(f"{len(ids)} rows", "1 prompt"),
        )


def generation_seconds(bridge, rows: torch.Tensor, edits: list, n_tokens: int) -> float:
    """Seconds of writing exactly so many tokens after each row."""
    wait_for_device(rows)
    start = time.perf_counter()
    with steer(bridge, edits) if edits else contextlib.nullcontext(), torch.no_grad():
        output = bridge.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            max_new_tokens=n_tokens,
            do_sample=False,
            stop_at_eos=False,
            verbose=False,
            return_type="tokens",
        )
    wait_for_device(rows)
    assert output.shape[1] == rows.shape[1] + n_tokens
    return time.perf_counter() - start


def steered_over_plain(seconds: Callable[[list], float], edits: list) -> float:
    """Between two plain runs, so that a drift of the machine cancels."""
    before, steered, after = seconds([]), seconds(edits), seconds([])
    return steered / ((before + after) / 2)


def wait_for_device(tensor: torch.Tensor) -> None:
    """CUDA works behind the back of the clock."""
    if tensor.is_cuda:
        torch.cuda.synchronize(tensor.device)


if __name__ == "__main__":
    main()
