"""Probes on judged answers of other models: left-out questions, domains and model families.

Reader: the default model, clean. Probes are trained on answers to other questions than those that
score, always. AUROC is taken for each left-out question on equally many misaligned and aligned
answers of each source, and averaged over questions and over draws of those answers; intervals are
95 % bootstraps over the seven questions that have both kinds.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pandas as pd
from em_responses import COHERENT, LAYERS, MISALIGNED, equalised, load_answers, read_answers
from record import record
from sklearn.metrics import roc_auc_score

from persona.models import load_pair
from probes import DifferenceOfMeansProbe, GradedProbe, LogisticProbe

SINGLE = (17, 21, 24, 27)
MEANS_OF, LASTS_OF = (12, 15, 17, 19, 21, 23, 25), (15, 19, 23)
N_DRAWS, LEAST_ANSWERS, N_RESAMPLES = 20, 4, 2000
Train = Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]
"""places for training, those of them in the draw -> places -> scores."""


class Bench:
    def __init__(self, table: pd.DataFrame, rows: dict[str, np.ndarray]) -> None:
        self.table, self.means, self.lasts = table, rows["response"], rows["last_response"]
        self.question = table.question_id.to_numpy()
        self.misaligned = (table.aligned < MISALIGNED).to_numpy()
        self.source = (table.question_id + table.model + table.finetune).to_numpy()
        self.draws = [equalised(table, seed) for seed in range(N_DRAWS)]

    def layer(self, layer: int) -> np.ndarray:
        return self.means[:, LAYERS.index(layer)]

    def views(self) -> np.ndarray:
        means = [self.layer(one) for one in MEANS_OF]
        return np.stack([*means, *(self.lasts[:, LAYERS.index(one)] for one in LASTS_OF)], 1)

    def graded(self, views: np.ndarray) -> Train:
        """All coherent answers to the training questions, by their grade."""

        def train(places: np.ndarray, _: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            mine = places[self.table.coherent.to_numpy()[places] > COHERENT]
            grades = 100 - self.table.aligned.to_numpy()[mine]
            probe = GradedProbe().fit(views[mine], grades, groups=self.source[mine])
            return lambda test: probe.predict(views[test])

        return train

    def two_class(self, make: Callable[[], object], rows: np.ndarray) -> Train:
        """The equalised answers to the training questions, misaligned against aligned."""

        def train(_: np.ndarray, drawn: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            probe = make().fit(rows[drawn], self.misaligned[drawn].astype(int))  # type: ignore[attr-defined]
            return lambda test: probe.decision_function(rows[test])

        return train

    def words(self) -> Train:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline

        texts = self.table.response.to_numpy()

        def train(_: np.ndarray, drawn: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
            model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression())
            model.fit(texts[drawn], self.misaligned[drawn])
            return lambda test: model.decision_function(texts[test])

        return train

    def length(self) -> Train:
        lengths = self.table.response.str.len().to_numpy(dtype=float)
        return self.two_class(LogisticProbe, lengths[:, None])

    def auroc(
        self,
        train: Train,
        train_on: np.ndarray | None = None,
        test_on: np.ndarray | None = None,
        *,
        once: bool = False,
    ) -> pd.Series:
        """question -> AUROC, the question left out of the training, mean over draws.

        train_on, test_on: masks of answers, default all. once: training does not depend on the
        draw, so it is done once a question.
        """
        everywhere = np.ones(len(self.table), dtype=bool)
        may_train = everywhere if train_on is None else train_on
        may_test = everywhere if test_on is None else test_on
        found: list[tuple[str, float]] = []
        for question in np.unique(self.question):
            places = np.flatnonzero((self.question != question) & may_train)
            scores = train(places, places) if once else None
            for drawn in self.draws:
                test = drawn[(self.question[drawn] == question) & may_test[drawn]]
                if len(test) < LEAST_ANSWERS:
                    continue
                inside = drawn[(self.question[drawn] != question) & may_train[drawn]]
                score = scores or train(places, inside)
                found.append((question, roc_auc_score(self.misaligned[test], score(test))))
        return pd.DataFrame(found, columns=["q", "auroc"]).groupby("q").auroc.mean()

    def transfer(self, train: Train, column: str, *, once: bool = False) -> pd.Series:
        """question -> AUROC from each value of a column to each other one, averaged."""
        groups = self.table[column].to_numpy()
        names = np.unique(groups)
        found = [
            self.auroc(train, groups == a, groups == b, once=once)
            for a in names
            for b in names
            if a != b
        ]
        return pd.concat(found, axis=1).mean(axis=1)


def interval(by_question: np.ndarray) -> list[float]:
    rng = np.random.default_rng(0)
    means = rng.choice(by_question, (N_RESAMPLES, len(by_question))).mean(1)
    return [float(x) for x in np.percentile(means, [2.5, 97.5])]


def main() -> None:
    table = load_answers()
    pair = load_pair("default", "default", in_turn=True)
    table = table.assign(family=np.where(table.model.str.startswith("gemma"), "gemma", "Llama"))
    bench = Bench(table, read_answers(pair, table))
    views, n = bench.views(), len(bench.draws[0])

    started = time.perf_counter()
    graded = bench.auroc(bench.graded(views), once=True)
    seconds = time.perf_counter() - started
    print(graded.round(3).to_dict(), f"{seconds:.1f} s for {len(graded)} fits")
    single = {one: bench.auroc(bench.two_class(LogisticProbe, bench.layer(one))) for one in SINGLE}
    best = max(single, key=lambda one: single[one].mean())
    words, length = bench.auroc(bench.words()), bench.auroc(bench.length())
    print({f"logistic {one}": round(float(s.mean()), 3) for one, s in single.items()})
    print(f"words {words.mean():.3f}, length {length.mean():.3f}, n {n}")
    record(
        "probe.loqo_auroc",
        float(graded.mean()),
        "AUROC",
        n=n,
        spread=interval(graded.to_numpy()),
        note=f"graded probe, 7 layers and 3 last tokens; 95 % over {len(graded)} questions, "
        f"{N_DRAWS} draws; words {words.mean():.3f}, length {length.mean():.3f}",
    )
    gain = (graded - single[best]).to_numpy()
    record(
        "probe.loqo_auroc_gain",
        float(gain.mean()),
        "AUROC",
        n=n,
        spread=interval(gain),
        ratio_to=f"best single layer, logistic ({best}: {single[best].mean():.3f})",
        note=f"over words alone {float((graded - words).mean()):+.3f}",
    )
    for name, column in (("cross_domain", "finetune"), ("cross_family", "family")):
        ours = bench.transfer(bench.graded(views), column, once=True)
        means = {
            one: bench.transfer(bench.two_class(DifferenceOfMeansProbe, bench.layer(one)), column)
            for one in SINGLE
        }
        flat = views.reshape(len(views), -1)
        mean = bench.transfer(bench.two_class(DifferenceOfMeansProbe, flat), column)
        best_mean = max(means, key=lambda one: means[one].mean())
        gain = (ours - mean).to_numpy()
        print(
            column,
            ours.round(3).to_dict(),
            {k: round(float(v.mean()), 3) for k, v in means.items()},
        )
        record(
            f"probe.{name}_gain",
            float(gain.mean()),
            "AUROC",
            n=n,
            spread=interval(gain),
            ratio_to=f"difference of means on the same rows ({mean.mean():.3f})",
            note=f"graded probe {ours.mean():.3f}; best of 4 single layers, difference of means "
            f"({best_mean}): {means[best_mean].mean():.3f}; the question left out there too",
        )


if __name__ == "__main__":
    main()
