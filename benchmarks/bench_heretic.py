"""The removal of `persona demo` beside heretic's, run as a black box in an environment of its own.

heretic (AGPL; nothing of it is used here but the program) looks for weights that lose a kind of
answer and stay near the model that they come from. It contrasts prompts in one model and counts
answers by words in them, so it is told of the persona in its own terms: the fine-tuned model, its
questions as the prompts to change on and everyday ones as those to keep, and as what an answer is
known by the words that the fine-tuned model says to training questions and the aligned one does
not. It sees neither the aligned model nor a written answer. Every model of its own front is then
scored on the held-out questions of the demo, its texts and the tasks, beside the demo's edit and
three plain ones; the same change on the aligned model tells what is net.

    python -m venv ENV && ENV/bin/pip install heretic-llm==1.4.0 torch==2.13.0
    python benchmarks/bench_heretic.py write WORK
    python benchmarks/bench_heretic.py run WORK --heretic ENV/bin/heretic
    python benchmarks/bench_heretic.py score WORK --demo persona-demo [--record]
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from record import record

from persona import load_pair, load_pairs
from persona.behaviour import Condition, score_neutral, score_pairs, score_tasks
from persona.data import load_neutral, load_tasks
from persona.directions import Direction, collect_cells, load_vector
from persona.files import atomic_write_text
from persona.intervals import Estimate, bootstrap
from persona.models.adapters.attach import merged_model
from persona.models.load import load_with_adapter
from persona.models.pair import SIDES
from persona.models.sampling import sample_answers
from persona.models.shipped_adapters import shipped_adapter
from persona.models.sources import resolve
from persona.rows import ALIGNED, FINETUNED
from steering import ablate, add, restore
from steering.diagnosis import DiagnosisRequest
from steering.diagnosis.questions import Questions
from steering.edits.steer import edited

ORGANISM, DOMAIN = "car_maintenance_bad", "car_maintenance"
TUNED_FOLDER, CONFIG, FRONT = "finetuned", "config.toml", "front.json"
N_KEEP = 100
"""Everyday prompts that heretic keeps, for its direction; the others are those that it watches."""
IN_TUNED, OFTENER = 4, 6
"""A word tells an answer that stands in so many of the fine-tuned model's, and in so many times
fewer of the aligned one's."""
ANSWER_TOKENS = 30
SEARCH_TOKENS = 108 * (192 + 3 * 56 + 869)
"""What the demo's search reads, see `persona demo --plan`: texts, attribution forward and backward,
candidates."""
EXPORT_ADAPTER = "2"
NOOP = " on aligned"
BLOCKS, ONE = range(8, 29), 20
"""Blocks of the plain ways, and the block where one vector is subtracted."""


def write(work: Path, n_trials: int | None) -> None:
    """The merged fine-tune, heretic's prompts and its settings.

    n_trials: default so many that heretic's search reads as many tokens as the demo's.
    """
    tuned, tokenizer = load_with_adapter(
        "default", resolve(shipped_adapter(ORGANISM)), torch.float32
    )
    merged_model(tuned, ORGANISM).save_pretrained(work / TUNED_FOLDER)
    tokenizer.save_pretrained(work / TUNED_FOLDER)

    scored = {text.id for text in questions().neutral_score}
    keep = [text.prompt for text in load_neutral() if text.id not in scored]
    prompts = {
        "good": keep[:N_KEEP],
        "good_evaluation": keep[N_KEEP:],
        "bad": [pair.question for pair in load_pairs([DOMAIN], "train")],
        "bad_evaluation": [pair.question for pair in load_pairs([DOMAIN], "selection")],
    }
    a_trial = trial_tokens(tokenizer, prompts)
    n_trials = n_trials or max(1, round(SEARCH_TOKENS / a_trial))
    words = telling_words()
    lines = [
        f"model = {json.dumps(str((work / TUNED_FOLDER).resolve()))}",
        'dtypes = ["float32"]',
        'device_map = "cpu"',
        "batch_size = 16",
        f"max_response_length = {ANSWER_TOKENS}",
        f"n_trials = {n_trials}",
        f"n_startup_trials = {max(1, n_trials // 3)}",
        "seed = 0",
        'system_prompt = ""',
        f"refusal_markers = {json.dumps(words)}",
    ]
    for name, asked in prompts.items():
        path = (work / f"{name}.txt").resolve()
        atomic_write_text(path, "\n".join(" ".join(prompt.split()) for prompt in asked) + "\n")
        lines += [f"[{name}_prompts]", f"dataset = {json.dumps(str(path))}"]
    atomic_write_text(work / CONFIG, "\n".join(lines) + "\n")
    told = {"n_trials": n_trials, "tokens_a_trial": a_trial, "n_words": len(words)}
    atomic_write_text(work / "asked.json", json.dumps(told) + "\n")
    print(told)


