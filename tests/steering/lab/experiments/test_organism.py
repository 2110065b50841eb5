"""The organism experiment from fine-tune to files, killed on the way and resumed."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition
from persona.rows import ALIGNED, FINETUNED, RESTORED
from steering.lab import experiment, run_experiment
from steering.lab.bench import readings, workbench
from steering.lab.bench.workbench import Workbench


@pytest.fixture(scope="module")
def summary(settings):
    return run_experiment(experiment("car"), settings)


@pytest.fixture(scope="module")
def rows(settings, summary):
    return pd.read_parquet(settings.out / "car" / "rows.parquet")


def test_every_condition_is_read_on_both_splits_and_no_row_twice(rows):
    keys = ["stage", "condition", "seed", "draw", "step", "question_id", "split", "measure"]
    assert not rows.duplicated(keys).any()
    gaps = rows[(rows["stage"] == "score") & (rows["measure"] == "gap")]
    conditions = {ALIGNED, FINETUNED, RESTORED, "good_twin", "finetuned_random_restored"}
    assert conditions <= set(gaps["condition"])
    held_out = gaps[gaps["split"] == "held_out"]
    assert held_out["domain"].nunique() == 8
    assert "car_maintenance" not in set(held_out["domain"])
    assert set(gaps[gaps["split"] == "trained_on"]["domain"]) == {"car_maintenance"}
    assert set(rows[rows["measure"] == "projection"]["condition"]) == {
        ALIGNED,
        FINETUNED,
        "good_twin",
    }


def test_what_was_announced_is_what_was_done(settings, summary):
    announced = experiment("car").plan(Workbench(settings, summary.seeds[0]))
    done = (summary.fine_tunes, summary.answer_pairs)
    assert (announced.fine_tunes, announced.answer_pairs) == done


def test_the_adapter_that_was_scored_is_the_one_that_was_trained(rows, settings, bench):
    adapter = bench.organism("car_maintenance_bad")
    pair = bench.pair(adapter)
    held_out = bench.held_out("car_maintenance")
    again = score_pairs(
        pair,
        held_out,
        [Condition(ALIGNED, "aligned"), Condition(FINETUNED, "finetuned")],
        kl=False,
    )
    again = again[again["measure"] == "gap"].set_index(["condition", "question_id"])["value"]
    mine = rows[(rows["measure"] == "gap") & (rows["split"] == "held_out")]
    for row in mine[mine["condition"].isin([ALIGNED, FINETUNED])].itertuples():
        assert row.value == pytest.approx(again[row.condition, row.question_id], abs=1e-5)


def test_the_files_say_what_the_rows_say(settings, summary, rows):
    folder = settings.out / "car"
    found = json.loads((folder / "readings.json").read_text())
    assert (found["headline"], found["seeds"]) == (summary.headline, [0])
    assert found["facts"]["0"]["scorecard"]["verdict"]
    assert "plotly" in (folder / "figure.html").read_text()[:2_000_000].lower()
    assert (folder / "course.svg").exists()
    gaps = rows[(rows["measure"] == "gap") & (rows["split"] == "held_out")]
    wide = gaps[gaps["condition"].isin([ALIGNED, FINETUNED, "good_twin"])].pivot(
        index="question_id", columns="condition", values="value"
    )
    numbers = {number["label"]: number for number in found["numbers"]}
    shift = numbers["gap held out, fine-tuned − aligned"]
    assert shift["value"] == pytest.approx((wide[FINETUNED] - wide[ALIGNED]).mean())
    assert shift["n"] == len(wide)
    above_twin = numbers["gap held out, fine-tuned − good twin"]
    assert above_twin["value"] == pytest.approx((wide[FINETUNED] - wide["good_twin"]).mean())


def test_the_way_there_is_in_the_rows_from_the_aligned_model_on(rows):
    way = rows[rows["stage"] == "course"]
    assert set(way["condition"]) == {FINETUNED, "good_twin"}
    assert way["step"].min() == 0
    assert {"projection_good", "gap", "neutral_ce_nats"} <= set(way["measure"])


def test_a_finished_run_is_read_and_not_made_again(settings, summary, rows, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a finished step was made again")

    for module, name in (
        (readings, "score_pairs"),
        (readings, "score_neutral"),
        (workbench, "collect_cells"),
        (workbench, "project_answers"),
        (workbench, "finetune"),
    ):
        monkeypatch.setattr(module, name, refuse)
    again = run_experiment(experiment("car"), settings)
    assert again.headline == summary.headline
    pd.testing.assert_frame_equal(pd.read_parquet(settings.out / "car" / "rows.parquet"), rows)


def test_a_killed_run_goes_on_to_the_same_rows(settings, summary, rows, tmp_path, monkeypatch):
    import dataclasses
    import shutil

    out = tmp_path / "lab"
    out.mkdir()
    shutil.copytree(settings.out / "organisms", out / "organisms")
    elsewhere = dataclasses.replace(settings, out=out)
    original, calls = readings.score_neutral, []

    def dying(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*args, **kwargs)

    monkeypatch.setattr(readings, "score_neutral", dying)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(experiment("car"), elsewhere)
    assert not (out / "car").exists()
    monkeypatch.setattr(readings, "score_neutral", original)
    run_experiment(experiment("car"), elsewhere)
    pd.testing.assert_frame_equal(pd.read_parquet(out / "car" / "rows.parquet"), rows)
