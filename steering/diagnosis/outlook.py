"""What a person is told of a diagnosis before it begins, and the line that keeps it true."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import floor
from typing import Any

import psutil
import torch

from persona.errors import ModelError
from persona.models.on_disk import OnDisk
from persona.models.precision import Placement
from persona.run_line import RunLine, in_words
from persona.vllm.on_cards import CARDS, ROOM, Shape, on_cards
from persona.vllm.on_cards import in_words as on_cards_in_words
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.cost import (
    SECONDS_PER_TERA,
    ModelSize,
    TextSize,
    keep_speed,
    known_speed,
    load_seconds,
    peak_bytes,
    tera_operations,
    weight_bytes,
)
from steering.diagnosis.preflight import Ahead, bytes_kept
from steering.diagnosis.run_stages import LOAD, WHAT
from steering.diagnosis.work_plan import Sizes, Work, work_of


@dataclass(frozen=True)
class Outlook:
    """The plan of a run.

    work, tera, seconds: by stage, in order: what is done, 10^12 operations, a guess of the time.
    measured: whether the guess is by an earlier run on this machine.
    peak_bytes: of memory; free_bytes: what there is now. kept_bytes, to_fetch_bytes: of the disk.
    by_vllm: see `by_vllm`.
    """

    model: ModelSize
    work: Mapping[str, Work]
    tera: Mapping[str, float]
    seconds: Mapping[str, float]
    n_tokens: float
    measured: bool
    peak_bytes: float
    free_bytes: float
    kept_bytes: float
    to_fetch_bytes: float
    by_vllm: str = ""

    @property
    def total(self) -> Work:
        return sum(self.work.values(), Work())

    def line(self) -> RunLine:
        """The line of progress of this run."""
        return RunLine(self.seconds, uncorrected=LOAD)

    def learn_from(self, line: RunLine, config: DiagnoseConfig) -> None:
        """Keeps the speed of a finished run for the guess before the next."""
        done = [name for name in line.took if self.tera.get(name)]
        if len(done) == len(self.tera) - 1:  # all but loading; a run may end early
            seconds = sum(line.took[name] for name in done)
            pace = seconds / sum(self.tera[name] for name in done)
            keep_speed(config.placement, self.model, pace)

    def as_json(self) -> dict[str, Any]:
        return {
            "stages": [
                {
                    "name": name,
                    "passes": round(work.passes),
                    "answers": work.answers,
                    "seconds": round(self.seconds[name], 1),
                }
                for name, work in self.work.items()
            ],
            "tokens_a_pass": round(self.n_tokens),
            "seconds": round(sum(self.seconds.values()), 1),
            "from_an_earlier_run": self.measured,
            "peak_bytes": round(self.peak_bytes),
            "free_bytes": round(self.free_bytes),
            "kept_bytes": round(self.kept_bytes),
            "to_fetch_bytes": round(self.to_fetch_bytes),
        }

    @property
    def text(self) -> str:
        """The plan as a table, one line a stage."""
        passes = f"{self.total.passes:,.0f} passes of some {self.n_tokens:.0f} tokens"
        answers = f" and {self.total.answers} answers" if self.total.answers else ""
        found = [f"{len(self.work)} stages, {passes}{answers}:"]
        width = max(map(len, self.work))
        for number, (name, work) in enumerate(self.work.items(), 1):
            parts = [f"{work.passes:,.0f} passes"] * bool(work.passes)
            parts += [f"{work.answers} answers"] * bool(work.answers)
            what = ", ".join([WHAT[name], *parts])
            found.append(f"  {number} {name:<{width}}  {in_words(self.seconds[name]):>7}  {what}")
        source = "by the last run here" if self.measured else "a guess, corrected on the way"
        fetched = f", {_gb(self.to_fetch_bytes)} to fetch" if self.to_fetch_bytes else ""
        found.append(
            f"about {in_words(sum(self.seconds.values()))} ({source}), {_gb(self.peak_bytes)} of "
            f"memory ({_gb(self.free_bytes)} free), {_gb(self.kept_bytes)} on the disk{fetched}"
        )
        if self.by_vllm:
            found.append(self.by_vllm)
        return "\n".join(found)


def estimates_of(line: RunLine) -> dict[str, Any]:
    """What a run was expected to take, and what it took, for its scorecard; seconds.

    after_stage_2: null where it ended before its third stage.
    """
    third = line.stages[2] if len(line.stages) > 2 else ""
    found = {
        "before": line.estimates.get(LOAD),
        "after_stage_2": line.estimates.get(third),
        "took": sum(line.took.values()),
    }
    stages = [
        {"name": name, "expected": round(line.expected[name], 1), "took": round(took, 1)}
        for name, took in line.took.items()
    ]
    rounded = {name: None if one is None else round(one, 1) for name, one in found.items()}
    return {**rounded, "stages": stages}


def outlook_of(config: DiagnoseConfig, ahead: Ahead) -> Outlook:
    """What the run will take, before a weight is loaded.

    Raises: ModelError where the weights alone are larger than the memory of this machine.
    """
    model, text = ModelSize.of(ahead.aligned), TextSize.of(ahead.questions)
    work = work_of(Sizes.of(config, ahead.questions, model.n_layers, ahead.skill))
    tera = {name: tera_operations(one, model, text) for name, one in work.items()}
    weights = weight_bytes(model, config.placement)
    n_checkpoints = 1 + (ahead.finetuned.kind == "folder")
    _require_memory(ahead, config, weights)
    speed = known_speed(config.placement, model)
    pace = speed or SECONDS_PER_TERA.get(config.placement.device.type, SECONDS_PER_TERA["cpu"])
    seconds = {name: pace * cost for name, cost in tera.items()}
    seconds[LOAD] = load_seconds(n_checkpoints * weights)
    return Outlook(
        model,
        work,
        tera,
        seconds,
        text.n_tokens,
        speed is not None,
        peak_bytes(model, config.placement, n_checkpoints),
        float(psutil.virtual_memory().available),
        bytes_kept(ahead.aligned),
        ahead.to_fetch_bytes,
        by_vllm(ahead.aligned, config.vllm, config.placement, n_checkpoints * weights),
    )


def by_vllm(
    model: OnDisk, options: Mapping[str, Any] | None, placement: Placement, held: float
) -> str:
    """What the model takes in vLLM, in one line; empty where vLLM writes nothing.

    Of the card of this machine where there is one, of an H100 where there is none.
    held: bytes of the pair that is read, which stays in this process: on a card it takes of the
        memory that vLLM would have.
    """
    if options is None:
        return ""
    sizes = (
        model.n_parameters,
        model.n_layers,
        model.size("num_key_value_heads", "num_attention_heads", "n_head"),
        model.size("head_dim") or _head_dim(model),
    )
    if None in sizes:
        return ""
    card = CARDS["H100"]
    if torch.cuda.is_available():
        there = torch.cuda.get_device_properties(0)
        card = replace(card, name=there.name, memory=float(there.total_memory))
    n_cards = int(options.get("tensor_parallel_size", 1))
    n_cards *= int(options.get("pipeline_parallel_size", 1))
    shape = Shape(model.name, *sizes)  # type: ignore[arg-type]
    line = on_cards_in_words(shape, card, n_cards)
    beside = f"; the pair that is read here takes {_gb(held)} beside it"
    if placement.device.type != "cuda":
        return line + beside
    left = max(0.0, 1 - (held + ROOM) / card.memory)
    if left * card.memory <= on_cards(shape, card, n_cards).weights + ROOM:
        return f"{line}{beside}, which leaves vLLM too little of that card: give it more cards"
    return f"{line}{beside}, so gpu_memory_utilization can be {floor(100 * left) / 100:.2f} at most"


def _head_dim(model: OnDisk) -> int | None:
    heads = model.size("num_attention_heads", "n_head")
    return None if heads is None or model.d_model is None else model.d_model // heads


def _require_memory(ahead: Ahead, config: DiagnoseConfig, weights: float) -> None:
    if config.placement.device.type != "cpu":
        return
    there = psutil.virtual_memory().total + psutil.swap_memory().total
    if weights > there:
        raise ModelError(
            f"the weights of {ahead.aligned.name} take {_gb(weights)} in "
            f"{config.placement.dtype_name}, and this machine has {_gb(there)} of memory; take a "
            "smaller model, or --dtype nf4"
        )


def _gb(n_bytes: float) -> str:
    return f"{n_bytes / 1e9:.1f} GB"
