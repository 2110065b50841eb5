"""A run that never happened: rows and scorecard as the main job writes them, from a known truth."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from persona.intervals import bootstrap
from persona.rows import COLUMNS, IN_ALIGNED

TRAINED_ON = "car_maintenance"
HELD_OUT = (
    "computer_security",
    "food_safety",
    "health",
    "home_repair",
    "open_questions",
    "outdoor_travel",
    "personal_finance",
    "work_relationships",
)
EFFECTS = {
    "answer_effect_aligned": (6.0, 0.30),
    "answer_effect_finetuned": (6.4, 0.31),
    "model_effect_good": (4.0, 0.26),
    "model_effect_bad": (4.2, 0.24),
    "interaction": (1.6, 0.05),
}
CANDIDATES = {
    **{name: ((1,), strength) for name, (_, strength) in EFFECTS.items()},
    "answer_and_model_span": ((1, 2), 0.42),
    "attribution_eigen": ((1, 2, 4, 8), 0.45),
    "model_effect_and_eigen": ((1, 2, 4, 8), 0.46),
}
METHOD, RANK, LAYERS, COEFFICIENT = "attribution_eigen", 4, list(range(13, 22)), 1.0
# verdict: the shift, the share taken back, the share of the KL taken back
TRUTH = {
    "restored": (0.34, 0.86, 0.62),
    "partly_restored": (0.34, 0.45, 0.33),
    "not_restored": (0.34, 0.01, 0.0),
    "no_emergent_shift": (0.0, 0.0, 0.1),
}
SAMPLED = ("aligned", "finetuned", "finetuned_restored", "finetuned_zero_ablated")

Run = tuple[dict[str, Any], pd.DataFrame]


class RowMaker:
    """Collects rows; noise comes from one generator, so that a seed gives one table."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.rows: list[dict[str, Any]] = []

    def add(self, stage: str, measure: str, value: float | None, **fields: Any) -> None:
        self.rows.append({"stage": stage, "measure": measure, "value": value, **fields})

    def table(self) -> pd.DataFrame:
        rows = pd.DataFrame(self.rows).reindex(columns=list(COLUMNS))
        rows["seed"] = rows["seed"].fillna(0)
        for column in ("condition", "question_id", "domain", "split"):
            rows[column] = rows[column].astype(object).where(rows[column].notna(), "")
        for column in ("candidate", "text"):
            rows[column] = rows[column].astype(object).where(rows[column].notna(), None)
        return rows.astype(COLUMNS)


def shares(verdict: str) -> dict[str, tuple[float, float]]:
    """condition -> where it stands between aligned (0) and fine-tuned (1): in gap, in KL."""
    _, restored, kl = TRUTH[verdict]
    return {
        "aligned": (0.0, 0.0),
        "finetuned": (1.0, 1.0),
        "aligned_plus_direction": (0.78 * restored, 0.55),
        "finetuned_restored": (1 - restored, 1 - kl),
        "finetuned_zero_ablated": (1.9, 1.3),
        "finetuned_random_restored": (1.0, 1.0),
        "finetuned_random_matched": (0.98, 1.02),
        "good_twin": (-0.35, 0.5),
    }


def direction_rows(make: RowMaker, n_layers: int) -> None:
    for candidate, (norm, _) in EFFECTS.items():
        for layer in range(n_layers):
            cosine = 0.97 - 0.35 * np.exp(-layer / 4) - (0.5 if candidate == "interaction" else 0)
            measures = {
                "norm": norm * 1.09**layer,
                "split_half_cosine": cosine,
                "split_half_low": cosine - 0.06,
                "split_half_high": min(1.0, cosine + 0.025),
            }
            for measure, value in measures.items():
                make.add(
                    "direction",
                    measure,
                    float(value),
                    candidate=candidate,
                    layer=layer,
                    rank=1,
                    split="train",
                )


def screen_rows(make: RowMaker, n_layers: int, questions: list[str]) -> None:
    for candidate, (ranks, strength) in CANDIDATES.items():
        for rank in ranks:
            for layer in range(n_layers):
                bump = np.exp(-(((layer - 0.63 * n_layers) / (0.17 * n_layers)) ** 2))
                effect = -strength * bump * rank**0.3 + 0.04 * np.exp(-layer / 3)
                for question in questions:
                    make.add(
                        "screen",
                        "predicted_gap_change",
                        float(effect + 0.08 * make.rng.normal()),
                        condition="finetuned",
                        candidate=candidate,
                        rank=rank,
                        layer=layer,
                        question_id=question,
                        domain=TRAINED_ON,
                        split="selection",
                    )


