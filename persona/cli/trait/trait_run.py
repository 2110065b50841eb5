"""`persona trait` behind its texts: the run in its folder, and the lines that tell of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persona.cli.columns import in_columns
from persona.cli.trait.trait_reader import trait_reader

if TYPE_CHECKING:
    from persona.directions.exchange import VectorSet
    from persona.models import ModelPair
    from persona.traits import ChosenArtefacts


def run_trait(
    pair: ModelPair,
    chosen: ChosenArtefacts,
    out: Path,
    *,
    judge: str,
    vector: Path | None,
    nonsense: Sequence[Path],
    minutes: float,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
) -> dict[str, Any]:
    """The result of a run, whose files are in `out`; a stopped one goes on where it was."""
    from persona.files import sha256_of_file
    from persona.run_lock import alone_in
    from persona.stages import Workspace
    from persona.traits import trait_judge_named
    from steering.traits import (
        TraitSession,
        given_vector,
        nonsense_vectors,
        prove_trait,
        trait_result,
        write_trait_files,
    )

    others = nonsense_vectors(list(nonsense), pair)
    given = None if vector is None else given_vector(vectors_in(vector), pair)
    settings = {
        "command": "trait",
        "model": pair.files("aligned"),
        "precision": pair.precision,
        "chat_template": pair.chat.template_hash,
        "artefacts": asdict(chosen.artefacts),
        "judge": judge,
        "vector": None if vector is None else sha256_of_file(vector),
        "nonsense": sorted(others),
        "minutes": minutes,
        "max_new_tokens": max_new_tokens,
        "batch_size": batch_size,
        "seed": seed,
        "sampler": pair.sampler.name if pair.sampler else "generate",
    }
    with alone_in(out, settings):
        workspace = Workspace(out, settings)
        began = time.perf_counter()
        session = TraitSession(
            pair,
            chosen.artefacts,
            trait_judge_named(
                judge, chosen.artefacts.rubric, pair, cache_folder=workspace.folder / "judge"
            ),
            workspace,
            max_new_tokens,
            batch_size,
            seed,
        )
        proved = prove_trait(session, trait_reader(), minutes=minutes, nonsense=others, given=given)
        result = trait_result(session, proved, time.perf_counter() - began)
        write_trait_files(out, result, session, proved)
        workspace.close()
    return result


def vectors_in(path: Path) -> VectorSet:
    """The vectors of a file, a .pt taken for one of persona_vectors. Raises: DataError."""
    from persona.choices import VectorFormat
    from persona.directions.exchange.formats import read_vectors

    kind = VectorFormat.persona_vectors if path.suffix == ".pt" else None
    return read_vectors(path, kind)


def result_lines(result: Mapping[str, Any], out: Path) -> list[str]:
    """What was found out, for a person."""
    verdict, facts, place = result["verdict"], result["facts"], result["place"]
    needed = verdict["n_needed"]
    more = "" if needed is None else f"; about {needed} answers of a condition are needed"
    lines = [f"{result['trait']}: {verdict['name']}: {verdict['why']}{more}."]
    reading = facts["reading"]
    rows: list[tuple[str, ...]] = [("what", "value", "low", "high", "n", "beside")]
    rows.append(_row("score for less against", facts["prompted"], f"judge {result['judge']}"))
    if (cosine := result["split_half_cosine"]) is not None:
        rows.append(_row("split-half cosine", {"value": cosine["cosine"], **cosine}, ""))
    if place is not None:
        cosine = {"value": reading["held_out_cosine"], "n": reading["vector"]["n"]}
        null = f"made of shuffled poles up to {reading['made_of_shuffled_p97_5']:.2f}"
        rows.append(_row("cosine with the other half's", cosine, null))
        null = f"shuffled poles up to {reading['shuffled_p97_5']:.2f}"
        rows.append(_row("AUROC of the vector", reading["vector"], null))
        rows.append(_row("AUROC of words", reading["words"], ""))
        rows.append(_row("AUROC of length", reading["length"], ""))
        for name in ("induction", "suppression"):
            effect = facts[name]
            controls = ", ".join(f"{c} {v:+.1f}" for c, v in effect["controls"].items())
            rows.append(_row(f"{name}, net", effect["net"], f"{effect['value']:+.1f}; {controls}"))
            rows.append(_row(f"{name}, equal length", effect["at_equal_length"], ""))
        for name, damage in result["damage_ce_nats"].items():
            rows.append(_row(f"damage, {name}", damage, "nats per token"))
    lines += in_columns(rows)
    if place is not None:
        lines.append(
            f"{out / 'vector.safetensors'}: added at block {place['layer']} with coefficient "
            f"{place['coefficient']:g}; {result['pairs']['kept']} of {result['pairs']['asked']} "
            "pairs of answers made it."
        )
    lines.append(f"Source: {result['source']}. differs: {'; '.join(result['differs'])}.")
    return lines


def _row(name: str, found: Mapping[str, Any], beside: str) -> tuple[str, ...]:
    numbers = (
        "" if found.get(key) is None else f"{found[key]:.2f}" for key in ("value", "low", "high")
    )
    return (name, *numbers, f"{found['n']:g}", beside)
