"""An autoencoder of the default pair: seconds to train, what it explains, seconds to screen.

300,000 activations of both models at one block, 4,608 latents; the screen ranks all by change
and by predicted cause on 24 questions.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from record import record

from persona.data import load_pairs
from persona.models import load_pair
from persona.sae import TrainingConfig, rank_latents, train_sae
from steering.identification.latent_screen import screen_table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layer", type=int, default=19)
    parser.add_argument("--tokens", type=int, default=300_000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--out", type=Path, help="keep the autoencoder in this folder")
    options = parser.parse_args()
    pair = load_pair("default", "car_maintenance_bad")
    config = TrainingConfig(width=8 * pair.d_model, epochs=options.epochs)
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder) / "sae"
        start = time.perf_counter()
        [sae] = train_sae(pair, [options.layer], out, config, n_tokens=options.tokens)
        seconds = time.perf_counter() - start
    card = sae.card
    note = (
        f"block {sae.layer}, {sae.n_latents} latents, L0 {card['l0']:.0f}, {card['tokens']} "
        f"activations of {card['unique_text_tokens']} tokens of text, {card['epochs']} epochs"
    )
    record("sae.train.seconds", seconds, "s", n=1, note=note)
    for side in ("aligned", "finetuned"):
        value = card["fidelity"][side]["explained_variance"]
        record(f"sae.explained_variance_{side}", value, "share", n=1, note="held-out texts")

    questions = load_pairs(["car_maintenance"], "selection")[:24]
    start = time.perf_counter()
    rank_latents(pair, sae, questions)
    screen_table(pair, sae, questions)
    seconds = time.perf_counter() - start
    note = f"rank and first-order screen of {sae.n_latents} latents, {len(questions)} questions"
    record("sae.screen.seconds", seconds, "s", n=1, note=note)


if __name__ == "__main__":
    main()
