"""Does the vector of one fine-tune cure another? The transfer matrix of findings.md.

    python benchmarks/compare_fine_tunes.py seed0=car_maintenance_bad seed1=path/to/adapter

Every vector is made the same way (model effect, refitted, blocks 3 to 28; rank 2: with the answer
effect) from the car questions; restorations are scored on the last questions of every other domain.
"""

from __future__ import annotations

import argparse

from persona.data import load_pairs
from persona.directions import collect_cells, two_by_two
from persona.models import load_pair
from steering.evidence import transfer_matrix, vector_cosines
from steering.identification.candidates import Means, build_vector, refit_candidates
from steering.identification.identify import within_covariance

LAYERS = tuple(range(3, 29))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("fine_tunes", nargs="+", metavar="NAME=ADAPTER")
    parser.add_argument("--per-domain", type=int, default=3, help="held-out questions a domain")
    parser.add_argument("--rank", type=int, choices=(1, 2), default=1)
    options = parser.parse_args()
    adapters = dict(entry.split("=", 1) for entry in options.fine_tunes)
    train = load_pairs(["car_maintenance"], "train")[:32]
    domains = sorted({q.domain for q in load_pairs()} - {"car_maintenance"})
    scored = [q for domain in domains for q in load_pairs([domain])[-options.per_domain :]]

    vectors = {}
    for name, adapter in adapters.items():
        pair = load_pair("default", adapter)
        cells = collect_cells(pair, train)
        covariance = within_covariance(pair, train[:16], 512)
        means = Means.of(cells, covariance)
        effects = two_by_two(cells, n_splits=1)
        candidate = refit_candidates(pair, train, means, effects)[options.rank - 1]
        vectors[name] = build_vector(pair, candidate, means, LAYERS, options.rank)

    loaders = {name: lambda a=a: load_pair("default", a) for name, a in adapters.items()}
    table = transfer_matrix(loaders, vectors, scored)
    cosines = vector_cosines(vectors).groupby(["first", "second"])["cosine"].mean()
    print(f"n = {len(scored)} questions\n")
    print(
        "| vector of | in | shift of the gap | restoration [95 %] | KL restoration | mean cosine |"
    )
    print("|---|---|---|---|---|---|")
    for row in table.itertuples():
        share = f"{row.restoration:+.2f} [{row.low:+.2f}, {row.high:+.2f}]"
        share = "no shift to restore" if row.restoration != row.restoration else share
        shift = f"{row.shift:+.2f} [{row.shift_low:+.2f}, {row.shift_high:+.2f}]"
        cosine = cosines[row.vector, row.fine_tune]
        print(
            f"| {row.vector} | {row.fine_tune} | {shift} | {share} | {row.kl_restoration:+.2f} "
            f"| {cosine:+.2f} |"
        )


if __name__ == "__main__":
    main()
