"""`screen`: which fine-tuning samples would push a model toward the persona, and does the whole?"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data.samples import Answer
from persona.data.shipped import data_hash, load_pairs
from persona.data.types import AnswerPair, Dialogue
from persona.directions.exchange.vectors import listed
from persona.engine import Engine, ShardFolder
from persona.engine.cut import SHARD_SIZE
from persona.errors import DataError, EngineError
from persona.files import atomic_write_text, remove_leftovers, sha256_of_file
from persona.fingerprint import fingerprint_of
from persona.models.load import load_pair
from persona.models.pair import ModelPair
from probes.fitting import FittedProbe
from probes.probe_file import load_probe
from probes.screening import verdict as words
from probes.screening.blocks import BlockReader
from probes.screening.chance import draw_directions
from probes.screening.compared_with import BASELINES, Baseline, engines_of
from probes.screening.labelled import read_reference
from probes.screening.monitored import (
    Monitored,
    ScreenedBy,
    directions_by_layer,
    require_response,
)
from probes.screening.ranking import rank_table, top_samples, write_rows
from probes.screening.reference import ScoreScale, choose_direction, scale_of, with_probe
from probes.screening.stream import read_all
from probes.screening.summary import summarise

ROWS, SUMMARY, READINGS = "screened.jsonl", "summary.json", "readings"
FALSE_ALARM_RATE = 0.01
MAX_NEW_TOKENS = 64
N_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class Screening:
    """What `screen` found.

    table: one row a sample, in the order of the file; columns as `rank_table`.
    summary: JSON-able; what summary.json holds.
    folder: where screened.jsonl and summary.json are, None where no folder was asked for.
    scale: how the projection differences are read.
    """

    table: pd.DataFrame
    summary: Mapping[str, Any]
    folder: Path | None
    scale: ScoreScale

    @property
    def flagged_share(self) -> float:
        """Share of samples whose projection difference is above its threshold."""
        return float(self.summary["flagged"]["by_projection"]) / len(self.table)

    def to_text(self) -> str:
        """The table of the top samples, the verdict, its power, and what it cannot see."""
        return words.summary_text(self.summary)


def screen(
    model: ModelPair | str | Path,
    samples: str | Path | Sequence[Dialogue],
    direction: ScreenedBy,
    *,
    out: str | Path | None = None,
    layer: int | None = None,
    probe: FittedProbe | str | Path | None = None,
    baseline: Baseline = "prompt",
    answer: Answer | None = None,
    reference: Sequence[AnswerPair] | None = None,
    effect: float | None = None,
    false_alarm_rate: float = FALSE_ALARM_RATE,
    skip_bad: bool = False,
    top: int = 20,
    n_draws: int = N_DRAWS,
    max_new_tokens: int = MAX_NEW_TOKENS,
    shard_size: int = SHARD_SIZE,
    token_budget: int | None = None,
    allow_mismatch: bool = False,
    seed: int = 0,
    engine: Engine | None = None,
) -> Screening:
    """Ranks samples by projection difference and by probe, and tests their mean.

    model: a pair, whose aligned side reads, or the name of the aligned model (see `load_pair`).
    samples: a JSONL file (see `persona.data.samples`), or dialogues that end with their answer.
    direction: what to screen by; see `directions_by_layer`.
    out: folder of screened.jsonl and summary.json. Readings are kept there in shards: the same
        call goes on after a stop, and one with another effect or top reads nothing again.
    layer: 0-based block; default the direction's, of several the one that tells the reference's
        bad answers from its good ones best.
    probe: a linear probe of mean responses, or its file; default the direction itself where it is
        one, else a LogisticProbe fitted on the reference.
    baseline: see `probes.screening.compared_with`.
    reference: labelled answer pairs; default the shipped ones. Where the direction was made from
        these very pairs, effect and AUROC flatter it.
    effect: shift of one bad sample in units of the projection; default that of the reference.
    false_alarm_rate: share of ordinary good answers that each of the two flags may strike; holds
        for samples that are like the reference in kind.
    skip_bad: leave lines out that are no samples, and count them.
    engine: where the texts are read, by default in this process; the result is the same.
    Raises: DataError for data that cannot be read, or another job in `out`; SpaceMismatchError for
    a direction or a probe of another model; EngineError for a shard that could not be done.

    Source: Chen et al. 2025, Persona Vectors, section 6. differs: see `baselines`; thresholds,
    random-direction null and power estimate are added.
    """
    if baseline not in BASELINES:
        raise DataError(f"unknown baseline {baseline!r}; one of {', '.join(BASELINES)}")
    if effect is not None and not math.isfinite(effect):
        raise DataError(f"the effect must be finite; got {effect}")
    budget = DEFAULT_TOKEN_BUDGET if token_budget is None else token_budget
    with tempfile.TemporaryDirectory() as scratch, (engine or Engine()).start() as run:
        data = _as_file(samples, Path(scratch))
        sha256 = _hash(data)
        # The second side is never opened, so its weights are never loaded.
        pair = model if isinstance(model, ModelPair) else load_pair(model, model, in_turn=True)
        by = engines_of(pair, baseline)
        apart = next((name for name in by.values() if name is not None), None)
        if apart and engine is not None and engine.name != "local":
            raise EngineError(
                f"{apart} answers and reads in this process alone; screen without workers, or "
                "leave it out"
            )
        candidates, own_probe = directions_by_layer(direction, pair, allow_mismatch=allow_mismatch)
        used_probe = _probe(probe, pair, allow_mismatch) or own_probe
        if layer is not None:
            if layer not in candidates:
                known_blocks = listed(sorted(candidates))
                raise DataError(f"there is no direction at block {layer}; there are {known_blocks}")
            candidates = {layer: candidates[layer]}
        answers = load_pairs() if reference is None else list(reference)
        layers = sorted({*candidates, *(used_probe.layers if used_probe else ())})
        folder = Path(scratch) / "out" if out is None else Path(out)
        known = read_reference(
            pair, answers, layers, baseline, max_new_tokens, budget, folder / READINGS, run
        )
        chosen = choose_direction(candidates, known)
        monitored, probe_scores, probe_auroc = with_probe(chosen, used_probe, known)
        scale = scale_of(monitored, known, probe_scores, probe_auroc, false_alarm_rate)
        random = draw_directions(
            known, chosen.space.layer, false_alarm_rate, n_draws=n_draws, seed=seed
        )
        job = {
            **_facts(pair, monitored),
            "data": sha256,
            "reference": data_hash(answers),
            "baseline": baseline,
            "max_new_tokens": max_new_tokens if baseline == "own" else None,
            "answer": answer,
            "skip_bad": skip_bad,
            "false_alarm_rate": false_alarm_rate,
            "n_draws": n_draws,
            "seed": seed,
            "shard_size": shard_size,
            "token_budget": budget,
            **by,
        }
        reader = BlockReader(pair, monitored, random, baseline, max_new_tokens, budget)
        readings = read_all(
            data,
            reader,
            ShardFolder(folder / READINGS, job, "a screening"),
            answer=answer,
            skip_bad=skip_bad,
            shard_size=shard_size,
            run=run,
        )
        table = rank_table(readings, scale)
        summary = summarise(
            readings,
            table,
            monitored,
            known,
            scale,
            random,
            effect=effect,
            false_alarm_rate=false_alarm_rate,
            seed=seed,
        )
        summary |= {
            "data": str(samples) if isinstance(samples, str | Path) else "dialogues",
            "model": pair.names["aligned"],
            "job": job,
            "top": top_samples(data, table, top, answer),
        }
        if out is not None:
            remove_leftovers(folder)
            write_rows(data, table, folder / ROWS)
            text = json.dumps(summary, indent=2, allow_nan=False)
            atomic_write_text(folder / SUMMARY, text + "\n")
    return Screening(table, summary, None if out is None else folder, scale)


def _as_file(samples: str | Path | Sequence[Dialogue], scratch: Path) -> Path:
    """The samples' own file, or one written of dialogues."""
    if isinstance(samples, str | Path):
        return Path(samples)
    path = scratch / "samples.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{json.dumps({'messages': one.messages})}\n" for one in samples)
    return path


def _hash(path: Path) -> str:
    try:
        return sha256_of_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error


def _probe(
    given: FittedProbe | str | Path | None, pair: ModelPair, allow_mismatch: bool
) -> FittedProbe | None:
    if given is None:
        return None
    if isinstance(given, str | Path):
        given = load_probe(given, pair, allow_mismatch=allow_mismatch)
    require_response(given)
    if not allow_mismatch:
        given.require_fits(pair)
    return given


def _facts(pair: ModelPair, monitored: Monitored) -> dict[str, Any]:
    """What readings depend on of the model, the direction and the probe."""
    return {
        "model": pair.revisions["aligned"],
        "chat_template": pair.chat.fingerprint,
        "dtype": pair.precision,
        "device": pair.device.type,
        "layer": monitored.direction.space.layer,
        "direction": fingerprint_of(monitored.unit),
        "probe": fingerprint_of(monitored.coef, monitored.intercept, monitored.probe_layer),
    }
