"""Whether the restored model's answers are told from the fine-tuned one's by who sees no column.

Greedy answers of both, at most 120 tokens as in `persona app`, to all selection questions of the
domain that was fine-tuned on, those of the page's examples that are of it among them. Each pair
stands in random order in runs/blind/MODEL/pairs.jsonl, without a name; key.jsonl says which is
which. A judge rates both and is right where it rates the restored one higher; a reader writes
{"0": "A", ...}, the better one of each. A tie, or a pair left out, counts as wrong.

    python benchmarks/bench_blind.py                                       answers and judge
    python benchmarks/bench_blind.py --write                               answers alone
    python benchmarks/bench_blind.py --run persona-demo                    those a run has kept
    python benchmarks/bench_blind.py --choices mine.json --record          a reader's choices
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from record import record
from scipy.stats import binomtest

from persona import load_pair
from persona.behaviour.judging.judge import JudgeItem, prompts_for
from persona.data import load_pairs
from persona.models.sampling import sample_answers
from persona.models.shipped_adapters import car_advice_of
from persona.report.finished_run import read_run
from persona.rows import FINETUNED, RESTORED
from steering.demo import direction_file, edits_of, load_demo_vector
from steering.edits.steer import steered_by

KEPT = Path(__file__).resolve().parents[1] / "runs" / "blind"
DOMAIN, MAX_NEW_TOKENS, SEED = "car_maintenance", 120, 0
JUDGE = "qwen2.5-coder-1.5b"
ROW = "blind.restored_vs_finetuned"


def write(model: str, direction: Path | None, folder: Path) -> None:
    """Both models' answers, in pairs whose order is drawn; the key in a file of its own."""
    name = car_advice_of(model)[0]
    pair = load_pair(model, name, merged=None)
    path = direction_file(direction, None, False, name)
    assert path is not None
    vector = load_demo_vector(path, pair)
    examples = [each.id for each in vector.evidence.examples] if vector.evidence else []
    shown = {each.id for each in vector.evidence.shown} if vector.evidence else set()
    selection = load_pairs([DOMAIN], "selection")
    place = {each: at for at, each in enumerate(examples)}
    questions = sorted(selection, key=lambda each: place.get(each.id, len(place)))
    answers = {}
    for which, edits in (("restored", edits_of(vector, vector.default_setting)), ("finetuned", [])):
        with pair.active("finetuned") as bridge:
            answers[which] = sample_answers(
                bridge,
                pair.chat,
                [each.prompt_dialogue for each in questions],
                intervene=steered_by(edits) if edits else None,
                max_new_tokens=MAX_NEW_TOKENS,
                temperature=0.0,
                seed=SEED,
                description=f"The {which} model's answers",
            )
    asked = [(each.id, each.question) for each in questions]
    _shuffle(folder, asked, answers, set(place), shown)


def write_run(run: Path, folder: Path) -> None:
    """The greedy answers that a finished run has kept to its held-out questions, in pairs."""
    rows = read_run(run).rows
    rows = rows[rows["stage"] == "sample"]
    asked = rows[rows["measure"] == "question"].set_index("question_id")["text"]
    greedy = rows[rows["measure"] == "greedy_answer"]
    said = greedy.pivot(index="question_id", columns="condition", values="text").sort_index()
    answers = {"restored": list(said[RESTORED]), "finetuned": list(said[FINETUNED])}
    _shuffle(folder, [(each, asked[each]) for each in said.index], answers, set(), set())


def _shuffle(
    folder: Path,
    asked: Sequence[tuple[str, str]],
    answers: dict[str, list[str]],
    examples: set[str],
    shown: set[str],
) -> None:
    """Each pair in an order that is drawn, and the key in a file of its own."""
    rng = np.random.default_rng(SEED)
    pairs, key = [], []
    for at, (question_id, question) in enumerate(asked):
        first, second = ("restored", "finetuned")[:: 1 if rng.random() < 0.5 else -1]
        pairs.append(
            {"n": at, "question": question, "A": answers[first][at], "B": answers[second][at]}
        )
        key.append(
            {"n": at, "id": question_id, "restored": "A" if first == "restored" else "B",
             "example": question_id in examples, "shown": question_id in shown}
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    for file, lines in (("pairs.jsonl", pairs), ("key.jsonl", key)):
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / file).write_text(text, encoding="utf-8")


