"""Extraction against its limit, and against the plain loops that people write.

The limit is the bare Hugging Face forward pass stopped after the same block, on the same batches.
Repetitions are interleaved; each ratio compares two passes that ran one after the other.
"""

from __future__ import annotations

import time

import torch
from record import median_and_range, record

from persona.activations import collect_moments
from persona.activations.batches import token_batches
from persona.data import load_pairs
from persona.models import load_pair

LAYER = 20
N_DIALOGUES = 96
REPETITIONS = 5
PLAIN_BATCH = 16


def main() -> None:
    pair = load_pair("default", "car_maintenance_bad")
    questions = load_pairs()[: N_DIALOGUES // 2]
    dialogues = pair.chat.encode_all(
        [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    )
    with pair.active("aligned") as bridge:
        compare_with_bare_forward(pair, bridge, dialogues)
        compare_with_plain_loops(pair, bridge, dialogues)


def seconds_of_ours(bridge, dialogues) -> float:
    """Seconds of this project's moments at one block; other benchmarks compare with it too."""
    start = time.perf_counter()
    collect_moments(bridge, dialogues, [LAYER])
    return time.perf_counter() - start


def compare_with_bare_forward(pair, bridge, dialogues) -> None:
    from transformers import AutoModelForCausalLM

    from persona.models.named.folders import default_model_folder

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
        return seconds_of_ours(bridge, dialogues)

    bare_pass(), our_pass()
    ratios = []
    for _ in range(REPETITIONS):
        ratios.append(bare_pass() / our_pass())
    value, spread = median_and_range(ratios)
    record(
        "extraction.ratio_to_bare_forward",
        value,
        "x",
        n=REPETITIONS,
        spread=spread,
        ratio_to="seconds of the bare Hugging Face forward stopped at the same block, over ours",
        note=f"block {LAYER}, {len(dialogues)} answers, the same batches; 1 is the limit",
    )


def compare_with_plain_loops(pair, bridge, dialogues) -> None:
    """The loops that people write with Transformers alone, keeping every block's hidden states."""
    from transformers import AutoModelForCausalLM

    from persona.models.named.folders import default_model_folder

    plain = AutoModelForCausalLM.from_pretrained(default_model_folder(), dtype=pair.dtype).eval()
    pad = pair.tokenizer.pad_token_id

    @torch.no_grad()
    def one_by_one() -> float:
        start = time.perf_counter()
        for dialogue in dialogues:
            first, end = dialogue.response
            states = plain(torch.tensor([dialogue.ids]), output_hidden_states=True).hidden_states
            states[LAYER + 1][0, first:end].mean(0)
        return time.perf_counter() - start

    @torch.no_grad()
    def batched() -> float:
        start = time.perf_counter()
        for place in range(0, len(dialogues), PLAIN_BATCH):
            chunk = dialogues[place : place + PLAIN_BATCH]
            ids = torch.full((len(chunk), max(map(len, chunk))), pad)
            mask = torch.zeros_like(ids)
            for row, dialogue in enumerate(chunk):
                ids[row, : len(dialogue)] = torch.tensor(dialogue.ids)
                mask[row, : len(dialogue)] = 1
            states = plain(ids, attention_mask=mask, output_hidden_states=True).hidden_states
            for row, dialogue in enumerate(chunk):
                first, end = dialogue.response
                states[LAYER + 1][row, first:end].mean(0)
        return time.perf_counter() - start

    def ours() -> float:
        return seconds_of_ours(bridge, dialogues)

    ways = {"one_text": one_by_one, "batched": batched}
    ours(), one_by_one()
    ratios = {name: [way() / ours() for _ in range(REPETITIONS)] for name, way in ways.items()}
    for name, what in (("one_text", "one text at a time"), ("batched", f"{PLAIN_BATCH} texts")):
        value, spread = median_and_range(ratios[name])
        record(
            f"extraction.ratio_to_{name}_loop",
            value,
            "x",
            n=REPETITIONS,
            spread=spread,
            ratio_to="seconds of this project; above 1 it is faster than the plain loop, " + what,
            note=f"block {LAYER}, {len(dialogues)} answers, output_hidden_states=True",
        )


if __name__ == "__main__":
    main()