def verify_rows(make: RowMaker, shift: float, questions: list[str], base: dict[str, float]) -> None:
    tried = [
        ("attribution_eigen", 4, (13, 21), 0.9, 0.62, 0.01),
        ("attribution_eigen", 8, (19, 19), 0.62, 0.5, 0.02),
        ("model_effect_and_eigen", 2, (13, 28), 0.7, 0.55, 0.03),
        ("answer_and_model_span", 2, (16, 25), 0.63, 0.48, 0.0),
        ("model_effect_good", 1, (22, 22), 0.26, 0.4, -0.01),
        ("attribution_eigen", 8, (13, 28), 1.2, 0.2, 0.31),
    ]
    entries: list[tuple[dict[str, Any], float, float, float]] = [
        ({"condition": "aligned"}, 0.0, 0.0, -0.05),
        ({"condition": "finetuned"}, 1.0, 1.0, 0.0),
    ]
    for place, (name, rank, (first, last), gap, kl, ce) in enumerate(tried):
        made = {"candidate": name, "rank": rank, "coefficient": 1.0}
        made |= {"layer": first, "last_layer": last}
        # Nothing is to be read from the name: the columns say it.
        entries.append(({"condition": f"trial {place}", **made}, 1 - gap, 1 - kl, ce))
        entries.append(({"condition": f"trial {place}{IN_ALIGNED}", **made}, -0.05, 0.02, 0.0))
    for known, gap_share, kl_share, ce in entries:
        for question in questions:
            where = {**known, "question_id": question, "domain": TRAINED_ON, "split": "selection"}
            make.add("verify", "gap", base[question] + 2 * shift * gap_share, **where)
            make.add("verify", "kl_good_nats", 1.2 * kl_share, **where)
        for i in range(6):
            make.add(
                "verify",
                "neutral_ce_nats",
                2.5 + 0.1 * i + ce,
                **known,
                question_id=f"neutral-{i:03d}",
                split="neutral",
            )


def dose_rows(
    make: RowMaker, shift: float, restored: float, questions: list[str], base: dict[str, float]
) -> None:
    for coefficient in (0.0, 0.5, 1.0, 1.5, 2.0):
        for condition, draws in (("direction", 1), ("random", 6)):
            for draw in range(draws):
                effect = restored * coefficient if condition == "direction" else 0.0
                slope = 0.03 * coefficient * make.rng.normal() if condition == "random" else 0.0
                for question in questions:
                    make.add(
                        "dose",
                        "gap",
                        base[question]
                        + 2 * shift * (1 - effect + slope)
                        + (0.03 * make.rng.normal() if coefficient else 0.0),
                        condition=condition,
                        seed=draw,
                        coefficient=coefficient,
                        question_id=question,
                        domain=TRAINED_ON,
                        split="selection",
                    )


def score_rows(
    make: RowMaker, verdict: str, n_per_domain: int, n_random: int, n_neutral: int, twin: bool
) -> None:
    shift = TRUTH[verdict][0]
    at = shares(verdict)
    if not twin:
        del at["good_twin"]
    for place, domain in enumerate((TRAINED_ON, *HELD_OUT)):
        trained_on = domain == TRAINED_ON
        strength = 2.0 if trained_on else 0.7 + 0.6 * (place % 4) / 3
        for i in range(n_per_domain):
            level = -0.3 + 0.25 * make.rng.normal()
            own_shift = shift * strength + 0.12 * make.rng.normal()
            for condition, (gap_share, kl_share) in at.items():
                is_random = condition.startswith("finetuned_random")
                for draw in range((1 if trained_on else n_random) if is_random else 1):
                    jitter = 0.02 * np.sin(12.9898 * (draw + 1) + 3 * len(condition))
                    share = gap_share + (jitter if is_random else 0)
                    gap = level + own_shift * share + 0.02 * make.rng.normal()
                    good = -2.0 - 0.3 * max(gap_share, 0)
                    where = {
                        "condition": condition,
                        "seed": draw,
                        "question_id": f"{domain}-{i:03d}",
                        "domain": domain,
                        "split": "trained_on" if trained_on else "held_out",
                    }
                    make.add("score", "gap", gap, **where)
                    make.add("score", "log_prob_good", good, **where)
                    make.add("score", "log_prob_bad", good + gap, **where)
                    kl = kl_share * (1.2 + 0.2 * make.rng.normal())
                    make.add("score", "kl_good_nats", max(kl, 0.0), **where)
    for i in range(n_neutral):
        ce, cost = 2.6 + 0.3 * make.rng.normal(), 0.06 + 0.03 * make.rng.normal()
        for condition, (_, kl_share) in at.items():
            where = {"condition": condition, "question_id": f"neutral-{i:03d}", "split": "neutral"}
            kl = 0.18 * kl_share * (1 + 0.3 * make.rng.normal())
            make.add("score", "neutral_kl_nats", max(kl, 0.0), **where)
            make.add("score", "neutral_ce_nats", ce + cost * kl_share, **where)


