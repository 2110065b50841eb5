"""The exact sweep of every block and four candidates, in forward passes; its agreement with the
first-order screen.

A forward pass is one of the fine-tuned model over the same texts, which end after the answer tokens
that the sweep reads.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import torch
from exact import Sweep, exact_sweep
from exact_answers import answer_effects
from record import median_and_range, record

from persona.activations.batches import token_batches
from persona.data import load_pairs
from persona.data.types import AnswerPair
from persona.directions import (
    Cells,
    PersonaVector,
    Subspace,
    collect_cells,
    orthonormal,
    two_by_two,
)
from persona.models import ModelPair, load_pair
from persona.models.chat.chat_format import shortened
from steering.identification.attribution import texts_for

CANDIDATES = (
    "model_effect_good",
    "model_effect_bad",
    "answer_effect_aligned",
    "answer_effect_finetuned",
)
REPETITIONS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--questions", type=int, default=32, help="of the evaluation set")
    parser.add_argument("--answer-tokens", type=int, default=4, help="read of each answer")
    options = parser.parse_args()
    pair = load_pair("default", "car_maintenance_bad")
    train = load_pairs(["car_maintenance"], "train")
    cells = collect_cells(pair, train[-24:])
    measure(pair, train[: options.questions], candidates_of(pair, cells), options.answer_tokens)


def candidates_of(pair: ModelPair, cells: Cells) -> dict[str, PersonaVector]:
    """Four effects of the 2x2 at every block, with both models' means on them."""
    aligned, finetuned = cells.aligned_good.mean(0), cells.finetuned_bad.mean(0)
    effects = two_by_two(cells, n_splits=1)

    def subspace(vector: torch.Tensor, layer: int) -> Subspace:
        basis = orthonormal(vector[None])
        return Subspace(basis, basis @ aligned[layer], basis @ finetuned[layer], pair.space(layer))

    return {
        name: PersonaVector(
            {k: subspace(effects[name].vectors[k], k) for k in range(pair.n_layers)}, name
        )
        for name in CANDIDATES
    }


def measure(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    candidates: dict[str, PersonaVector],
    answer_tokens: int,
    repetitions: int = REPETITIONS,
) -> Sweep:
    """The two rows, on these questions."""
    whole = pair.chat.encode_all(texts_for(questions, "gap"))
    cut = [shortened(text, answer_tokens) for text in whole]
    alone = [
        PersonaVector({layer: vector.subspaces[layer]}, name)
        for name, vector in candidates.items()
        for layer in vector.layers
    ]

    def forward(texts: list) -> float:
        start = time.perf_counter()
        with pair.active("finetuned") as bridge, torch.no_grad():
            for batch in token_batches(texts, pair.tokenizer.pad_token_id or 0):
                bridge(batch.ids, attention_mask=batch.attention_mask)
        return time.perf_counter() - start

    def exact() -> float:
        start = time.perf_counter()
        answer_effects(pair, questions, alone, "gap", answer_tokens, 512)
        return time.perf_counter() - start

    forward(cut)
    ratios, over_whole = [], []
    for _ in range(repetitions):
        before, sweep, after = forward(cut), exact(), forward(cut)
        ratios.append(sweep / ((before + after) / 2))
        over_whole.append(sweep / forward(whole))
    value, spread = median_and_range(ratios)
    record(
        "sweep.exact.forward_passes",
        value,
        "passes",
        n=repetitions,
        spread=spread,
        ratio_to="seconds of one forward pass over the same texts",
        note=f"{len(alone)} cells, {len(questions)} questions, {answer_tokens} tokens of each "
        f"answer; {median_and_range(over_whole)[0]:.1f} passes over the whole texts",
    )
    sweep = exact_sweep(pair, questions, candidates, answer_tokens=answer_tokens)
    found = sweep.rank_correlation()
    record(
        "screen.rank_correlation",
        found.value,
        "Spearman",
        n=found.n,
        spread=[found.low, found.high],
        note=f"first-order screen and exact effect over {len(alone)} cells; the spread is the "
        "95 % interval over questions",
    )
    return sweep


if __name__ == "__main__":
    main()