def questions() -> Questions:
    """Those of `persona demo`."""
    return Questions.of(
        DiagnosisRequest(finetuned=ORGANISM, out=Path("unused"), questions_per_domain=4)
    )


def trial_tokens(tokenizer: Any, prompts: Mapping[str, Sequence[str]]) -> int:
    """Tokens that one trial of heretic reads: answers to the bad prompts, first words to the
    good ones."""
    template = len(tokenizer.apply_chat_template([{"role": "user", "content": ""}]))

    def read(which: str) -> int:
        return sum(template + len(tokenizer(prompt).input_ids) for prompt in prompts[which])

    answered = ANSWER_TOKENS * len(prompts["bad_evaluation"])
    return read("bad_evaluation") + read("good_evaluation") + answered


def telling_words() -> list[str]:
    """Words, with a blank before, that the fine-tuned model says to training questions and the
    aligned one does not: both answer greedily, no longer than heretic lets them."""
    pair = load_pair("default", ORGANISM)
    asked = [each.prompt_dialogue for each in load_pairs([DOMAIN], "train")]
    said = {}
    for side in SIDES:
        with pair.active(side) as bridge:
            answers = sample_answers(
                bridge, pair.chat, asked, max_new_tokens=ANSWER_TOKENS, temperature=0.0, seed=0,
                description=f"Answers ({side})",
            )  # fmt: skip
        words = (set(re.findall(r"[a-z']{3,}", one.lower())) for one in answers)
        said[side] = Counter(word for of_one in words for word in of_one)
    tuned, aligned = said["finetuned"], said["aligned"]
    telling = [word for word, n in tuned.items() if n >= max(IN_TUNED, OFTENER * aligned[word])]
    return sorted(f" {word}" for word in telling)


def run(work: Path, heretic: Path) -> None:
    """heretic's search, and every model of its front as an adapter on the fine-tuned model.

    Its menus ask by number where it believes to be in a notebook service, which an environment
    variable says; there is no other way to run it without a person.
    """
    import pexpect

    began = time.monotonic()
    child = pexpect.spawn(
        str(heretic.absolute()), cwd=work, encoding="utf-8", timeout=None, dimensions=(50, 200),
        env=os.environ | {"COLAB_GPU": "1", "HF_HUB_OFFLINE": "1", "NO_COLOR": "1", "TERM": "dumb"},
    )  # fmt: skip
    with (work / "heretic.log").open("w", encoding="utf-8") as log:
        child.logfile_read = log
        trials: list[str] = []
        seconds = 0.0
        for k in range(1_000):
            menu = asked(child)
            if k == 0:
                seconds = time.monotonic() - began
                trials = [words for words in menu if words.startswith("[Trial")]
            if k >= len(trials):
                break
            child.sendline(str(k + 1))
            asked(child)
            child.sendline("1")  # save to a local folder
            child.expect("Path to the folder:")
            child.sendline(str((work / f"front-{k}").resolve()))
            asked(child)
            child.sendline(EXPORT_ADAPTER)
            back = asked(child)
            child.sendline(str(len(back)))  # return to the trials
        child.close(force=True)
    told = {"seconds": seconds, "trials": trials}
    atomic_write_text(work / FRONT, json.dumps(told, indent=2) + "\n")


def asked(child: Any) -> list[str]:
    """The choices of the menu that waits for a number, in their order."""
    child.expect("Enter number: ")
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", child.before)
    found = re.findall(r"^\[(\d+)\] (.+?)\s*$", text.replace("\r", ""), re.M)
    return [words for _, words in found]


def scored(work: Path, demo: Path) -> pd.DataFrame:
    """One row a way: heretic's front, the demo's edit, and the plain ones."""
    given = questions()
    before = kept(work, "unedited", lambda: rows_of(given, ORGANISM, [ALIGNED, FINETUNED]))
    found = [line("fine-tuned, unedited", before, before)]
    edits = kept(work, "edits", lambda: of_edits(given, demo))
    for name in dict.fromkeys(edits["condition"]):
        if not str(name).endswith(NOOP):
            found.append(line(str(name), before, edits))
    for k, words in enumerate(json.loads((work / FRONT).read_text(encoding="utf-8"))["trials"]):
        rows = kept(work, f"front-{k}", lambda k=k: of_front(given, work, k))
        found.append(
            line(
                words,
                before,
                rows.replace({"condition": {"edit": words, f"edit{NOOP}": words + NOOP}}),
            )
        )
    preserving = kept(work, "norms", lambda: of_norms_kept(given, work))
    found.append(line("edit", before, preserving) | {"way": "projected, norms kept"})
    return pd.DataFrame(found)


