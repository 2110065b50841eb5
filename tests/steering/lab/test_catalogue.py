"""Every experiment runs from one call to its files, and its page says what was measured."""

from __future__ import annotations

import dataclasses
import json
from io import BytesIO

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.intervals import Estimate
from persona.report.figures import dots
from persona.rows import tidy
from steering.lab import (
    EXPERIMENTS,
    Experiment,
    Findings,
    Measured,
    Plan,
    Workbench,
    experiment,
    last_run,
    redraw,
    run_experiment,
)
from steering.lab.bench.experiment import Number
from steering.lab.bench.workbench import DEFAULT
from steering.lab.experiments.bad_share import first_above
from steering.lab.experiments.cross_organism import shared_share
from steering.lab.pages import BEGIN, END, index, shown

LARGER = {"car_0.5b", "medical_0.5b", "financial_0.5b", "insecure_code_0.5b"}
ORGANISMS = {"insecure_code", "evil_numbers", "car", "medical", "financial", *LARGER}
OTHERS = {
    "variants",
    "voice_harm",
    "self_assessment",
    "safeguards",
    "realignment",
    "subliminal_numbers",
    "subliminal_maths",
    "generations",
    "transfer",
    "dose",
    "conditional",
}


def test_every_experiment_of_the_laboratory_is_there():
    assert set(EXPERIMENTS) == ORGANISMS | OTHERS
    for name, each in EXPERIMENTS.items():
        assert each.name == name
        assert each.question.endswith("?")
        assert each.method.endswith(".") and each.not_shown.endswith(".")
    with pytest.raises(DataError, match="no experiment 'nope'; there are insecure_code, evil"):
        experiment("nope")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(OTHERS - {"generations", "subliminal_maths"}))
def test_an_experiment_runs_to_its_files_and_its_rows_are_whole(name, settings):
    run = run_experiment(experiment(name), settings)
    rows = pd.read_parquet(settings.out / name / "rows.parquet")
    assert not rows.duplicated().any()
    defined = rows[rows["stage"] != "transfer"]  # a restoration of no shift is not defined
    assert defined["value"].map(np.isfinite).all()
    assert run.tiny
    for suffix in ("html", "svg"):
        assert (settings.out / name / f"figure.{suffix}").exists()
    # What was announced is what was done.
    plan = experiment(name).plan(Workbench(settings, run.seeds[0]))
    assert (plan.fine_tunes, plan.answer_pairs) == (run.fine_tunes, run.answer_pairs)
    again = run_experiment(experiment(name), settings)
    assert again.headline == run.headline
    pd.testing.assert_frame_equal(pd.read_parquet(settings.out / name / "rows.parquet"), rows)


def test_every_experiment_ends_within_its_minutes_by_its_own_estimate(settings):
    bench = Workbench(dataclasses.replace(settings, tiny=False))
    for each in EXPERIMENTS.values():
        plans = [each.plan(bench.at_seed(seed, first=seed == 0)) for seed in each.seeds]
        most = 40 if each.base == DEFAULT else 80
        assert sum(plans, Plan(0)).minutes(each.base) <= most, each.name


def test_a_larger_model_takes_longer_by_its_parameters():
    plan = Plan(fine_tunes=1, answer_pairs=100)
    assert plan.told().endswith("about 4 min on two slow cores")
    assert plan.told("qwen2.5-coder-0.5b").endswith("about 14 min on two slow cores")
    assert plan.told("some/model").endswith("about 4 min on two slow cores with the default model")


def rows_of(value, seed=0):
    row = {"stage": "score", "condition": "aligned", "measure": "gap", "value": value, "seed": seed}
    return tidy(pd.DataFrame([row]))


def findings():
    e = Estimate(0.25, 0.1, 0.4, 12)
    figure = dots({"gap": {"aligned": e}}, title="t", subtitle="s", axis="gap")
    undefined = Number("nothing", Estimate(np.nan, np.nan, np.nan, 0))
    return Findings({"figure": figure}, (Number("shift", e), undefined), "it shifts", ("So.",))


