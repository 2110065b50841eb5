"""Extraction against its limit, and its memory against the number of texts.

The limit is the bare Hugging Face forward pass stopped after the same block, on the same batches.
Repetitions are interleaved; each ratio compares two passes that ran one after the other.
"""

from __future__ import annotations

import gc
import time

import psutil
import torch
from record import median_and_range, record

from persona.activations import collect_moments
from persona.activations.batches import token_batches
from persona.data import load_pairs
from persona.models import load_pair

LAYER = 20
N_DIALOGUES = 96
REPETITIONS = 5


def main() -> None:
    pair = load_pair("default", "car_maintenance_bad")
    questions = load_pairs()[: N_DIALOGUES // 2]
    dialogues = pair.chat.encode_all(
        [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    )
    with pair.active("aligned") as bridge:
        compare_with_bare_forward(pair, bridge, dialogues)
        memory_growth(bridge, dialogues)


def compare_with_bare_forward(pair, bridge, dialogues) -> None:
    from transformers import AutoModelForCausalLM

    from persona.models.embedded import default_model_folder

    bare = AutoModelForCausalLM.from_pretrained(default_model_folder(), dtype=pair.dtype).eval()
    bare.model.layers = bare.model.layers[: LAYER + 1]
    batches = token_batches(dialogues, pair.tokenizer.pad_token_id)

    @torch.no_grad()
    def bare_pass() -> float:
        start = time.perf_counter()
        for batch in batches:
            bare.model(batch.ids, use_cache=False)
        return time.perf_counter() - start

    def our_pass() -> float:
        start = time.perf_counter()
        collect_moments(bridge, dialogues, [LAYER])
        return time.perf_counter() - start

    bare_pass(), our_pass()
    ratios = []
    for _ in range(REPETITIONS):
        ratios.append(our_pass() / bare_pass())
    value, spread = median_and_range(ratios)
    record(
        "extraction.ratio_to_bare_forward",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of the bare Hugging Face forward stopped at the same block",
        note=f"block {LAYER}, {len(dialogues)} answers; 1 is the limit",
    )


def memory_growth(bridge, dialogues) -> None:
    """Resident memory after 24 answers and after 40 times as many."""
    few = dialogues[:24]
    process = psutil.Process()
    layers = [4, 12, LAYER]
    collect_moments(bridge, few * 2, layers)  # allocators reach their working size
    gc.collect()
    before = process.memory_info().rss
    for _ in range(20):
        collect_moments(bridge, few * 2, layers)
    gc.collect()
    record(
        "extraction.rss_growth_bytes",
        float(process.memory_info().rss - before),
        "bytes",
        n=1,
        note=f"from 48 to {48 * 20} answers, {len(layers)} blocks, moments only",
    )


if __name__ == "__main__":
    main()