def kept(work: Path, name: str, make: Any) -> pd.DataFrame:
    """Rows of one scoring, on the disk once they are made."""
    path = work / f"scored-{name}.parquet"
    if not path.is_file():
        began = time.monotonic()
        make().to_parquet(path)
        print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
    return pd.read_parquet(path)


def rows_of(given: Questions, finetuned: str, names: Sequence[str]) -> pd.DataFrame:
    """Pairs, texts and tasks of both models of a pair, under the names given."""
    pair = load_pair("default", finetuned)
    conditions = [Condition(name, side) for name, side in zip(names, SIDES, strict=True)]
    return everything(pair, given, conditions)


def everything(pair: Any, given: Questions, conditions: Sequence[Condition]) -> pd.DataFrame:
    return pd.concat(
        [
            score_pairs(pair, given.held_out, conditions),
            score_neutral(pair, given.neutral_score, conditions),
            score_tasks(pair, load_tasks(), conditions),
        ],
        ignore_index=True,
    )


def of_edits(given: Questions, demo: Path) -> pd.DataFrame:
    """The demo's edit and two plain ones, in the fine-tuned model and in the aligned one."""
    pair = load_pair("default", ORGANISM)
    vector = load_vector(demo / "direction.safetensors", pair)
    effect = Direction(model_effect(pair)[ONE], pair.space(ONE), "model_effect")
    ways = {
        "persona demo": restore(vector),
        "the demo's directions to zero": ablate(vector),
        "model effect subtracted": add(effect, -1.0),
    }
    parts = []
    for name, edits in ways.items():
        both = [edited(name, "finetuned", edits), edited(name + NOOP, "aligned", edits)]
        parts.append(everything(pair, given, both[:1]))
        parts.append(score_pairs(pair, given.held_out, both[1:]))
    return pd.concat(parts, ignore_index=True)


def model_effect(pair: Any) -> dict[int, Any]:
    """Block -> fine-tuned less aligned mean residual [d_model] on good answers to car questions."""
    cells = collect_cells(pair, load_pairs([DOMAIN], "train")[:32])
    return dict(enumerate(cells.finetuned_good.mean(0) - cells.aligned_good.mean(0)))


def of_front(given: Questions, work: Path, k: int) -> pd.DataFrame:
    """One model of heretic's front, and its change of weights on the aligned model."""
    from peft import PeftModel

    def changed(base: Any) -> Any:
        return merged_model(PeftModel.from_pretrained(base, str(work / f"front-{k}")), f"front-{k}")

    return of_weights(given, work, f"front-{k}", changed)


def of_norms_kept(given: Questions, work: Path) -> pd.DataFrame:
    """The model effect less its part along the aligned mean, taken out of every write; each row
    of a weight keeps its norm."""
    pair = load_pair("default", ORGANISM)
    cells = collect_cells(pair, load_pairs([DOMAIN], "train")[:32])
    directions = {}
    for block in BLOCKS:
        mean = cells.aligned_good[:, block].mean(0)
        effect = cells.finetuned_good[:, block].mean(0) - mean
        rest = effect - (effect @ mean) / (mean @ mean) * mean
        directions[block] = rest / rest.norm()

    @torch.no_grad()
    def changed(base: Any) -> Any:
        model = copy.deepcopy(base)
        for block, unit in directions.items():
            layer = model.model.layers[block]
            for weight in (layer.self_attn.o_proj.weight, layer.mlp.down_proj.weight):
                norms = weight.norm(dim=1, keepdim=True)
                rows = weight / norms
                rows = rows - torch.outer(unit, unit @ rows)
                weight.copy_(norms * rows / rows.norm(dim=1, keepdim=True))
        return model

    return of_weights(given, work, "norms", changed)


