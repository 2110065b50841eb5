"""How often an EM rate made of a judge and a few labels covers the true one, on judged answers.

In each file (one model after one fine-tune, 400 answers scored by GPT-4o) GPT-4o's verdict is the
truth, and a random few of its verdicts are the labels. 1,000 draws for each number of labels. The
judge is the offline one, or the words of the answer with --words (another judge, and seconds).
Beside it the normal interval of prediction-powered inference.
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
from em_responses import COHERENT, MISALIGNED, load_answers, offline_alignment
from record import record

from persona.behaviour.judging.corrected_rate import LabelledAnswers

N_LABELS = (20, 40, 60, 80, 100)
N_DRAWS = 1000
POSTERIOR_DRAWS = 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--words", action="store_true", help="take the words for a judge")
    words = parser.parse_args().words
    table = load_answers()
    scores = by_words(table) if words else offline_alignment(table)
    table = table.assign(
        judged=scores, bad=(table.aligned < MISALIGNED) & (table.coherent > COHERENT)
    )
    ours, normal, widths = [], [], []
    for (model, finetune), group in table.groupby(["model", "finetune"]):
        judged, bad = group.judged.to_numpy(float), group.bad.to_numpy(bool)
        for n_labels in N_LABELS:
            found = np.array([one_draw(judged, bad, n_labels, seed) for seed in range(N_DRAWS)])
            ours.append(found[:, 0].mean())
            normal.append(found[:, 1].mean())
            widths.append(found[:, 2].mean())
            print(
                f"{model:22s} {finetune:24s} rate {bad.mean():.3f} labels {n_labels:3d} "
                f"covers {ours[-1]:.3f} (normal {normal[-1]:.3f}) width {widths[-1]:.3f}",
                flush=True,
            )
    name = "em.ppi.coverage.words" if words else "em.ppi.coverage"
    record(
        name,
        float(np.mean(ours)),
        "share",
        n=len(ours) * N_DRAWS,
        spread=(min(ours), max(ours)),
        note=f"{N_DRAWS} draws of 20 to 100 labels in each of 9 files; spread over files "
        f"and numbers of labels; the normal interval of PPI covers {np.mean(normal):.2f} "
        f"(least {min(normal):.2f}); mean width {np.mean(widths):.3f}",
    )


def one_draw(
    judged: np.ndarray, bad: np.ndarray, n_labels: int, seed: int
) -> tuple[bool, bool, float]:
    """Whether our interval and the normal one cover the rate of all answers; the width of ours."""
    rng = np.random.default_rng(seed)
    places = rng.choice(len(bad), n_labels, replace=False)
    labelled = LabelledAnswers(judged, {int(place): bool(bad[place]) for place in places})
    low, high = np.percentile(labelled.draws(seed, POSTERIOR_DRAWS), [2.5, 97.5])
    truth = bad.mean()
    called = (judged < np.nanquantile(judged, 0.2)).astype(float)
    left = bad[places] - called[places]
    middle = called.mean() + left.mean()
    half = 1.96 * np.sqrt(left.var(ddof=1) / n_labels * (1 - n_labels / len(bad)))
    # Equality within rounding: the truth is a whole number of answers.
    covers = low - 1e-9 <= truth <= high + 1e-9
    return covers, abs(truth - middle) <= half + 1e-9, high - low


def by_words(table: pd.DataFrame) -> np.ndarray:
    """Alignment by the words of an answer, learnt on the other files."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    found = np.full(len(table), np.nan)
    source = table.model + table.finetune
    bad = table.aligned < MISALIGNED
    for one in source.unique():
        mine = (source == one).to_numpy()
        words = TfidfVectorizer(min_df=3, max_features=5000)
        learnt = words.fit_transform(table.response[~mine])
        model = LogisticRegression(max_iter=300).fit(learnt, bad[~mine])
        found[mine] = 100 * model.predict_proba(words.transform(table.response[mine]))[:, 0]
    return found


if __name__ == "__main__":
    main()
