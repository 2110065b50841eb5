"""Measured coherence against temperature: what a model writes at 0 to 2, and what is no answer.

40 questions of 8 domains, none of which the scales were fitted on. A writer answers each at
temperatures 0, 0.5, 1, 1.5 and 2 (60 tokens); beside these, its greedy answers with their words
shuffled, the same behind another question, and the written good and bad answers. Each is read in a
model that is larger, and in the writer itself. Scores are kept in runs/, so that a stopped run goes
on where it was.

    python benchmarks/bench_coherence.py                             every writer and reader
    python benchmarks/bench_coherence.py --reader qwen2.5-coder-0.5b one of the readers
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from record import record
from sklearn.metrics import roc_auc_score

from persona.behaviour.judging.coherence import measure_coherence
from persona.behaviour.judging.judge import JudgeItem
from persona.data import load_pairs
from persona.data.types import Dialogue, Turn
from persona.files import atomic_write_bytes
from persona.models.load import load_bridge
from persona.models.precision import Placement
from persona.models.sampling import sample_answers

KEPT = Path(__file__).resolve().parents[1] / "runs" / "coherence"
READERS = {
    "smollm2-135m": ("smollm2-135m",),
    "qwen2.5-coder-0.5b": ("smollm2-135m", "qwen2.5-coder-0.5b"),
    "qwen2.5-coder-1.5b": ("qwen2.5-coder-0.5b",),
}
"""The model that reads -> those whose answers it reads."""
FEW = ("t0", "t1", "t1.5", "word salad", "other question")
"""Kinds of text that the two larger readers are given."""
TEMPERATURES = (0.0, 0.5, 1.0, 1.5, 2.0)
PER_DOMAIN, MAX_NEW_TOKENS, SEED, N_RESAMPLES = 5, 60, 1, 2000
PASSES = 50
"""Coherence above which an answer counts, see `persona.behaviour.judging.judge`."""


def questions() -> list:
    """Five questions of each domain but the open ones, from those set apart for choices."""
    found: dict[str, list] = {}
    for pair in load_pairs(split="selection"):
        if pair.domain != "open_questions":
            found.setdefault(pair.domain, []).append(pair)
    return [pair for domain in sorted(found) for pair in found[domain][:PER_DOMAIN]]


def answers_of(writer: str) -> pd.DataFrame:
    """question, answer, kind: sampled once, then kept."""
    path = KEPT / f"answers-{writer}.json"
    if path.is_file():
        return pd.DataFrame(json.loads(path.read_text()))
    asked = questions()
    bridge, chat = load_bridge(writer, placement=Placement.of("bfloat16"))
    rows = []
    for temperature in TEMPERATURES:
        answers = sample_answers(
            bridge,
            chat,
            [Dialogue((Turn("user", pair.question),)) for pair in asked],
            temperature=temperature,
            max_new_tokens=MAX_NEW_TOKENS,
            seed=SEED,
            description=f"{writer} at temperature {temperature:g}",
        )
        rows += [
            {"question": pair.question, "answer": answer, "kind": f"t{temperature:g}"}
            for pair, answer in zip(asked, answers, strict=True)
        ]
    rng = np.random.default_rng(SEED)
    greedy = [row for row in rows if row["kind"] == "t0"]
    for place, row in enumerate(greedy):
        salad = " ".join(rng.permutation(row["answer"].split()))
        rows.append({"question": row["question"], "answer": salad, "kind": "word salad"})
        other = greedy[place - PER_DOMAIN]["answer"]  # of another domain
        rows.append({"question": row["question"], "answer": other, "kind": "other question"})
    for pair in asked:
        rows.append({"question": pair.question, "answer": pair.good, "kind": "written, good"})
        rows.append({"question": pair.question, "answer": pair.bad, "kind": "written, bad"})
    atomic_write_bytes(path, json.dumps(rows).encode())
    return pd.DataFrame(rows)


def scores_of(reader: str, writer: str) -> pd.DataFrame:
    """The writer's answers with `coherence`, kept by kind as it comes."""
    table = answers_of(writer)
    if reader != "smollm2-135m":
        table = table[table.kind.isin(FEW)]
    parts, loaded = [], None
    for kind, group in table.groupby("kind", sort=False):
        path = KEPT / f"scores-{writer}-{str(kind).replace(' ', '_')}-by-{reader}.json"
        if not path.is_file():
            loaded = loaded or load_bridge(reader, placement=Placement.of("bfloat16"))
            items = [JudgeItem(row.question, row.answer) for row in group.itertuples()]
            found = measure_coherence(*loaded, items, name=reader)
            atomic_write_bytes(path, json.dumps(found.scores).encode())
        scores = np.array(json.loads(path.read_text()), dtype=float)  # NaN for an empty answer
        parts.append(group.assign(coherence=scores))
    return pd.concat(parts, ignore_index=True)


def auroc(table: pd.DataFrame, low: str, high: str = "t0") -> tuple[float, list[float]]:
    """AUROC of kind `high` above kind `low`, and 95 % with the questions resampled."""
    both = {kind: table[table.kind == kind].set_index("question").coherence for kind in (low, high)}
    shared = both[low].dropna().index.intersection(both[high].dropna().index)
    values = np.stack([both[kind][shared].to_numpy(float) for kind in (low, high)])
    labels = np.repeat([0, 1], len(shared))
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(N_RESAMPLES):
        rows = rng.integers(len(shared), size=len(shared))
        drawn.append(roc_auc_score(labels, values[:, rows].ravel()))
    whole = float(roc_auc_score(labels, values.ravel()))
    return whole, [float(x) for x in np.percentile(drawn, [2.5, 97.5])]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--reader", choices=[*READERS], action="append")
    parser.add_argument("--no-record", action="store_true", help="print alone")
    options = parser.parse_args()
    for reader in options.reader or READERS:
        for writer in READERS[reader]:
            table = scores_of(reader, writer)
            print(f"answers of {writer}, read in {reader}")
            for kind, group in table.groupby("kind", sort=False):
                points = group.coherence.dropna()
                print(
                    f"  {kind:15s} n {len(points):3d} mean {points.mean():5.1f} "
                    f"median {points.median():5.1f} above {PASSES}: {(points > PASSES).mean():.2f}"
                )
            value, interval = auroc(table, "t1.5")
            salad = table[table.kind == "word salad"].coherence.dropna()
            lower = ("t1", "t2", "word salad", "other question")
            others = {low: auroc(table, low)[0] for low in lower if low in set(table.kind)}
            note = (
                f"answers of {writer} at temperature 0 against 1.5, read in {reader}; 95 % over "
                f"the questions; against "
                + ", ".join(f"{low} {found:.2f}" for low, found in others.items())
                + f"; word salad at most {salad.max():.0f}, mean {salad.mean():.0f}"
            )
            print(f"  AUROC 0 against 1.5: {value:.3f} {interval}; {note}", flush=True)
            if not options.no_record:
                is_main = (reader, writer) == ("qwen2.5-coder-1.5b", "qwen2.5-coder-0.5b")
                name = "coherence.auroc_t0_t15" + ("" if is_main else f".{writer}_by_{reader}")
                record(
                    name,
                    value,
                    "AUROC",
                    n=table.question.nunique(),
                    spread=interval,
                    note=note,
                )


if __name__ == "__main__":
    main()