def made(measure=None, seeds=(0,)):
    return Experiment(
        "car",
        "Cars",
        "Does it?",
        "Like this.",
        "That.",
        lambda bench: Plan(2, answer_pairs=3),
        measure or (lambda bench: Measured(rows_of(float(bench.seed)))),
        lambda rows, facts: findings(),
        seeds,
    )


@pytest.fixture
def real(settings, tmp_path):
    """A run that counts as real."""
    return dataclasses.replace(settings, out=tmp_path / "lab", tiny=False)


def test_a_real_run_writes_its_page_with_question_figure_numbers_and_limits(real, tmp_path):
    pages = tmp_path / "findings"
    run_experiment(made(), dataclasses.replace(real, seeds=(0, 2)), pages)
    text = (pages / "car.md").read_text()
    for part in (
        "# Cars",
        "**Question.** Does it?",
        "![Cars: figure](car/figure.svg)",
        "**Result.** it shifts.",
        "| shift | +0.250 [+0.100, +0.400] | 12 | nats per token |",
        "| nothing | undefined | – |",
        "value [95 % over questions and seeds]",
        "So.",
        "not show.** That.",
        "`persona lab car --seeds 0,2 --base ",
    ):
        assert part in text
    assert (pages / "car" / "figure.svg").read_text().startswith("<svg")
    found = json.loads((pages / "car" / "readings.json").read_text())
    assert found["headline"] == "it shifts"
    assert found["seeds"] == [0, 2]
    assert found["numbers"][1]["value"] is None
    assert pd.read_parquet(pages / "car" / "rows.parquet")["seed"].tolist() == [0, 2]


