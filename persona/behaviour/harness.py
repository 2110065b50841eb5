"""Tasks of lm-evaluation-harness on one condition of a pair, with its edits on.

The harness is given the Hugging Face model that the pair has open, so that adapters stay live and
an intervention edits each of its passes, scoring and generation alike. Needs the extra `eval`.

Source: Gao et al., lm-evaluation-harness (lm-eval 0.4.13).
"""

from __future__ import annotations

import contextlib
import copy
import logging
import random
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from persona.behaviour.scoring import Condition
from persona.errors import DataError, PersonaError, shown
from persona.extras import install_line
from persona.models.hooks import hf_model, model_device
from persona.models.pair import ModelPair

NO_HARNESS = (
    f"this task is run by lm-evaluation-harness, which is not installed: {install_line('eval')}. "
    "Items of your own in a .jsonl file need nothing more"
)
YAML = (".yaml", ".yml")
EVAL_COLUMNS = (
    *("stage", "condition", "task", "kind", "question_id"),
    *("measure", "value", "stderr", "n"),
)
"""Of the tables of `persona eval`: stage "item" has one row an item, "total" one a task."""


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks by name, group or YAML file, whose data is at hand.

    num_fewshot: examples before each question; None for what the task says.
    limit: items of a task, the first ones; None for all.
    chat: whether a question is put in the pair's chat format, its examples as turns before it.
    batch_size: texts that are read together.
    """

    names: tuple[str, ...]
    manager: Any
    num_fewshot: int | None = None
    limit: int | None = None
    chat: bool = True
    batch_size: int = 4

    @classmethod
    def of(cls, names: Sequence[str], **options: Any) -> HarnessTasks:
        """Loads the tasks once, so that what is missing is said before any model is loaded.

        names: of tasks, groups or tags of the harness, or paths of YAML files in its format; such
            a file may name Python functions beside it, which are then run.
        Raises: PersonaError without the harness; DataError for a name that it does not know, and
            for a task whose data is neither at hand nor to be had.
        """
        try:
            from lm_eval.tasks import TaskManager
        except ImportError as error:
            raise PersonaError(NO_HARNESS) from error
        files = [name for name in names if Path(name).suffix in YAML]
        for name in files:
            if not Path(name).is_file():
                raise DataError(f"there is no file {name}")
        # Indexing the tasks that come with the harness takes a while; files need none of them.
        manager = TaskManager(include_defaults=len(files) < len(names))
        for name in names:
            with _quietly():
                _load(manager, name)
        return cls(tuple(names), manager, **options)

    def run(self, pair: ModelPair, condition: Condition, *, seed: int = 0) -> pd.DataFrame:
        """One row per item and per task of each measure, in `EVAL_COLUMNS`.

        A measure is called as the harness calls it, such as "acc"; with a filter other than "none"
        as "exact_match,strict-match". stderr is the harness's own; NaN where it gives none.
        Raises: DataError where the harness refuses a task.
        """
        from lm_eval import evaluate

        with pair.active(condition.side) as model:
            lm = _language_model(pair, model, self.batch_size)
            edits = nullcontext() if condition.intervene is None else condition.intervene(model)
            with edits, _quietly():
                try:
                    # Not simple_evaluate, which asks pip for every package that is installed.
                    found = evaluate(
                        lm,
                        self._fresh(seed),
                        limit=self.limit,
                        bootstrap_iters=1000,
                        apply_chat_template=self.chat,
                        fewshot_as_multiturn=self.chat,
                    )
                except ValueError as error:
                    raise DataError(f"lm-evaluation-harness: {_first_line(error)}") from error
        rows = [*_items(found["samples"]), *_totals(found)]
        table = pd.DataFrame(rows, columns=list(EVAL_COLUMNS))
        return table.assign(condition=condition.name).astype({"value": float, "stderr": float})

    def _fresh(self, seed: int) -> Any:
        """The tasks without the answers of an earlier run, seeded, with their examples set."""
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what tasks draw from
        torch.manual_seed(seed)
        loaded = self.manager.load(list(self.names))
        for task in loaded["tasks"].values():
            own = task.get_config("num_fewshot")
            if self.num_fewshot is not None and own != 0:  # 0 says that it allows none
                task.set_config(key="num_fewshot", value=self.num_fewshot)
            elif own is None:
                task.set_config(key="num_fewshot", value=0)
            task.set_fewshot_seed(seed=seed)
        return loaded


def _load(manager: Any, name: str) -> None:
    """Raises: DataError, one line, for a task that the harness does not know or cannot load."""
    try:
        manager.load([name])
    except KeyError as error:
        raise DataError(
            f"lm-evaluation-harness knows no task {shown(name)}; `lm-eval ls tasks` lists them, "
            "and a file of items of your own ends in .jsonl"
        ) from error
    except OSError as error:  # what the hub and its data sets raise when they are not reached
        raise DataError(
            f"the task {shown(name)} reads a data set that is neither at hand nor to be had: "
            f"{_first_line(error)}. Run it once where there is a network, with the same HF_HOME, "
            "or give a file of your own"
        ) from error
    except ImportError as error:
        raise DataError(
            f"the task {shown(name)} needs a library that is missing: {_first_line(error)}"
        ) from error
    except (TypeError, ValueError) as error:
        raise DataError(f"the task {shown(name)} cannot be loaded: {_first_line(error)}") from error


def _language_model(pair: ModelPair, model: Any, batch_size: int) -> Any:
    """The harness's wrapper of the open side, in the pair's chat format."""
    from lm_eval.models.huggingface import HFLM

    tokenizer = copy.deepcopy(pair.chat.tokenizer)
    tokenizer.chat_template = pair.chat.template
    plain = hf_model(model)
    with _untied(plain), _quietly():
        lm = HFLM(
            pretrained=plain,
            backend="causal",
            tokenizer=tokenizer,
            max_length=pair.chat.max_length,
            batch_size=batch_size,
            chat_template_args=dict(pair.chat.arguments),
        )
    lm._device = model_device(model)
    return lm


@contextlib.contextmanager
def _untied(model: Any) -> Iterator[None]:
    """The harness ties the weights of whatever it is given; under a bridge the names differ."""
    model.tie_weights = lambda *_, **__: None
    try:
        yield
    finally:
        del model.tie_weights


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """No notes of the harness, nor of the hub that tries again and again."""
    loggers = [logging.getLogger(name) for name in ("lm_eval", "huggingface_hub", "datasets")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _items(samples: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """Rows of each item, for measures that are one number an item."""
    for task, of_task in samples.items():
        for sample in of_task:
            for metric in sample["metrics"]:
                value = sample[metric]
                if isinstance(value, bool | int | float) or hasattr(value, "item"):
                    yield {
                        "stage": "item",
                        "task": task,
                        "kind": "",
                        "question_id": f"{task}-{sample['doc_id']}",
                        "measure": _measure(metric, sample["filter"]),
                        "value": float(value),
                        "stderr": float("nan"),
                        "n": 1,
                    }


def _totals(found: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Rows of each task and group: value, standard error, and number of items."""
    counts = found.get("n-samples", {})
    for task, measures in found["results"].items():
        for key, value in measures.items():
            metric, _, name = key.partition(",")
            if not name or metric.endswith("_stderr") or not isinstance(value, int | float):
                continue
            stderr = measures.get(f"{metric}_stderr,{name}")
            yield {
                "stage": "total",
                "task": task,
                "kind": "",
                "question_id": "",
                "measure": _measure(metric, name),
                "value": float(value),
                "stderr": float(stderr) if isinstance(stderr, int | float) else float("nan"),
                "n": int(counts.get(task, {}).get("effective", 0)),
            }


def _measure(metric: str, of_filter: str) -> str:
    return metric if of_filter == "none" else f"{metric},{of_filter}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]
