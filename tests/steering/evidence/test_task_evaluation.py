"""Tasks on both models and the restored one: totals, paired differences, going on, refusals."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from persona.behaviour import UNEDITED, score_tasks
from persona.data.tasks import load_tasks, read_tasks
from persona.directions import PersonaVector, Subspace, save_vector
from persona.errors import DataError, PersonaError
from persona.models import Placement, load_pair
from steering.edits.from_directions import restore
from steering.edits.steer import edited
from steering.evidence import EvalConfig, evaluate_tasks, models_of_run, task_evaluation
from steering.evidence.task_evaluation import table_rows

ROWS = [
    {"question": f"which {n}", "choices": ["up", "down there", "left"], "answer": n % 3}
    | {"kind": "physics" if n < 4 else "sums"}
    for n in range(7)
]


@pytest.fixture(scope="module")
def given(tiny_llama, tiny_adapter, tmp_path_factory):
    """Models, a direction of rank 1, and a file of items."""
    folder = tmp_path_factory.mktemp("eval")
    placement = Placement.of("float32", "cpu")
    pair = load_pair(str(tiny_llama), str(tiny_adapter), placement=placement)
    basis = torch.nn.functional.normalize(torch.randn(1, pair.d_model), dim=1)
    subspace = Subspace(basis, torch.tensor([2.0]), torch.tensor([-1.0]), pair.space(2))
    vector = PersonaVector({2: subspace}, "made up")
    save_vector(vector, folder / "direction.safetensors")
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return {
        "aligned": str(tiny_llama),
        "finetuned": str(tiny_adapter),
        "direction": folder / "direction.safetensors",
        "tasks": (str(path),),
        "placement": placement,
        "pair": pair,
        "vector": vector,
    }


def config_of(given, out, **changes):
    wanted = {k: v for k, v in given.items() if k not in ("pair", "vector")}
    return EvalConfig(**{**wanted, "out": out, **changes})


def entry(results, measure, kind=""):
    [found] = [one for one in results["tasks"] if one["measure"] == measure and one["kind"] == kind]
    return found["conditions"]


def test_the_numbers_are_those_of_score_tasks_with_their_standard_errors(given, tmp_path):
    found = evaluate_tasks(config_of(given, tmp_path))
    conditions = [
        *UNEDITED,
        edited("finetuned_restored", "finetuned", restore(given["vector"])),
    ]
    rows = score_tasks(given["pair"], read_tasks(given["tasks"][0]), conditions)
    for measure in ("task_correct", "task_margin"):
        for name, one in entry(found.results, measure).items():
            values = rows[(rows.condition == name) & (rows.measure == measure)]["value"]
            assert one["value"] == pytest.approx(values.mean(), abs=1e-4)
            assert one["stderr"] == pytest.approx(values.std() / math.sqrt(7), abs=1e-4)
            assert one["n"] == 7
    margins = entry(found.results, "task_margin")
    lost = margins["finetuned_restored"]
    assert lost["minus_aligned"]["value"] == pytest.approx(
        lost["value"] - margins["aligned"]["value"], abs=1e-9
    )
    assert lost["minus_aligned"]["low"] <= lost["minus_aligned"]["value"]
    assert margins["aligned"]["minus_aligned"] is None
    assert margins["finetuned"]["minus_finetuned"] is None
    assert lost["value"] != pytest.approx(margins["finetuned"]["value"], abs=1e-3)
    assert {one["n"] for one in entry(found.results, "task_correct", "sums").values()} == {3}


def test_table_json_and_rows_are_written_and_say_the_same(given, tmp_path):
    found = evaluate_tasks(config_of(given, tmp_path, direction=None))
    assert json.loads((tmp_path / "results.json").read_text()) == found.results
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len(table) == 2 + len(table_rows(found.results)) == 2 + 4 * 3 * 2
    rows = pd.read_parquet(tmp_path / "rows.parquet")
    assert list(rows["condition"].unique()) == ["aligned", "finetuned"]
    means = rows[(rows.stage == "item") & (rows.measure == "task_margin")].groupby("condition")
    for name, mean in means["value"].mean().items():
        assert entry(found.results, "task_margin")[name]["value"] == pytest.approx(mean)
    assert found.results["steered_file"] is None
    assert not (tmp_path / ".work").exists()


def test_the_restoration_is_written_for_the_harness_where_its_format_holds_it(
    given, tmp_path, caplog
):
    results = evaluate_tasks(config_of(given, tmp_path)).results
    assert results["steered_file"] == "steered.pt"
    # The fine-tune is an adapter: the harness loads it around the model.
    assert list(torch.load(tmp_path / "steered.pt", weights_only=True)) == ["model.model.layers.2"]
    wide = torch.linalg.qr(torch.randn(given["pair"].d_model, 2))[0].T.contiguous()
    two = Subspace(wide, torch.zeros(2), torch.ones(2), given["pair"].space(1))
    path = save_vector(PersonaVector({1: two}, "made up"), tmp_path / "two.safetensors")
    with caplog.at_level("INFO", logger="persona"):
        results = evaluate_tasks(config_of(given, tmp_path, direction=path)).results
    assert results["steered_file"] is None
    assert "steered.pt is not written: the `steered` file" in caplog.text
    assert not (tmp_path / "steered.pt").exists()


def test_a_stopped_run_goes_on_with_the_next_condition(given, tmp_path, monkeypatch):
    asked = []
    real = task_evaluation.score_tasks

    def counting(pair, items, conditions, **options):
        asked.append(conditions[0].name)
        if asked.count("finetuned") == 1 and conditions[0].name == "finetuned":
            raise KeyboardInterrupt
        return real(pair, items, conditions, **options)

    monkeypatch.setattr(task_evaluation, "score_tasks", counting)
    with pytest.raises(KeyboardInterrupt):
        evaluate_tasks(config_of(given, tmp_path))
    found = evaluate_tasks(config_of(given, tmp_path))
    assert asked == ["aligned", "finetuned", "finetuned", "finetuned_restored"]
    assert np.isfinite(entry(found.results, "task_margin")["aligned"]["value"])


def test_a_limit_takes_the_first_items_of_each_kind(given, tmp_path):
    found = evaluate_tasks(config_of(given, tmp_path, direction=None, limit=2))
    asked = found.rows[found.rows.stage == "item"]["question_id"].unique()
    assert list(asked) == ["mine-001", "mine-002", "mine-005", "mine-006"]


def test_the_items_that_come_along_are_the_default():
    assert EvalConfig("a", "b", Path("out")).tasks == ("tasks",)
    assert len(task_evaluation._own_items("tasks", 3)) == 12
    assert task_evaluation._own_items("tasks", None) == load_tasks()


@pytest.mark.parametrize(
    ("changes", "error", "why"),
    [
        ({"tasks": ("none.jsonl",)}, DataError, "none.jsonl cannot be read"),
        ({"tasks": ("tasks", "tasks")}, DataError, "given twice"),
        ({"finetuned": "/no/such"}, PersonaError, "/no/such"),
    ],
)
def test_bad_input_is_told_before_anything_is_written(given, tmp_path, changes, error, why):
    out = tmp_path / "out"
    with pytest.raises(error, match=why):
        evaluate_tasks(config_of(given, out, **changes))
    assert not out.exists()


def test_a_diagnosis_names_its_models(tmp_path):
    with pytest.raises(DataError, match=r"holds no scorecard\.json"):
        models_of_run(tmp_path)
    path = tmp_path / "scorecard.json"
    path.write_text(json.dumps({"models": {"aligned": "a", "finetuned": "b"}}))
    assert models_of_run(tmp_path) == ("a", "b", None, {})
    (tmp_path / "direction.safetensors").write_bytes(b"")
    assert models_of_run(tmp_path)[2] == tmp_path / "direction.safetensors"
    hub = {"aligned": "HuggingFaceTB/SmolLM2-135M-Instruct", "finetuned": "car_maintenance_bad"}
    path.write_text(json.dumps({"models": hub}))
    assert models_of_run(tmp_path)[0] == "smollm2-135m"  # which needs no hub
    path.write_text(json.dumps({"models": []}))
    with pytest.raises(DataError, match="does not say which models it is of"):
        models_of_run(tmp_path)
