"""Every experiment runs from one call to its files, and its page says what was measured."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

from persona.behaviour.intervals import Estimate
from persona.errors import DataError
from persona.report.figures import dots
from steering.lab import EXPERIMENTS, Experiment, Outcome, experiment, last_run, run_experiment
from steering.lab.dose import first_above
from steering.lab.outcome import Number
from steering.lab.transfer import shared_share

ORGANISMS = {"insecure_code", "evil_numbers", "car", "medical", "financial"}
OTHERS = {
    "self_assessment",
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
@pytest.mark.parametrize(
    "name", ["dose", "conditional", "self_assessment", "realignment", "transfer"]
)
def test_an_experiment_runs_to_its_files_and_its_rows_are_whole(name, settings):
    summary = run_experiment(experiment(name), settings)
    rows = pd.read_parquet(settings.out / name / "rows.parquet")
    assert not rows.duplicated().any()
    defined = rows[rows["stage"] != "transfer"]  # a restoration of no shift is not defined
    assert defined["value"].map(np.isfinite).all()
    assert summary.tiny
    assert (settings.out / name / "figure.html").exists()
    again = run_experiment(experiment(name), settings)
    assert again.headline == summary.headline
    pd.testing.assert_frame_equal(pd.read_parquet(settings.out / name / "rows.parquet"), rows)


def outcome(rows=None):
    e = Estimate(0.25, 0.1, 0.4, 12)
    figure = dots({"gap": {"aligned": e}}, title="t", subtitle="s", axis="gap")
    table = pd.DataFrame({"value": [1.0, 2.0]}) if rows is None else rows
    return Outcome(table, figure, (Number("shift", e),), "it shifts by +0.25")


def made(result):
    return Experiment("car", "Cars", "Does it?", "Like this.", "That.", lambda bench: result)


@pytest.fixture
def real(settings, tmp_path, monkeypatch):
    """A run that counts as real, without a browser."""
    monkeypatch.setattr("steering.lab.outcome._image", lambda figure: b"png")
    return dataclasses.replace(settings, out=tmp_path / "lab", tiny=False)


def test_a_real_run_writes_its_page_with_question_figure_numbers_and_limits(real, tmp_path):
    pages = tmp_path / "pages"
    run_experiment(made(outcome()), real, pages)
    text = (pages / "car.md").read_text()
    for part in (
        "# Cars",
        "**Question.** Does it?",
        "![Cars](car.png)",
        "it shifts by +0.25",
        "| shift | +0.250 [+0.100, +0.400], n = 12 | nats per token |",
        "not show.** That.",
    ):
        assert part in text
    assert (pages / "car.png").read_bytes() == b"png"
    assert json.loads((pages / "car.json").read_text())["headline"] == "it shifts by +0.25"


def test_a_tiny_run_writes_no_page(settings, tmp_path):
    pages, tiny = tmp_path / "pages", dataclasses.replace(settings, out=tmp_path / "lab")
    run_experiment(made(outcome()), tiny, pages)
    assert not pages.exists()
    assert last_run("car", tiny.out, pages).tiny


def test_rows_that_come_twice_are_not_written(real, tmp_path):
    twice = outcome(pd.DataFrame({"value": [1.0, 1.0]}))
    with pytest.raises(DataError, match="gave the same row twice"):
        run_experiment(made(twice), real, tmp_path / "pages")
    assert not (real.out / "car").exists()


def test_the_last_run_is_the_newest_real_one(real, tmp_path):
    pages = tmp_path / "pages"
    assert last_run("car", real.out, pages) is None
    run_experiment(made(outcome()), real, pages)
    run_experiment(made(outcome()), dataclasses.replace(real, tiny=True), pages)
    assert not last_run("car", real.out, pages).tiny
    (pages / "car.json").write_text("{}")
    with pytest.raises(DataError, match="is not the summary of an experiment"):
        last_run("car", real.out, pages)


def dose_rows(levels):
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.01, 30)
    return pd.DataFrame(
        [
            {
                "measure": "gap",
                "condition": "finetuned",
                "split": "held_out",
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
    assert first_above(dose_rows(rising), "gap", tuple(rising), 0) == 0.5
    bump = {0.0: 0.0, 0.1: 0.2, 0.5: 0.0, 1.0: 0.4}
    assert first_above(dose_rows(bump), "gap", tuple(bump), 0) == 1.0
    flat = dict.fromkeys((0.0, 0.5, 1.0), 0.0)
    assert first_above(dose_rows(flat), "gap", tuple(flat), 0) is None


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
