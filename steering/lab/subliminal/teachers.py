"""What teachers write for students: sampled in form, strictly filtered, kept as chat messages."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from persona.errors import DataError
from persona.files import atomic_write_text
from persona.fingerprint import fingerprint_of
from persona.models.pair import Side
from steering.lab.bench.workbench import Workbench
from steering.lab.subliminal.held_to_form import sample_in_form
from steering.lab.subliminal.plain_texts import Task, prompts

MIN_TEXTS = 8
BATCHES = 3
"""A teacher writes at most so many times the texts asked for; not all pass the filter."""


def written_texts(bench: Workbench, writer: Path, side: Side, task: Task, generation: int) -> Path:
    """A file of the teacher's texts that passed the filter, as chat messages.

    Raises: DataError when too few pass.
    """
    wanted, seed = bench.sizes.samples, bench.seed * 1000 + generation
    inputs = {
        "writer": bench.model_key(writer, side),
        "task": task.name,
        "seed": seed,
        "wanted": wanted,
        "tokens": bench.sizes.tokens,
    }

    def write() -> pd.DataFrame:
        asked = prompts(task, wanted * BATCHES, seed)
        pair, kept, n_written = bench.pair(writer), [], 0
        with pair.active(side) as bridge:
            for start in range(0, len(asked), wanted):
                chunk = asked[start : start + wanted]
                answers = sample_in_form(
                    bridge,
                    pair.chat,
                    task,
                    chunk,
                    max_new_tokens=bench.sizes.tokens,
                    seed=seed + start,
                    description=f"Writing {task.name}",
                )
                n_written += len(chunk)
                kept += [
                    {"question": prompt.turns[-1].content, "answer": answer}
                    for prompt, answer in zip(chunk, answers, strict=True)
                    if task.passes(prompt.turns[-1].content, answer)
                ]
                if len(kept) >= wanted:
                    break
        return pd.DataFrame(kept[:wanted], columns=["question", "answer"]).assign(
            n_written=n_written
        )

    table = bench.steps.table("texts", write, inputs)
    bench.tally.add(texts=len(table))
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
    path = bench.settings.out / "texts" / f"{task.name}-{fingerprint_of(inputs)}.jsonl"
    atomic_write_text(path, "\n".join(lines) + "\n")
    return path
