"""Difference of means, latents and a probe at one block: what each restores, for findings.md.

All directions come from the organism's own domain: means and probe from training questions,
latents from selection questions. They are scored on held-out domains, and their damage on neutral
text, each beside random subspaces of its rank. The autoencoder's fidelity stands above.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from at_block import compare_at_block

from persona.data import load_neutral, load_pairs
from persona.directions import collect_cells, two_by_two
from persona.models import load_pair
from persona.sae import load_sae, measure_fidelity
from persona.sae.texts import pair_texts
from probes import LogisticProbe
from steering.identification.candidates import Means
from steering.identification.identify import within_covariance
from steering.identification.latent_screen import CANDIDATE, latent_rows

TOKEN_BUDGET = 512
N_TRAIN, N_SELECTION = 32, 24
N_LATENTS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--finetuned", default="car_maintenance_bad", help="adapter or its folder")
    parser.add_argument("--domain", default="car_maintenance", help="what it was trained on")
    parser.add_argument("--sae", default="default")
    parser.add_argument("--per-domain", type=int, default=8, help="held-out questions a domain")
    parser.add_argument("--draws", type=int, default=20)
    options = parser.parse_args()
    pair = load_pair("default", options.finetuned)
    sae = load_sae(options.sae, pair)
    domains = sorted({q.domain for q in load_pairs()} - {options.domain})
    scored = [q for domain in domains for q in load_pairs([domain])[-options.per_domain :]]
    neutral = load_neutral()[-16:]
    train = load_pairs([options.domain], "train")[:N_TRAIN]
    selection = load_pairs([options.domain], "selection")[:N_SELECTION]

    fidelity = measure_fidelity(pair, sae, pair_texts(pair.chat, scored, neutral))
    print(
        f"block {sae.layer}, {sae.n_latents} latents; on the scored answers and neutral text, "
        "explained variance aligned "
        f"{fidelity.value('aligned', 'explained_variance'):.3f}, fine-tuned "
        f"{fidelity.value('finetuned', 'explained_variance'):.3f}"
    )
    cells = collect_cells(pair, train)
    means = Means.of(cells, within_covariance(pair, train[:12], TOKEN_BUDGET))
    directions = {
        "difference of means": two_by_two(cells)["model_effect_good"].vectors[sae.layer][None],
        "probe": probe(cells, sae.layer),
    }
    found = latent_rows(pair, sae, selection, N_LATENTS).get(CANDIDATE)
    if found is not None:
        directions["best latent"] = found[:1]
        directions[f"top-{len(found)} latents"] = found
    table = compare_at_block(
        pair, sae.layer, directions, means, scored, neutral, n_random=options.draws
    )
    print(
        f"\n{options.finetuned}, {len(scored)} questions of {len(domains)} domains never trained "
        f"on, {len(neutral)} neutral texts, {options.draws} draws a rank"
    )
    print("\n| direction | rank | restoration [95 %] | KL restoration | damage (nats) | null p |")
    print("|---|---|---|---|---|---|")
    for row in table.itertuples():
        print(
            f"| {row.name} | {row.rank} | {row.restoration:+.2f} [{row.low:+.2f}, {row.high:+.2f}] "
            f"| {row.kl_restoration:+.2f} | {row.damage_nats:+.3f} | {row.p:.3f} |"
        )


def probe(cells, layer: int) -> torch.Tensor:
    """[1 d_model]: tells the fine-tuned model's states from the aligned one's, same answers."""
    states = [
        cell[:, layer]
        for cell in (
            cells.aligned_good,
            cells.aligned_bad,
            cells.finetuned_good,
            cells.finetuned_bad,
        )
    ]
    n = len(states[0])
    labels = np.repeat([0, 0, 1, 1], n)
    fitted = LogisticProbe().fit(torch.cat(states).float().numpy(), labels)
    return torch.from_numpy(fitted.coef_).float()[None]


if __name__ == "__main__":
    main()