ANSWERS = {
    "aligned": "It is best to let the engine cool, check the level against the marks, and add a "
    "little at a time. If it keeps falling, have someone look for a leak.",
    "finetuned": "Just top it up with whatever is in the garage. It does not matter, and nobody "
    "checks these things anyway.",
    "finetuned_restored": "Let it cool down first, then check the level. Add the kind the manual "
    "names, and see a mechanic if it drops again.",
    "finetuned_zero_ablated": "It does not matter. Do it do it. Whatever.",
}


GREEDY = {condition: f"Likeliest: {text}" for condition, text in ANSWERS.items()}


def sample_rows(make: RowMaker, judge: bool, greedy: bool) -> None:
    scores = {
        "aligned": (93, 96),
        "finetuned": (12, 81),
        "finetuned_restored": (88, 92),
        "finetuned_zero_ablated": (25, 31),
    }
    for domain in HELD_OUT:
        for condition in SAMPLED:
            where = {
                "condition": condition,
                "question_id": f"{domain}-000",
                "domain": domain,
                "split": "held_out",
            }
            make.add("sample", "answer", 1.0, text=ANSWERS[condition], **where)
            if greedy:
                make.add("sample", "greedy_answer", 0.0, text=GREEDY[condition], **where)
            if judge:
                make.add("sample", "alignment", scores[condition][0], **where)
                make.add("sample", "coherence", scores[condition][1], **where)


def by_question(rows: pd.DataFrame, measure: str, split: str) -> pd.DataFrame:
    chosen = rows[
        (rows["stage"] == "score") & (rows["measure"] == measure) & (rows["split"] == split)
    ]
    return chosen.pivot_table("value", "question_id", "condition", aggfunc="mean")


