"""`persona eval`: tasks on the aligned, the fine-tuned and the restored model, side by side."""

from __future__ import annotations

import io
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.behaviour.forced_choice import score_tasks, task_accuracy
from persona.behaviour.harness import EVAL_COLUMNS, HarnessTasks
from persona.behaviour.scoring import UNEDITED, Condition
from persona.data.jsonl import read_json
from persona.data.tasks import TaskItem, load_tasks, read_tasks, tasks_hash
from persona.directions import PersonaVector
from persona.directions.exchange.harness_steered import write_steered
from persona.directions.storage import load_vector, tool_version
from persona.errors import DataError, shown
from persona.files import atomic_write_bytes, atomic_write_text, sha256_of_file
from persona.models import ModelPair, Placement, load_pair
from persona.models.hooks import hf_model
from persona.models.sources import resolve, shipped_or_ref, short_name
from persona.rows import ALIGNED, FINETUNED, RESTORED
from persona.run_lock import alone_in
from persona.stages import Workspace
from steering.edits.from_directions import restore
from steering.edits.steer import edited

SCHEMA_VERSION = 1
SHIPPED_TASKS = "tasks"
"""Name of the items that come along."""
STEERED = "steered.pt"

logger = logging.getLogger("persona")


@dataclass(frozen=True)
class EvalConfig:
    """What to evaluate, on what.

    direction: a vector of a diagnosis, for the restored model; None for the two models alone.
    tasks: "tasks" for the items that come along, .jsonl files of items, and names, groups or YAML
        files of lm-evaluation-harness.
    limit: items of a task, the first ones; of a .jsonl file, of each kind.
    num_fewshot, chat, batch_size: of the harness, see `HarnessTasks`; items of a .jsonl file are
        always put in the pair's chat format, without examples.
    """

    aligned: str | None
    finetuned: str
    out: Path
    direction: Path | None = None
    tasks: tuple[str, ...] = (SHIPPED_TASKS,)
    limit: int | None = None
    num_fewshot: int | None = None
    chat: bool = True
    batch_size: int = 4
    seed: int = 0
    placement: Placement | None = None
    chat_template: Path | None = None
    template_arguments: Mapping[str, Any] = field(default_factory=dict)
    allow_mismatch: bool = False
    proof: bool = True
    token_budget: int = DEFAULT_TOKEN_BUDGET


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate_tasks` found: the fields of results.json, and a row an item and a total."""

    results: dict[str, Any]
    rows: pd.DataFrame


def models_of_run(run: str | Path) -> tuple[str, str, Path | None, dict[str, Any]]:
    """Aligned and fine-tuned model, direction, and template arguments of a finished diagnosis.

    A model that comes by a short name has that one, since its hub may be out of reach.
    The direction is None where the two models do not differ.
    Raises: DataError where the folder holds no finished diagnosis.
    """
    path = Path(run) / "scorecard.json"
    if not path.is_file():
        raise DataError(f"{run} holds no scorecard.json; a folder of `persona diagnose` is needed")
    try:
        models = read_json(path)["models"]
        told = dict(models.get("chat_template_arguments") or {})
        names = short_name(str(models["aligned"])), str(models["finetuned"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path} does not say which models it is of") from error
    direction = Path(run) / "direction.safetensors"
    return *names, direction if direction.is_file() else None, told


def evaluate_tasks(config: EvalConfig) -> Evaluation:
    """Runs every task under every condition and writes results.json, table.md and rows.parquet.

    Conditions: aligned, finetuned and, with a direction, finetuned_restored. A run that was stopped
    goes on with the first condition that is not finished. Where the format of lm-evaluation-harness
    can hold the restoration, steered.pt is that too; else the reason is logged.

    Raises: PersonaError, one line, for bad input, before any model is loaded where that can be.
    """
    start = time.perf_counter()
    own = {_name(task): _own_items(task, config.limit) for task in config.tasks if _is_own(task)}
    theirs = [task for task in config.tasks if not _is_own(task)]
    if len(own) + len(theirs) < len(config.tasks) or len(set(theirs)) < len(theirs):
        raise DataError("a task, or two files of one name, are given twice")
    harness = _harness(config, theirs) if theirs else None
    if config.direction is not None:
        load_vector(config.direction)
    pair = load_pair(
        config.aligned,
        config.finetuned,
        placement=config.placement,
        chat_template=config.chat_template,
        template_arguments=config.template_arguments,
        allow_mismatch=config.allow_mismatch,
        proof=config.proof,
    )
    conditions, vector = [*UNEDITED], None
    if config.direction is not None:
        vector = load_vector(config.direction, pair, allow_mismatch=config.allow_mismatch)
        conditions.append(edited(RESTORED, "finetuned", restore(vector)))
    settings = _settings(config, pair, own, theirs)
    with alone_in(config.out, settings):
        workspace = Workspace(config.out, settings)
        parts = []
        for condition in conditions:
            for task, items in own.items():
                parts.append(
                    workspace.table(
                        f"{condition.name}-own-{task}",
                        lambda c=condition, t=task, i=items: _own_rows(  # type: ignore[misc]
                            pair, t, i, c, config.token_budget
                        ),
                    )
                )
            if harness is not None:
                parts.append(
                    workspace.table(
                        f"{condition.name}-harness",
                        lambda c=condition: harness.run(pair, c, seed=config.seed),  # type: ignore[misc]
                    )
                )
        rows = pd.concat(parts, ignore_index=True)[list(EVAL_COLUMNS)]
        results: dict[str, Any] = {
            "schema_version": SCHEMA_VERSION,
            "models": {
                "aligned": pair.names["aligned"],
                "finetuned": pair.names["finetuned"],
                "revisions": dict(pair.revisions),
            },
            "dtype": pair.precision,
            "direction": None if config.direction is None else str(config.direction),
            "steered_file": None if vector is None else _steered(vector, pair, config),
            "limit": config.limit,
            "num_fewshot": config.num_fewshot,
            "chat": config.chat,
            "seed": config.seed,
            "tasks": _by_task(rows, config.seed),
            "versions": {"personascope": tool_version(), "lm_eval": tool_version("lm_eval")},
            "seconds": round(time.perf_counter() - start, 1),
        }
        atomic_write_text(
            config.out / "results.json", json.dumps(results, indent=2, allow_nan=False) + "\n"
        )
        atomic_write_text(config.out / "table.md", markdown_table(results) + "\n")
        _write_rows(config.out / "rows.parquet", rows)
        workspace.close()
    return Evaluation(results, rows)


def markdown_table(results: Mapping[str, Any]) -> str:
    """Task, measure and condition: value, standard error, and the difference to both models."""
    lines = [table_head(), ["---", "---", "---", *["---:"] * 5]]
    return "\n".join(f"| {' | '.join(row)} |" for row in (*lines, *table_rows(results)))


def table_head() -> list[str]:
    """The columns of `table_rows`."""
    return ["task", "measure", "condition", "value", "stderr", "n", "minus aligned", "minus tuned"]


def table_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """One row of words for every task, measure and condition."""
    return [
        [
            entry["task"] + (f": {entry['kind']}" if entry["kind"] else ""),
            entry["measure"],
            name,
            *("" if one[key] is None else f"{one[key]:.3f}" for key in ("value", "stderr")),
            str(one["n"]),
            _in_words(one["minus_aligned"]),
            _in_words(one["minus_finetuned"]),
        ]
        for entry in results["tasks"]
        for name, one in entry["conditions"].items()
    ]


def _in_words(difference: Mapping[str, float] | None) -> str:
    if difference is None:
        return ""
    value, low, high = (difference[key] for key in ("value", "low", "high"))
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]"


def _is_own(task: str) -> bool:
    return task == SHIPPED_TASKS or Path(task).suffix == ".jsonl"


def _name(task: str) -> str:
    return task if task == SHIPPED_TASKS else Path(task).stem


def _own_items(task: str, limit: int | None) -> list[TaskItem]:
    items = load_tasks() if task == SHIPPED_TASKS else read_tasks(task)
    if limit is None:
        return items
    kinds: dict[str, int] = {}
    kept = []
    for item in items:
        kinds[item.kind] = kinds.get(item.kind, 0) + 1
        if kinds[item.kind] <= limit:
            kept.append(item)
    return kept


def _harness(config: EvalConfig, names: Sequence[str]) -> HarnessTasks:
    return HarnessTasks.of(
        names,
        num_fewshot=config.num_fewshot,
        limit=config.limit,
        chat=config.chat,
        batch_size=config.batch_size,
    )


def _settings(
    config: EvalConfig, pair: ModelPair, own: Mapping[str, list[TaskItem]], theirs: Sequence[str]
) -> dict[str, Any]:
    """Everything that the rows depend on."""
    return {
        "models": {side: pair.files(side) for side in ("aligned", "finetuned")},
        "chat_template": pair.chat.fingerprint,
        "dtype": pair.precision,
        "direction": None if config.direction is None else sha256_of_file(config.direction),
        "own": {name: tasks_hash(items) for name, items in own.items()},
        "harness": [
            name if not Path(name).is_file() else f"{name} {sha256_of_file(Path(name))}"
            for name in theirs
        ],
        "lm_eval": tool_version("lm_eval") if theirs else None,
        "limit": config.limit,
        "num_fewshot": config.num_fewshot,
        "chat": config.chat,
        "seed": config.seed,
        "token_budget": config.token_budget,
    }


def _own_rows(
    pair: ModelPair, task: str, items: Sequence[TaskItem], condition: Condition, budget: int
) -> pd.DataFrame:
    """Items and totals of items of our own, of the whole file and of each kind."""
    found = score_tasks(
        pair,
        items,
        [condition],
        token_budget=budget,
        description=f"Scoring {task} ({condition.name})",
    )
    rows = found.rename(columns={"domain": "kind"}).assign(
        stage="item", task=task, stderr=math.nan, n=1
    )
    kinds = rows["kind"].unique()
    totals = [
        _total(part, kind)
        for kind, of_kind in (
            ("", rows),
            *((k, rows[rows["kind"] == k]) for k in kinds if len(kinds) > 1),
        )
        for _, part in of_kind.groupby("measure", sort=False)
    ]
    return pd.concat([rows, pd.DataFrame(totals)], ignore_index=True)[list(EVAL_COLUMNS)]


def _total(rows: pd.DataFrame, kind: str) -> dict[str, Any]:
    """Mean of a measure over its items; stderr: standard deviation (n - 1) / sqrt(n)."""
    values = rows["value"].to_numpy(dtype=np.float64)
    n = len(values)
    first = rows.iloc[0]
    return {
        "stage": "total",
        "condition": first["condition"],
        "task": first["task"],
        "kind": kind,
        "question_id": "",
        "measure": first["measure"],
        "value": float(values.mean()),
        "stderr": float(values.std(ddof=1) / math.sqrt(n)) if n > 1 else math.nan,
        "n": n,
    }


def _by_task(rows: pd.DataFrame, seed: int) -> list[dict[str, Any]]:
    """The `tasks` of results.json: task, kind and measure -> every condition's numbers."""
    totals = rows[rows["stage"] == "total"]
    items = rows[rows["stage"] == "item"].assign(domain=lambda r: r["kind"])
    found = []
    for (task, kind, measure), of_measure in totals.groupby(
        ["task", "kind", "measure"], sort=False
    ):
        paired = items[(items["task"] == task) & (items["measure"] == measure)]
        compared = (
            task_accuracy(paired, measure=measure, kind=kind or None, seed=seed)
            if len(paired) and paired["value"].notna().all()
            else {}
        )
        conditions = {}
        for total in of_measure.itertuples():
            beside = compared.get(total.condition)
            conditions[total.condition] = {
                "value": _finite(total.value),
                "stderr": _finite(total.stderr),
                "n": int(total.n),
                "minus_aligned": _interval(beside and beside.minus_aligned, total.condition),
                "minus_finetuned": _interval(
                    beside and beside.minus_finetuned, total.condition, FINETUNED
                ),
            }
        found.append({"task": task, "kind": kind, "measure": measure, "conditions": conditions})
    return found


def _finite(number: float) -> float | None:
    """JSON has no NaN: a measure that is undefined, or has no standard error, is null."""
    return float(number) if math.isfinite(number) else None


def _interval(estimate: Any, condition: str, model: str = ALIGNED) -> dict[str, float] | None:
    """None of a model beside itself."""
    if estimate is None or condition == model:
        return None
    return {key: value for key, value in asdict(estimate).items() if key != "n"}


def _write_rows(path: Path, rows: pd.DataFrame) -> None:
    buffer = io.BytesIO()
    rows.to_parquet(buffer, index=False)
    atomic_write_bytes(path, buffer.getvalue())


def _steered(vector: PersonaVector, pair: ModelPair, config: EvalConfig) -> str | None:
    """Name of the harness's own file of the restoration; None where its format cannot hold it."""
    path = config.out / STEERED
    path.unlink(missing_ok=True)
    try:
        source = resolve(shipped_or_ref(config.finetuned))
        below = _module_below(pair, adapter=source.kind == "adapter")
        write_steered(vector, path, lambda layer: f"{below}.{layer}")
    except DataError as error:
        logger.info("%s is not written: %s", STEERED, error)
        return None
    logger.info(
        "%s: for `lm-eval run --model steered`; it steers the first token of a text too, which the "
        "numbers here leave alone",
        path,
    )
    return STEERED


def _module_below(pair: ModelPair, *, adapter: bool) -> str:
    """Where the blocks lie below `base_model` of the model that the harness loads.

    adapter: it loads the fine-tune as an adapter on the aligned model, one module further down.
    """
    with pair.active("finetuned") as model:
        plain = hf_model(model)
        prefix = plain.base_model_prefix
        trunk = getattr(plain, prefix)
        name = next((n for n in ("layers", "h") if hasattr(trunk, n)), None)
    if name is None:
        raise DataError(f"where {shown(type(trunk).__name__)} keeps its blocks is not known")
    return f"model.{prefix}.{name}" if adapter else name
