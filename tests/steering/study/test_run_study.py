"""A study of tiny models from its plan to the page; killed, changed and half done."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError, PersonaError
from persona.models.precision import Placement
from steering.study import load_plan, look_ahead, study
from steering.study.run_study import PAGE, READINGS, TABLE
from steering.study.study_cells import CELLS, RECORD
from steering.study.study_table import study_number

PLACEMENT = Placement.of("float32", "cpu")


def cells_in(out):
    return sorted(path.parent.name for path in (out / CELLS).glob(f"*/*/{RECORD}"))


def test_one_cell_alone_is_no_table_yet_and_the_next_call_goes_on(finished_study):
    out, first, whole = finished_study
    assert first.table is None
    assert first.summary == "1 of 2 fine-tunes are finished"
    assert whole.facts["cells"]["finished"] == 2
    assert cells_in(out) == ["seed-0", "seed-1"]


def test_every_number_is_recomputable_from_the_readings(finished_study):
    out, _, whole = finished_study
    readings = pd.read_parquet(out / READINGS)
    for one in json.loads((out / TABLE).read_text())["numbers"]:
        mine = readings[
            (readings["fine_tune"] == one["fine_tune"]) & (readings["number"] == one["name"])
        ]
        ratio = mine["numerator"].mean() / mine["denominator"].mean()
        assert ratio == pytest.approx(one["value"])
        assert mine["fine_tune_seed"].nunique() == one["n_seeds"] == 2
        assert mine["domain"].nunique() == one["n_domains"] == 2
    names = [one["name"] for one in whole.facts["numbers"]]
    assert names == [
        "shift", "shift_above_twin", "net_restoration", "noop", "placebo_good_twin"
    ]  # fmt: skip


def test_a_number_is_that_of_the_scorecard(finished_study):
    out, _, whole = finished_study
    shift = whole.table.of("car_bad", "shift")
    for seed, value in zip(shift.seeds, shift.design.of_seeds(), strict=True):
        card = json.loads((out / CELLS / "car_bad" / f"seed-{seed}" / "scorecard.json").read_text())
        assert value == pytest.approx(card["emergent_shift"]["value"])


def test_seeds_were_asked_the_same_questions_and_are_other_fine_tunes(finished_study):
    out, _, whole = finished_study
    first, second = whole.facts["cells"]["each"]
    assert first["adapter_sha256"] != second["adapter_sha256"]
    assert first["plan_sha256"] == second["plan_sha256"] == whole.facts["plan_sha256"]
    rows = {
        s: pd.read_parquet(out / CELLS / "car_bad" / f"seed-{s}" / "rows.parquet") for s in (0, 1)
    }
    rows[1] = rows[1].assign(question_id="other " + rows[1]["question_id"])
    with pytest.raises(DataError, match="not read on the same questions"):
        study_number("car_bad", "shift", rows)


def test_the_hash_and_the_page_say_what_was_planned(finished_study):
    out, _, whole = finished_study
    page = (out / PAGE).read_text()
    assert whole.facts["plan_sha256"] in page
    assert "<svg" in page and 'role="img"' in page and "aria-label=" in page
    assert "seeds and domains" in page
    assert "1 test is made" in page
    assert "power" in page


def test_a_finished_study_is_read_and_nothing_is_run(finished_study, study_files, monkeypatch):
    out, _, whole = finished_study
    monkeypatch.setattr("steering.diagnosis.run.diagnose", None)
    again = study(load_plan(study_files / "plan.yaml"), out, placement=PLACEMENT)
    assert again.facts == whole.facts


def test_a_changed_plan_is_refused_and_loses_nothing(finished_study, plan_with):
    out, _, _ = finished_study
    before = sorted(out.rglob("*"))
    changed = load_plan(plan_with(primary="net_restoration"))
    with pytest.raises(DataError, match="primary is shift there and net_restoration now"):
        look_ahead(changed, out, PLACEMENT)
    assert sorted(out.rglob("*")) == before


def test_another_number_format_is_another_run(finished_study, study_files):
    planned = load_plan(study_files / "plan.yaml")
    with pytest.raises(DataError, match="dtype is float32 there and bfloat16 now"):
        look_ahead(planned, finished_study[0], Placement.of("bfloat16", "cpu"))


@pytest.mark.parametrize("file", ["cell.json", "rows.parquet"])
def test_a_cell_that_does_not_match_the_plan_or_its_rows_is_refused(
    finished_study, study_files, tmp_path, file
):
    out = tmp_path / "out"
    shutil.copytree(finished_study[0], out)
    there = out / CELLS / "car_bad" / "seed-1" / file
    if file == "cell.json":
        record = json.loads(there.read_text())
        there.write_text(json.dumps({**record, "plan_sha256": "0" * 64}))
        said = "is of the plan 000000000000"
    else:
        rows = pd.read_parquet(there)
        rows.assign(value=rows["value"] + 0.1).to_parquet(there)
        said = "is not what this cell wrote"
    with pytest.raises(DataError, match=said):
        look_ahead(load_plan(study_files / "plan.yaml"), out, PLACEMENT)


def test_everything_wrong_is_found_before_a_model_is_loaded(plan_with, tmp_path):
    planned = load_plan(
        plan_with(
            recipes=[{"recipe": "bad.yaml", "twin": "good.yaml", "trained_on": ["no_domain"]}],
        )
    )
    (tmp_path / "file").write_text("")
    with pytest.raises(PersonaError) as caught:
        look_ahead(planned, tmp_path / "file" / "out", PLACEMENT)
    said = str(caught.value) + " ".join(map(str, getattr(caught.value, "errors", [])))
    assert "no_domain" in said
    assert "out" in said


def test_a_number_that_was_not_read_is_told_as_absent(finished_study, study_files):
    from steering.study.study_cells import cells_of
    from steering.study.study_table import study_table

    out, _, _ = finished_study
    planned = load_plan(study_files / "plan.yaml")
    plan = planned.plan.model_copy(update={"measured": ("shift", "skill_kept")})
    table = study_table(plan, cells_of(planned, out))
    assert len(table.absent) == 1
    assert "skill kept" in table.absent[0]


def test_intervals_widen_from_questions_to_seeds_to_domains(finished_study):
    _, _, whole = finished_study
    known = next(n for n in whole.facts["numbers"] if n["name"] == "shift")["intervals"]
    width = {scope: ends["high"] - ends["low"] for scope, ends in known.items()}
    assert width["seeds and questions"] >= width["seeds"] or np.isclose(*width.values())
    assert all(ends["crossed_bootstrap"]["low"] is not None for ends in known.values())