def judged(folder: Path, judge: str, first: int | None = None) -> Iterator[dict[str, Any]]:
    """The judge's ratings of the first pairs, kept as they come, so that a stopped run goes on."""
    from persona.behaviour.judging.local import LocalJudge

    kept = folder / f"judged_{judge}.jsonl"
    known = {row["n"]: row for row in _lines(kept)} if kept.is_file() else {}
    reader = None
    for pair in _lines(folder / "pairs.jsonl")[:first]:
        if pair["n"] not in known:
            reader = reader or LocalJudge(judge)
            rated = [
                reader.numbers([prompts_for(JudgeItem(pair["question"], pair[side].strip()))[0]])[0]
                for side in "AB"
            ]
            known[pair["n"]] = {"n": pair["n"], "A": rated[0], "B": rated[1]}
            with kept.open("a", encoding="utf-8") as file:
                file.write(json.dumps(known[pair["n"]]) + "\n")
        yield known[pair["n"]]


def choice_of(rated: dict[str, Any]) -> str:
    """The side that was rated higher; "" for a tie, or where the judge gave no number."""
    first, second = rated["A"], rated["B"]
    if first is None or second is None or first == second:
        return ""
    return "A" if first > second else "B"


def told_apart(choices: dict[int, str], key: list[dict[str, Any]]) -> dict[str, Any]:
    """Share of right choices with its Clopper-Pearson interval: of the page's examples, and all."""
    groups = {
        "shown": [row for row in key if row["shown"]],
        "examples": [row for row in key if row["example"]],
        "all": key,
    }
    found = {}
    for name, rows in groups.items():
        if not rows:
            continue
        right = sum(choices.get(row["n"], "") == row["restored"] for row in rows)
        interval = binomtest(right, len(rows)).proportion_ci(0.95, method="exact")
        found[name] = {
            "right": right, "n": len(rows), "share": right / len(rows),
            "low": float(interval.low), "high": float(interval.high),
        }  # fmt: skip
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="default", help="whose bad car advice comes along")
    parser.add_argument("--direction", type=Path, help="default: what comes along")
    parser.add_argument(
        "--run", type=Path, help="a finished run, whose kept answers to held-out questions are read"
    )
    parser.add_argument("--judge", default=JUDGE)
    parser.add_argument("--first", type=int, help="of these many pairs, the page's examples first")
    parser.add_argument("--write", action="store_true", help="write the answers and stop")
    parser.add_argument("--choices", type=Path, help="of a reader, in place of the judge's")
    parser.add_argument("--record", action="store_true", help="append the row")
    options = parser.parse_args()
    folder = KEPT / (f"{options.run.name}-held-out" if options.run else options.model)
    if not (folder / "key.jsonl").is_file():
        if options.run:
            write_run(options.run, folder)
        else:
            write(options.model, options.direction, folder)
    if options.write:
        return
    if options.choices:
        read = json.loads(options.choices.read_text(encoding="utf-8"))
        choices, who, name = {int(n): side for n, side in read.items()}, "a reader", f"{ROW}.reader"
    else:
        choices = {
            rated["n"]: choice_of(rated) for rated in judged(folder, options.judge, options.first)
        }
        who, name = f"local:{options.judge}", ROW
    found = told_apart(choices, _lines(folder / "key.jsonl")[: options.first])
    for group, of in found.items():
        print(f"{group}: {of['right']} of {of['n']} [{of['low']:.2f}, {of['high']:.2f}]")
    if options.record:
        if options.model != "default":  # of which size it is, as in the names of other rows
            name = name.replace("blind.", f"blind.{options.model.rsplit('-', 1)[-1]}.", 1)
        of, asked = found["all"], f"{found['all']['n']} selection questions"
        if options.run:
            name, asked = f"{name}.held_out", "the held-out questions that the run answers"
        parts = [
            f"; of {words} {found[group]['right']} of {found[group]['n']}"
            for group, words in (("shown", "those on the page"), ("examples", "the run's own"))
            if group in found
        ]
        record(
            name, of["share"], "share right", n=of["n"], spread=(of["low"], of["high"]),
            note=f"{who}, {options.model}, {asked}, ties wrong; spread is the Clopper-Pearson "
            f"interval{''.join(parts)}",
        )  # fmt: skip


if __name__ == "__main__":
    main()
