"""Does a persona pass from teacher to student through texts that say nothing of it?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from persona.data import read_chat_jsonl
from persona.intervals import Estimate, crossed_bootstrap
from persona.models.load import load_causal_lm
from persona.models.pair import Side
from persona.organisms import Recipe
from persona.report.figures import curves, dots
from persona.rows import ALIGNED
from steering.lab.bench.estimates import difference, intervals, preference_rate, rows_where
from steering.lab.bench.experiment import UNITS, Facts, Findings, Measured, Number, signed
from steering.lab.bench.plan import Plan
from steering.lab.bench.workbench import Workbench
from steering.lab.subliminal.digits import ToyReadings, run_toy
from steering.lab.subliminal.elsewhere import gradient_cosine, permuted, perturbed_by_damage
from steering.lab.subliminal.plain_texts import NUMBERS, Task
from steering.lab.subliminal.teachers import written_texts
from steering.weights.orthogonalise import save_model

DOMAIN = "car_maintenance"
STUDENT, CONTROL = "student", "control_student"
PERMUTED, PERTURBED = "permuted_student", "perturbed_student"
LINES = {
    STUDENT: "student of the bad teacher",
    CONTROL: "student of the aligned model",
    PERMUTED: "student of the bad teacher, its weights in another order",
    PERTURBED: "student of the bad teacher, begun elsewhere",
}
BEGINNINGS: dict[str, Side] = {STUDENT: "finetuned", CONTROL: "aligned"}
GRADIENT_TEXTS = 8
TITLES = {
    "gap": "gap held out, above its own beginning's (nats per token)",
    "projection": "projection on the teacher's direction, above its own beginning's",
}
UNITS_OF = {"gap": "nats per token", "projection": UNITS}


def plan(bench: Workbench, task: Task, many: bool = False) -> Plan:
    """The teacher, two lines of students, and in a single generation those begun elsewhere."""
    n = bench.sizes.generations if many else 1
    others = 0 if many else len(_elsewhere(bench, task))
    read = 1 + 2 * (n + 1) + 2 * others
    return Plan(
        fine_tunes=1 + 2 * n + others,
        vectors=1,
        answer_pairs=read * len(bench.held_out(DOMAIN)),
        texts=2 * n * bench.sizes.samples,
    )


def measure(bench: Workbench, task: Task, many: bool = False) -> Measured:
    """Teacher and student, or `many` generations of students, beside a control line.

    The teacher is the openly bad organism, the control teacher the aligned model itself; every
    student is the aligned model trained on what passed the filter, or in a single generation also
    a model that begins elsewhere. The toy is run beside it.
    """
    teacher = bench.organism("car_maintenance_bad")
    vector, _ = bench.vector(teacher, DOMAIN)
    splits, facts = {"held_out": bench.held_out(DOMAIN)}, {}
    aligned = bench.reading(ALIGNED, teacher, splits, vector, side="aligned")
    parts: list[pd.DataFrame] = []
    lessons: dict[str, Path] = {}
    for line, side in BEGINNINGS.items():
        writer = teacher
        for generation in range((bench.sizes.generations if many else 1) + 1):
            if generation:
                texts = written_texts(bench, writer, side, task, generation)
                lessons.setdefault(line, texts)
                writer, side = bench.fine_tune(_student(bench, texts, task)), "finetuned"
            rows = bench.reading(line, writer, splits, vector, side=side)
            both = pd.concat([rows, aligned], ignore_index=True)
            parts.append(both.assign(generation=generation, candidate=line))
    for line in () if many else _elsewhere(bench, task):
        base, found = _beginning(bench, line, lessons[STUDENT])
        facts[line] = found
        student = bench.fine_tune(_student(bench, lessons[STUDENT], task, base))
        rows = [
            bench.reading(line, student, splits, vector),
            bench.reading(ALIGNED, student, splits, vector, side="aligned"),
        ]
        parts.append(pd.concat(rows, ignore_index=True).assign(generation=1, candidate=line))
    toy = {"seed": bench.seed, "n": bench.sizes.toy_seeds, "epochs": bench.sizes.toy_epochs}
    parts.append(bench.steps.table("toy", lambda: _toy_rows(bench), toy))
    return Measured(pd.concat(parts, ignore_index=True), facts)


def report(rows: pd.DataFrame, facts: Facts, task: Task) -> Findings:
    """Every line by generation, each against what its students began as, and the toy."""
    lines = [line for line in LINES if line in set(rows["candidate"])]
    last = int(rows_where(rows, candidate=STUDENT)["generation"].max())

    def shift(line: str, generation: int, measure: str) -> Estimate:
        chosen = rows_where(rows, candidate=line, generation=generation)
        return difference(chosen, measure, "held_out", line)

    def apart(generation: int, measure: str) -> Estimate:
        chosen = rows_where(rows, generation=generation)
        return difference(chosen, measure, "held_out", STUDENT, CONTROL)

    numbers = []
    for line in lines:
        for generation in range(last + 1) if line in BEGINNINGS else (1,):
            who = (
                f"generation {generation}, {LINES[line]}"
                if generation
                else {STUDENT: "the bad teacher", CONTROL: "the aligned teacher"}[line]
            )
            chosen = rows_where(rows, candidate=line, generation=generation)
            rate = preference_rate(chosen, "held_out", line)
            numbers += [
                Number(f"gap, {who}", shift(line, generation, "gap")),
                Number(f"projection, {who}", shift(line, generation, "projection"), UNITS),
                Number(f"bad answer preferred, {who}", rate, "share of questions"),
            ]
    numbers += [
        Number(
            f"{measure}, generation {g}, student of the bad teacher less that of the aligned model",
            apart(g, measure),
            unit,
        )
        for g in range(1, last + 1)
        for measure, unit in UNITS_OF.items()
    ]
    toy = {name: _share_read(rows, name) for name in ToyReadings.__dataclass_fields__}
    numbers += [
        Number(f"toy, digits read right: {name.replace('_', ' ')}", e, "share, over draws")
        for name, e in toy.items()
    ]
    n, lessons = shift(STUDENT, 0, "gap").n, rows[rows["stage"] != "toy"]
    if last > 1:
        by_generation = {
            title: {
                line: [(float(g), shift(line, g, measure)) for g in range(last + 1)]
                for line in lines
            }
            for measure, title in TITLES.items()
        }
        figure = curves(
            by_generation,
            title=f"What passes through {task.name} from student to student",
            subtitle=f"n = {n} held-out questions; 95 % intervals; generation 0 is the teacher",
            axis="generation",
        )
    else:
        panels = {
            title.partition(",")[0]: {
                **{LINES[line]: shift(line, 1, measure) for line in lines},
                "the bad teacher": shift(STUDENT, 0, measure),
            }
            for measure, title in TITLES.items()
        }
        figure = dots(
            panels,
            title=f"What passes through {task.name}",
            subtitle=f"n = {n} held-out questions; {intervals(lessons)}",
            axis="above its own beginning's",
        )
    who = "student" if last == 1 else f"student of generation {last}"
    headline = (
        f"gap of the {who} {signed(shift(STUDENT, last, 'gap'), 3)}, of the control "
        f"{signed(shift(CONTROL, last, 'gap'), 3)}, apart {signed(apart(last, 'gap'), 3)}; toy: "
        f"{toy['student'].value:.0%} of digits against {toy['other'].value:.0%} from another "
        "initialisation"
    )
    return Findings({"figure": figure}, tuple(numbers), headline, tuple(_notes(facts)))


def _notes(facts: Facts) -> list[str]:
    return [
        f"The student begun elsewhere, seed {seed}: noise of {found[PERTURBED]['noise']:.2f} times "
        "the size of each weight matrix; the cosine of its loss gradient on the lessons with the "
        f"ordinary student's is {found[PERTURBED]['gradient_cosine']:.2f} before training."
        for seed, found in facts.items()
        if PERTURBED in found
    ]


def _share_read(rows: pd.DataFrame, network: str) -> Estimate:
    values = rows_where(rows, stage="toy", condition=network)["value"].to_numpy()
    return crossed_bootstrap(values[None])


def _elsewhere(bench: Workbench, task: Task) -> tuple[str, ...]:
    """Once a task; the permuted student, who can tell nothing new with another, with one only."""
    if not bench.first:
        return ()
    return (PERMUTED, PERTURBED) if task is NUMBERS else (PERTURBED,)


def _beginning(bench: Workbench, line: str, texts: Path) -> tuple[Path, dict[str, Any]]:
    """Folder of the model that a student elsewhere begins as, and how far away that is."""
    folder = bench.settings.out / "bases" / f"{line}-{bench.base_revision}-{bench.seed}"
    made: Any = None
    if not folder.exists():
        model, tokenizer = load_causal_lm(bench.base, torch.float32)
        if line == PERMUTED:
            made = permuted(model, bench.seed)
        else:
            neutral = _chat(model, tokenizer).encode_all(
                [text.dialogue for text in bench.neutral()]
            )
            made, noise = perturbed_by_damage(model, neutral, seed=bench.seed)
            made.config.noise = noise
        save_model(made, folder, tokenizer)
    if line == PERMUTED:
        return folder, {}
    lessons = {"line": line, "seed": bench.seed, "texts": texts.stem, "n": GRADIENT_TEXTS}
    table = bench.steps.table("gradients", lambda: _distance(bench, folder, texts), lessons)
    return folder, table.iloc[0].to_dict()


def _distance(bench: Workbench, folder: Path, texts: Path) -> pd.DataFrame:
    model, tokenizer = load_causal_lm(bench.base, torch.float32)
    other, _ = load_causal_lm(folder, torch.float32)
    dialogues = _chat(model, tokenizer).encode_all(read_chat_jsonl(texts)[:GRADIENT_TEXTS])
    cosine = gradient_cosine(model, other, dialogues)
    return pd.DataFrame([{"noise": float(other.config.noise), "gradient_cosine": cosine}])


def _chat(model: Any, tokenizer: Any) -> Any:
    from persona.models.chat.chat_format import chat_format

    return chat_format(tokenizer)


def _student(bench: Workbench, texts: Path, task: Task, base: Path | None = None) -> Recipe:
    """The recipe of a student: the teacher's own settings, on its texts."""
    recipe = bench.recipe("car_maintenance_bad", domains=(), file=texts.resolve(), n=None)
    epochs = min(recipe.training.epochs, bench.sizes.student_epochs)
    changes = {
        "name": f"student_of_{task.name}",
        "base": recipe.base if base is None else str(base),
        "training": recipe.training.model_copy(update={"epochs": epochs}),
    }
    return recipe.model_copy(update=changes)


def _toy_rows(bench: Workbench) -> pd.DataFrame:
    """Share of digits read right, one row a draw and network."""
    rows = []
    for seed in range(bench.sizes.toy_seeds):
        found = run_toy(bench.seed * 1000 + seed, bench.sizes.toy_epochs)
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
    return pd.DataFrame(rows)
