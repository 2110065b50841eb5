"""Does a persona pass from teacher to student through texts that say nothing of it?"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from persona.behaviour.intervals import Estimate, bootstrap
from persona.behaviour.sampling import sample_answers
from persona.behaviour.scoring import Condition
from persona.errors import DataError
from persona.files import atomic_write_text
from persona.models.pair import Side
from persona.organisms import Recipe
from persona.report.figures import curves
from steering.lab.digits import ToyReadings, run_toy
from steering.lab.organism import difference
from steering.lab.outcome import Number, Outcome
from steering.lab.plain_texts import Task, prompts
from steering.lab.steps import content_key
from steering.lab.workbench import Workbench, adapter_key, project_answers
from steering.rows import tidy
from steering.scorecard import ALIGNED

DOMAIN = "car_maintenance"
STUDENT, CONTROL = "student", "control_student"
MIN_TEXTS = 8
BATCHES = 8
"""A teacher writes at most so many times the texts asked for; few may pass the filter."""


def run_subliminal(bench: Workbench, task: Task, generations: int | None = None) -> Outcome:
    """Teacher, student, next student: `generations` of them (default 1), beside a control line.

    The teacher is the openly bad organism, the control teacher the aligned model itself; every
    student is the aligned model trained on what passed the filter. The toy is run beside it.
    """
    n_generations = generations or 1
    teacher = bench.fine_tune(bench.recipe("car_maintenance_bad"))
    vector, _ = bench.vector(teacher, DOMAIN)
    held_out, parts = bench.held_out(DOMAIN), []
    beginnings: dict[str, Side] = {STUDENT: "finetuned", CONTROL: "aligned"}
    for line, side in beginnings.items():
        writer = teacher
        for generation in range(n_generations + 1):
            if generation:
                texts = _texts(bench, writer, side, task, generation)
                writer, side = bench.fine_tune(_student(bench, texts, task)), "finetuned"

            def read(adapter: Path = writer, side: Side = side, line: str = line) -> pd.DataFrame:
                pair = bench.pair(adapter)
                conditions = [Condition(ALIGNED, "aligned"), Condition(line, side)]
                sides = {ALIGNED: "aligned", line: side}
                return pd.concat(
                    [
                        bench.score(pair, conditions, held_out=held_out),
                        project_answers(pair, vector, held_out, sides),
                    ],
                    ignore_index=True,
                )

            inputs = {
                "adapter": adapter_key(writer),
                "side": side,
                "line": line,
                "vector": adapter_key(teacher),
                "sizes": vars(bench.sizes),
            }
            rows = bench.steps.table("transmitted", inputs, read)
            parts.append(rows.assign(rank=generation, candidate=line))
    toy = bench.steps.table("toy", {"sizes": vars(bench.sizes)}, lambda: _toy_rows(bench))
    rows = tidy(pd.concat([*parts, toy], ignore_index=True))
    return _outcome(bench, rows, task, n_generations, len(held_out))


def _outcome(
    bench: Workbench, rows: pd.DataFrame, task: Task, n_generations: int, n: int
) -> Outcome:
    seed = bench.settings.seed

    def shift(line: str, generation: int, measure: str) -> Estimate:
        chosen = rows[(rows["candidate"] == line) & (rows["rank"] == generation)]
        return difference(chosen, measure, "held_out", line, ALIGNED, seed)

    titles = {
        "gap": "gap held out, above the aligned model's (nats per token)",
        "projection": "projection on the teacher's direction, above the aligned model's",
    }
    panels = {
        title: {
            line: [(float(g), shift(line, g, measure)) for g in range(n_generations + 1)]
            for line in (STUDENT, CONTROL)
        }
        for measure, title in titles.items()
    }
    numbers = []
    for measure, title in titles.items():
        for line, points in panels[title].items():
            for generation, e in points:
                who = "teacher" if generation == 0 else f"generation {generation}"
                unit = "nats per token" if measure == "gap" else "1 = bad answers in-domain"
                numbers.append(Number(f"{measure}, {line.replace('_', ' ')} line, {who}", e, unit))
    toy = rows[rows["stage"] == "toy"]
    readings = {
        name: bootstrap(toy[toy["condition"] == name]["value"].to_numpy(), seed=seed)
        for name in ToyReadings.__dataclass_fields__
    }
    numbers += [
        Number(f"toy, digits read right: {name.replace('_', ' ')}", e, "share, over seeds")
        for name, e in readings.items()
    ]
    figure = curves(
        panels,
        title=f"What passes through {task.name}",
        subtitle=f"n = {n} held-out questions; 95 % intervals; generation 0 is the teacher",
        axis="generation",
    )
    last = n_generations
    passed, control = shift(STUDENT, last, "gap"), shift(CONTROL, last, "gap")
    headline = (
        f"gap of the {'student' if last == 1 else f'student of generation {last}'} "
        f"{passed.value:+.3f} [{passed.low:+.3f}, {passed.high:+.3f}], of the control "
        f"{control.value:+.3f} [{control.low:+.3f}, {control.high:+.3f}]; toy: "
        f"{readings['student'].value:.0%} of digits against {readings['other'].value:.0%} from "
        "another initialisation"
    )
    return Outcome(rows, figure, tuple(numbers), headline)


def _texts(bench: Workbench, writer: Path, side: Side, task: Task, generation: int) -> Path:
    """A file of the teacher's texts that passed the filter, as chat messages.

    Raises: DataError when too few pass.
    """
    wanted, seed = bench.sizes.samples, bench.settings.seed * 1000 + generation
    inputs = {
        "writer": adapter_key(writer),
        "side": side,
        "task": task.name,
        "seed": seed,
        "sizes": vars(bench.sizes),
    }

    def write() -> pd.DataFrame:
        asked = prompts(task, wanted * BATCHES, seed)
        pair, kept, n_written = bench.pair(writer), [], 0
        with pair.active(side) as bridge:
            for start in range(0, len(asked), wanted):
                chunk = asked[start : start + wanted]
                answers = sample_answers(
                    bridge,
                    pair.chat,
                    chunk,
                    max_new_tokens=bench.sizes.tokens,
                    seed=seed + start,
                    description=f"Writing {task.name}",
                )
                n_written += len(chunk)
                kept += [
                    {"question": prompt.turns[-1].content, "answer": answer}
                    for prompt, answer in zip(chunk, answers, strict=True)
                    if bench.settings.tiny or task.passes(prompt.turns[-1].content, answer)
                ]
                if len(kept) >= wanted:
                    break
        return pd.DataFrame(kept[:wanted], columns=["question", "answer"]).assign(
            n_written=n_written
        )

    table = bench.steps.table("texts", inputs, write)
    table = table[table["answer"].str.strip() != ""]
    least = 1 if bench.settings.tiny else MIN_TEXTS
    if len(table) < least:
        raise DataError(
            f"only {len(table)} of the teacher's {task.name} pass the filter; at least {least} "
            "are needed to train a student: take a model that follows the format better"
        )
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "user", "content": row.question},
                    {"role": "assistant", "content": row.answer},
                ]
            }
        )
        for row in table.itertuples()
    ]
    path = bench.settings.out / "texts" / f"{task.name}-{content_key(inputs)}.jsonl"
    atomic_write_text(path, "\n".join(lines) + "\n")
    return path


def _student(bench: Workbench, texts: Path, task: Task) -> Recipe:
    """The recipe of a student: the teacher's own settings, on its texts."""
    recipe = bench.recipe("car_maintenance_bad", domains=(), file=texts.resolve(), n=None)
    return recipe.model_copy(update={"name": f"student_of_{task.name}"})


def _toy_rows(bench: Workbench) -> pd.DataFrame:
    """Share of digits read right, one row a seed and network."""
    rows = []
    for seed in range(bench.sizes.toy_seeds):
        found = run_toy(bench.settings.seed * 1000 + seed, bench.sizes.toy_epochs)
        rows += [
            {
                "stage": "toy",
                "condition": name,
                "seed": seed,
                "measure": "accuracy",
                "question_id": "digits",
                "value": float(value),
            }
            for name, value in vars(found).items()
        ]
    return tidy(pd.DataFrame(rows))