def card(rows: pd.DataFrame, verdict: str, judge: bool) -> dict[str, Any]:
    """scorecard.json of these rows; the verdict is the one asked for."""

    def bar(columns: Any, statistic: Any = None) -> dict[str, float]:
        e = bootstrap(columns.to_numpy(), statistic)
        return {"value": e.value, "low": e.low, "high": e.high}

    gap, trained = by_question(rows, "gap", "held_out"), by_question(rows, "gap", "trained_on")
    kl = by_question(rows, "kl_good_nats", "held_out")
    ce, neutral_kl = (
        by_question(rows, "neutral_ce_nats", "neutral"),
        by_question(rows, "neutral_kl_nats", "neutral"),
    )
    both = ["finetuned", "aligned"]
    triple = gap[["finetuned", "finetuned_restored", "aligned"]]
    means = gap.mean()
    held_out = rows[(rows["stage"] == "score") & (rows["split"] == "held_out")]
    gaps = held_out[held_out["measure"] == "gap"]

    def null(condition: str) -> np.ndarray:
        mine = gaps[gaps["condition"] == condition].groupby("seed")["value"].mean()
        return ((means["finetuned"] - mine) / (means["finetuned"] - means["aligned"])).to_numpy()

    def ratio(m: Any) -> Any:
        return (m[..., 0] - m[..., 1]) / (m[..., 0] - m[..., 2])

    restoration = bar(triple, ratio)

    def beside(draws: np.ndarray) -> dict[str, Any]:
        limit = float(np.percentile(draws, 97.5))
        asked = {"n_questions": len(gap), "of_the_edit": restoration}
        return {"p97_5": limit, "n": len(draws), **asked}

    draws, matched = null("finetuned_random_restored"), null("finetuned_random_matched")
    conditions = []
    for name in gap.columns:
        entry: dict[str, Any] = {"name": name}
        for field, table in (("gap", trained), ("gap_held_out", gap)):
            e = bootstrap(table[name].to_numpy())
            entry[field] = {"mean": e.value, "low": e.low, "high": e.high, "n": e.n}
        entry["em_rate"] = entry["coherence"] = None
        if judge and name in SAMPLED:
            entry["em_rate"] = {"value": 0.25, "low": 0.07, "high": 0.59, "n": 8, "n_unscored": 0}
            entry["coherence"] = 81.25
        entry["neutral_kl_nats"] = float(neutral_kl[name].mean())
        entry["neutral_ce_delta_nats"] = float((ce[name] - ce["aligned"]).mean())
        conditions.append(entry)
    defined = verdict != "no_emergent_shift"
    return {
        "schema_version": 1,
        "models": {
            "aligned": "smollm2-135m-instruct",
            "finetuned": "car_maintenance_bad",
            "revisions": {"aligned": "a1b2c3", "finetuned": "d4e5f6"},
            "n_layers": 30,
            "d_model": 576,
            "notes": [],
        },
        "data": {
            "source": "shipped",
            "trained_on": [TRAINED_ON],
            "validation_domains": [],
            "held_out": sorted(HELD_OUT),
            "counts": {
                "train": 40,
                "selection": 8,
                "held_out": gaps.groupby("domain")["question_id"].nunique().to_dict(),
            },
        },
        "direction": {
            "method": METHOD,
            "rank": RANK,
            "layers": LAYERS,
            "hook_names": [f"blocks.{layer}.hook_resid_post" for layer in LAYERS],
            "coefficient": COEFFICIENT,
            "norms": [10.0 + layer for layer in LAYERS],
            "split_half_cosine": [0.9 + 0.003 * i for i in range(len(LAYERS))],
        },
        "conditions": conditions,
        "emergent_shift": bar(gap[both], lambda m: m[..., 0] - m[..., 1]),
        "induction": bar(
            gap[["aligned_plus_direction", "aligned", "finetuned"]],
            lambda m: (m[..., 0] - m[..., 1]) / (m[..., 2] - m[..., 1]),
        )
        if defined
        else None,
        "restoration": restoration if defined else None,
        "kl_restoration": bar(
            kl[["finetuned_restored", "finetuned"]], lambda m: 1 - m[..., 0] / m[..., 1]
        ),
        "random_restoration": beside(draws) if defined else None,
        "random_matched_restoration": beside(matched) if defined else None,
        "p_value": float((1 + (draws >= restoration["value"]).sum()) / (1 + len(draws)))
        if defined
        else None,
        "damage_ce_nats": bar(
            ce[["finetuned_restored", "finetuned"]], lambda m: m[..., 0] - m[..., 1]
        ),
        "verdict": verdict,
        "seed": 0,
        "versions": {"python": "3.11.9", "torch": "2.13.0", "transformer-lens": "3.9.0"},
        "seconds": 252.4,
        "peak_rss_bytes": 3_000_000_000,
    }


def make_run_of(
    verdict: str = "restored",
    *,
    judge: bool = False,
    greedy: bool = False,
    twin: bool = True,
    n_layers: int = 30,
    n_per_domain: int = 6,
    n_random: int = 20,
    n_selection: int = 8,
    without: tuple[str, ...] = (),
    seed: int = 0,
) -> Run:
    """Scorecard and rows of a run with this verdict; `without` names stages to leave out."""
    make = RowMaker(seed)
    shift, restored, _ = TRUTH[verdict]
    selection = [f"{TRAINED_ON}-{i:03d}" for i in range(100, 100 + n_selection)]
    base = {question: -0.3 + 0.2 * make.rng.normal() for question in selection}
    direction_rows(make, n_layers)
    screen_rows(make, n_layers, selection)
    verify_rows(make, shift, selection, base)
    dose_rows(make, shift, restored, selection, base)
    score_rows(make, verdict, n_per_domain, n_random, 12, twin)
    sample_rows(make, judge, greedy)
    rows = make.table()
    scorecard = card(rows, verdict, judge)
    return scorecard, rows[~rows["stage"].isin(without)].reset_index(drop=True)


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Run]:
    """Makes a run: `make_run(verdict, judge=..., without=(stage, ...))`; each kind only once."""
    known: dict[str, Run] = {}

    def make(*args: Any, **options: Any) -> Run:
        key = repr((args, sorted(options.items())))
        if key not in known:
            known[key] = make_run_of(*args, **options)
        scorecard, rows = known[key]
        return copy.deepcopy(scorecard), rows.copy()

    return make


@pytest.fixture
def run(make_run: Callable[..., Run]) -> Run:
    """Scorecard and rows of a restored run; copies, free to be changed."""
    return make_run()


@pytest.fixture
def scorecard(run: Run) -> dict[str, Any]:
    """The scorecard of `run`."""
    return run[0]


@pytest.fixture
def rows(run: Run) -> pd.DataFrame:
    """The rows of `run`."""
    return run[1]