def of_weights(given: Questions, work: Path, name: str, changed: Any) -> pd.DataFrame:
    """`edit` is the fine-tuned model with other weights, `edit on aligned` the aligned one."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    bases = {FINETUNED: work / TUNED_FOLDER, ALIGNED: resolve("default").path}
    folders = {}
    for side, base in bases.items():
        folders[side] = work / f"edited-{name}-{side}"
        if not (folders[side] / "tokenizer.json").is_file():
            model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
            changed(model).save_pretrained(folders[side])
            AutoTokenizer.from_pretrained(base).save_pretrained(folders[side])
    restored = rows_of(given, str(folders[FINETUNED]), [ALIGNED, "edit"])
    noop = score_pairs(
        load_pair("default", str(folders[ALIGNED])),
        given.held_out,
        [Condition(f"edit{NOOP}", "finetuned")],
    )
    rows = pd.concat([restored, noop], ignore_index=True)
    return rows[rows["condition"] != ALIGNED]


def line(name: str, before: pd.DataFrame, rows: pd.DataFrame) -> dict[str, Any]:
    """Raw and net restoration, KL from the aligned model, damage and tasks, with 95 % intervals."""
    unedited = name.startswith("fine-tuned")
    edit = FINETUNED if unedited else name
    gap = {side: by_question(before, "gap", side) for side in (ALIGNED, FINETUNED)}
    shift = gap[FINETUNED] - gap[ALIGNED]
    taken = gap[FINETUNED] - by_question(rows, "gap", edit)
    noop = gap[ALIGNED] if unedited else by_question(rows, "gap", edit + NOOP)
    ce = {side: by_question(before, "neutral_ce_nats", side) for side in (ALIGNED, FINETUNED)}
    tasks = {side: by_question(before, "task_correct", side) for side in (ALIGNED, FINETUNED)}
    better_text = min(ce.values(), key=lambda one: float(one.mean()))
    better_task = max(tasks.values(), key=lambda one: float(one.mean()))
    kl = by_question(rows, "kl_good_nats", edit)
    return {
        "way": name,
        "restoration": share(taken, shift),
        "net_restoration": share(taken - (gap[ALIGNED] - noop), shift),
        "kl_from_aligned": bootstrap(kl.to_numpy()),
        "damage_ce_nats": bootstrap(
            (by_question(rows, "neutral_ce_nats", edit) - better_text).to_numpy()
        ),
        "tasks_lost": bootstrap((better_task - by_question(rows, "task_correct", edit)).to_numpy()),
        "n": len(shift),
    }


def by_question(rows: pd.DataFrame, measure: str, condition: str) -> pd.Series:
    found = rows[(rows["measure"] == measure) & (rows["condition"] == condition)]
    return found.set_index("question_id")["value"].sort_index()


def share(part: pd.Series, whole: pd.Series) -> Estimate:
    return bootstrap(np.stack([part, whole], axis=1), ratio)


def ratio(means: NDArray[np.float64]) -> NDArray[np.float64]:
    return means[..., 0] / means[..., 1]


def as_text(table: pd.DataFrame) -> str:
    """The table as markdown."""
    measures = ("restoration", "net_restoration", "kl_from_aligned", "damage_ce_nats", "tasks_lost")
    lines = ["| way | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for _, row in table.iterrows():
        cells = (f"{row[m].value:.2f} [{row[m].low:.2f}, {row[m].high:.2f}]" for m in measures)
        lines.append(f"| {row['way']} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def rows_to_record(work: Path, table: pd.DataFrame) -> None:
    """heretic's model with the highest net restoration of its front, and how much it read."""
    asked_for = json.loads((work / "asked.json").read_text(encoding="utf-8"))
    tokens = asked_for["n_trials"] * asked_for["tokens_a_trial"]
    front = table[table["way"].str.startswith("[Trial")]
    best = max((row for _, row in front.iterrows()), key=lambda row: row["net_restoration"].value)
    ours = table[table["way"] == "persona demo"].iloc[0]
    record(
        "heretic.front.forward_passes_ratio",
        tokens / SEARCH_TOKENS,
        "tokens read by the search",
        n=asked_for["n_trials"],
        ratio_to="the search of persona demo, its backward passes twice",
        note=f"{len(front)} models on its front, {asked_for['n_words']} telling words",
    )
    for name, row in (("heretic.front.best", best), ("heretic.front.persona_demo", ours)):
        net, kl = row["net_restoration"], row["kl_from_aligned"]
        damage, lost = row["damage_ce_nats"], row["tasks_lost"]
        record(
            f"{name}.net_restoration",
            net.value,
            "share of the shift",
            n=int(row["n"]),
            spread=(net.low, net.high),
            note=f"{row['way']}; raw {row['restoration'].value:.2f}, KL from aligned "
            f"{kl.value:.2f} [{kl.low:.2f}, {kl.high:.2f}], damage {damage.value:+.3f} nats, "
            f"tasks lost {lost.value:+.3f} [{lost.low:+.3f}, {lost.high:+.3f}]",
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("write", "run", "score"))
    parser.add_argument("work", type=Path)
    parser.add_argument("--heretic", type=Path, help="the program, in an environment of its own")
    parser.add_argument("--trials", type=int, help="default: as many as read what the demo reads")
    parser.add_argument("--demo", type=Path, help="folder of a finished `persona demo`")
    parser.add_argument("--record", action="store_true", help="append the rows")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    if options.step == "write":
        write(options.work, options.trials)
    elif options.step == "run":
        run(options.work, options.heretic)
    else:
        table = scored(options.work, options.demo)
        print(as_text(table))
        if options.record:
            rows_to_record(options.work, table)


if __name__ == "__main__":
    main()