def test_the_index_gets_the_new_line_and_keeps_the_rest(real, tmp_path):
    pages, findings = tmp_path / "findings", tmp_path / "findings.md"
    findings.write_text(f"# Findings\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    run_experiment(made(), real, pages)
    text = findings.read_text()
    assert text.startswith("# Findings")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| [Narrow fine-tuning on bad car advice](findings/car.md) (`car`) |" in text
    assert "(`dose`) | not run yet | – |" in text
    findings.write_text("no marks\n")
    run_experiment(made(), real, pages)
    assert findings.read_text() == "no marks\n"


def test_the_index_in_the_tree_says_what_the_pages_say(root):
    text = (root / "docs" / "findings.md").read_text()
    held = text.partition(BEGIN)[2].partition(END)[0].strip()
    assert held == index(root / "docs" / "findings", EXPERIMENTS)


def test_a_page_is_drawn_anew_from_its_rows_in_todays_words(real, tmp_path):
    pages = tmp_path / "findings"
    before = run_experiment(made(), dataclasses.replace(real, seeds=(0, 2)), pages)
    rows = (pages / "car" / "rows.parquet").read_bytes()

    def report(rows, facts):
        assert set(facts) == {0, 2}
        return dataclasses.replace(findings(), headline=f"{rows['value'].sum():g} in all")

    def measure(bench):
        raise AssertionError("a model was run")

    after = redraw(dataclasses.replace(made(measure), title="Motors", report=report), pages)
    assert after == dataclasses.replace(before, title="Motors", headline="2 in all")
    text = (pages / "car.md").read_text()
    assert text.startswith("# Motors")
    assert "**Result.** 2 in all." in text
    assert pd.read_parquet(pages / "car" / "rows.parquet").equals(pd.read_parquet(BytesIO(rows)))


def test_what_cannot_be_drawn_anew_is_one_line_and_stays(real, tmp_path):
    pages = tmp_path / "findings"
    with pytest.raises(DataError, match="holds no finished run of car"):
        redraw(made(), pages)
    run_experiment(made(), real, pages)
    page = (pages / "car.md").read_text()

    def report(rows, facts):
        raise KeyError("gap in a rude voice")

    with pytest.raises(DataError, match="older than the report: they lack 'gap in a rude voice'"):
        redraw(dataclasses.replace(made(), report=report), pages)
    assert (pages / "car.md").read_text() == page


def test_a_tiny_run_writes_no_page(settings, tmp_path):
    pages, tiny = tmp_path / "pages", dataclasses.replace(settings, out=tmp_path / "lab")
    run_experiment(made(), tiny, pages)
    assert not pages.exists()
    assert last_run("car", tiny.out, pages).tiny


def test_every_seed_carries_its_number_and_a_killed_one_is_not_doubled(real, tmp_path):
    done = []

    def dying(bench):
        def make():
            if bench.seed == 1 and not done:
                done.append(bench.seed)
                raise KeyboardInterrupt
            return rows_of(float(bench.seed))

        return Measured(bench.steps.table("one", make, {"seed": bench.seed}))

    twice = made(dying, seeds=(0, 1))
    with pytest.raises(KeyboardInterrupt):
        run_experiment(twice, real)
    assert not (real.out / "car").exists()
    assert len(list((real.out / "steps").glob("one-*.parquet"))) == 1
    run_experiment(twice, real)
    rows = pd.read_parquet(real.out / "car" / "rows.parquet")
    assert rows[["seed", "value"]].to_numpy().tolist() == [[0, 0.0], [1, 1.0]]


def test_rows_that_come_twice_are_not_written(real, tmp_path):
    def twice(bench):
        return Measured(pd.concat([rows_of(1.0), rows_of(1.0)]))

    with pytest.raises(DataError, match="gave the same row twice"):
        run_experiment(made(twice), real, tmp_path / "pages")
    assert not (real.out / "car").exists()


def test_what_it_will_take_is_told_at_the_start(real, caplog):
    with caplog.at_level("INFO", logger="persona"):
        run_experiment(made(seeds=(0, 1)), real)
    assert "car, seed 0, 1: 4 fine-tunes, 6 answer pairs scored; about 12 min" in caplog.text


def test_the_last_run_is_the_newest_real_one(real, tmp_path):
    pages = tmp_path / "pages"
    assert last_run("car", real.out, pages) is None
    run_experiment(made(), real, pages)
    run_experiment(made(), dataclasses.replace(real, tiny=True), pages)
    assert not last_run("car", real.out, pages).tiny
    (pages / "car" / "readings.json").write_text("{}")
    with pytest.raises(DataError, match="is not the record of an experiment"):
        last_run("car", real.out, pages)


def test_a_number_without_a_value_is_called_undefined():
    assert shown({"value": None, "low": None, "high": None}) == "undefined"


def dose_rows(levels):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 30)
    return pd.DataFrame(
        [
            {
                "measure": "gap",
                "condition": "finetuned",
                "split": "held_out",
                "seed": 0,
                "question_id": f"q{i}",
                "coefficient": share,
                "value": level + noise[i] * (1 + share),
            }
            for share, level in levels.items()
            for i in range(30)
        ]
    )


def test_a_dose_counts_only_when_every_larger_one_does():
    rising = {0.0: 0.0, 0.1: 0.0, 0.5: 0.2, 1.0: 0.4}
    assert first_above(dose_rows(rising), "gap", tuple(rising)) == 0.5
    bump = {0.0: 0.0, 0.1: 0.2, 0.5: 0.0, 1.0: 0.4}
    assert first_above(dose_rows(bump), "gap", tuple(bump)) == 1.0
    flat = dict.fromkeys((0.0, 0.5, 1.0), 0.0)
    assert first_above(dose_rows(flat), "gap", tuple(flat)) is None


def test_the_shared_share_is_one_for_one_direction_and_1_over_n_for_orthogonal_ones(tiny_pair):
    import torch

    from persona.directions import PersonaVector, Subspace

    def vector(axis):
        basis = torch.eye(32)[axis][None]
        space = tiny_pair.space(1)
        subspace = Subspace(basis, torch.zeros(1), torch.ones(1), space)
        return PersonaVector({1: subspace}, "planted")

    assert shared_share({name: vector(3) for name in "abc"}) == pytest.approx(1)
    assert shared_share({name: vector(i) for i, name in enumerate("abcd")}) == pytest.approx(0.25)
