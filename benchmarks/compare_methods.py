"""Every extraction method on the default organism, as one table of findings.md.

Directions come from the car questions trained on. Each is read at block 20 on held-out questions of
all other domains (does its projection tell bad from good answers of the fine-tuned model?), and
restored over blocks 8 to 28 (does it cure, and at what damage?). Nothing is chosen here.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations import collect_rows
from persona.behaviour.gap import score_neutral, score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data import load_neutral, load_pairs
from persona.data.types import Dialogue, Turn
from persona.directions import Cells, Contrast, collect_cells, orthonormal, two_by_two
from persona.directions.methods import (
    METHODS,
    collect_first_tokens,
    collect_template_positions,
    cross_validated_rank,
    eigendirections,
    first_tokens_difference,
    lora_directions,
    template_position_difference,
)
from persona.directions.reliability import split_half_cosine
from persona.intervals import bootstrap, taken_back
from persona.models import ModelPair, load_pair
from persona.organisms import shipped_adapter
from probes.nulls import null_table
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.identification.attribution import attribution_matrices
from steering.identification.candidates import (
    FixedRows,
    Means,
    build_vector,
    refit_candidates,
)
from steering.identification.identify import within_covariance

READ_AT = 20
LAYERS = tuple(range(8, 29))
EFFECTS = ("answer_effect_finetuned", "model_effect_good")

Rows = Mapping[int, Float[Tensor, "rank d_model"]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--per-domain", type=int, default=2, help="held-out questions a domain")
    options = parser.parse_args()
    pair = load_pair("default", "car_maintenance_bad")
    train = load_pairs(["car_maintenance"], "train")[:40]
    domains = sorted({q.domain for q in load_pairs()} - {"car_maintenance"})
    # From the end of each domain: the demo scores on others.
    scored = [q for domain in domains for q in load_pairs([domain])[-options.per_domain :]]
    read = [q for domain in domains for q in load_pairs([domain])[-16:]]

    cells = collect_cells(pair, train)
    means = Means.of(cells, within_covariance(pair, train[:16], 512))
    found, reliability = directions(pair, train, cells, means)
    reading = readings(pair, read, found)
    curing = restorations(pair, scored, found, means, train, cells)

    print(
        f"| method | AUROC, block {READ_AT} | null p | split-half cosine | restoration [95 %] "
        "| KL restoration | damage, nats |"
    )
    print("|---|---|---|---|---|---|---|")
    for name in curing:
        auroc, p = reading.get(name, ("–", "–"))
        print(f"| {name} | {auroc} | {p} | {reliability.get(name, '–')} | {curing[name]} |")


def directions(
    pair: ModelPair, train: list, cells: Cells, means: Means
) -> tuple[dict[str, Rows], dict[str, str]]:
    """name -> orthonormal rows by block, and the split-half cosine of those that have one."""
    found: dict[str, Rows] = {}
    reliability = {}
    for effect in EFFECTS:
        contrast = Contrast.of_cells(cells, effect, covariance=means.covariance)
        here = contrast.at([READ_AT])
        for method in METHODS:
            rank = 2 if method == "persona_subspace" else 1
            name = f"{method}, {effect}"
            rows = METHODS[method](contrast, rank=rank)
            found[name] = {layer: rows[layer] for layer in LAYERS}
            table = split_half_cosine(here, METHODS[method], rank=rank, n_splits=10)
            reliability[name] = f"{table['cosine'].iloc[0]:.2f}"
    texts = [t.answer for t in load_neutral()[:40]]
    first = first_tokens_difference(*collect_first_tokens(pair, texts))
    found["first tokens of neutral text"] = _units(first)
    prompts = [Dialogue((Turn("user", q.question),), q.id) for q in train]
    sides = {}
    for side in ("aligned", "finetuned"):
        with pair.active(side) as bridge:  # type: ignore[arg-type]
            sides[side] = collect_template_positions(bridge, pair.chat, prompts)
    template = template_position_difference(sides["finetuned"], sides["aligned"])
    found["template position, last"] = _units(template[-1])
    written = lora_directions(shipped_adapter("car_maintenance_bad"), modules=["down_proj"])
    found["LoRA, what down_proj writes"] = {
        d.layer: d.vectors[:1] for d in written if d.layer in LAYERS
    }
    folds = [
        attribution_matrices(pair, train[fold:24:4], {k: means.aligned[k] for k in LAYERS})
        for fold in range(4)
    ]
    choice = cross_validated_rank([fold[READ_AT] for fold in folds], 8)
    print(
        f"eigendirections at block {READ_AT}: cross-validated rank {choice.rank}, gains "
        f"{[round(float(g), 2) for g in choice.gains]} ± "
        f"{[round(float(e), 2) for e in choice.standard_errors]}"
    )
    total = {k: sum(fold[k] for fold in folds) / 4 for k in LAYERS}
    found["attribution eigendirection"] = {k: eigendirections(total[k], 1) for k in LAYERS}
    generator = torch.Generator().manual_seed(0)
    found["random"] = {
        k: orthonormal(torch.randn(1, pair.d_model, generator=generator)) for k in LAYERS
    }
    return found, reliability


def _units(vectors: Float[Tensor, "layer d_model"]) -> Rows:
    return {layer: orthonormal(vectors[layer][None]) for layer in LAYERS}


def readings(pair: ModelPair, questions: list, found: dict[str, Rows]) -> dict[str, tuple]:
    """name -> AUROC and the p against covariance-matched draws, at one block."""
    answers = {}
    with pair.active("finetuned") as bridge:
        for answer in ("good_dialogue", "bad_dialogue"):
            dialogues = pair.chat.encode_all([getattr(q, answer) for q in questions])
            answers[answer] = collect_rows(bridge, dialogues, [READ_AT])
    ids = tuple(q.id for q in questions)
    contrast = Contrast(answers["bad_dialogue"], answers["good_dialogue"], ids, ids)
    table = null_table(contrast, {name: rows[READ_AT][:1] for name, rows in found.items()})
    table = table[table["null"] == "covariance"].set_index("candidate")
    return {name: (f"{row.auroc:.2f}", f"{row.p:.3f}") for name, row in table.iterrows()}


def restorations(
    pair: ModelPair,
    questions: list,
    found: dict[str, Rows],
    means: Means,
    train: list,
    cells: Cells,
) -> dict[str, str]:
    """name -> restoration with its interval, KL restoration and damage, as cells of the table."""
    vectors = {
        name: build_vector(
            pair, FixedRows(name, rows, whitened=True), means, LAYERS, len(rows[READ_AT])
        )
        for name, rows in found.items()
    }
    for refit in refit_candidates(pair, train, means, two_by_two(cells, n_splits=1)):
        vectors[refit.name] = build_vector(pair, refit, means, LAYERS, refit.max_rank)

    conditions = [
        *UNEDITED,
        *(edited(name, "finetuned", restore(vectors[name])) for name in vectors),
    ]
    rows = score_pairs(pair, questions, conditions)
    damage = score_neutral(pair, load_neutral()[-16:], conditions)
    damage = damage[damage["measure"] == "neutral_ce_nats"].groupby("condition")["value"].mean()
    gap, kl = (
        rows[rows["measure"] == measure].pivot(
            index="question_id", columns="condition", values="value"
        )
        for measure in ("gap", "kl_good_nats")
    )
    cells_of = {}
    for name in vectors:
        share = bootstrap(gap[["finetuned", name, "aligned"]].to_numpy(), taken_back)
        cells_of[name] = (
            f"{share.value:+.2f} [{share.low:+.2f}, {share.high:+.2f}] "
            f"| {1 - kl[name].mean() / kl['finetuned'].mean():+.2f} "
            f"| {damage[name] - damage['finetuned']:+.2f}"
        )
    return cells_of


if __name__ == "__main__":
    main()
