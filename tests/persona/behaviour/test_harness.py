"""lm-evaluation-harness on a pair: its numbers are ours, edits are on, refusals are one line."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

pytest.importorskip("lm_eval", reason="needs the extra eval (lm-evaluation-harness)")

from pushed_model import Pushed

from persona.behaviour import UNEDITED, Condition, score_tasks
from persona.behaviour.harness import HarnessTasks, _language_model
from persona.data.tasks import read_tasks
from persona.directions import PersonaVector, Subspace
from persona.directions.exchange import write_steered
from persona.errors import DataError
from persona.models import Placement, load_pair
from persona.models.hooks import hooked

ROWS = [
    {"question": f"which {n}", "choices": ["zzzz", "qqqq", "xxxx"], "answer": n % 3}
    for n in range(6)
]
TASK = """\
task: tiny_local
dataset_path: json
dataset_kwargs:
  data_files:
    test: {data}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: choices
doc_to_target: answer
target_delimiter: ""
metric_list:
  - metric: acc
  - metric: acc_norm
"""


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp("harness")
    data = folder / "mine.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    path = folder / "tiny.yaml"
    path.write_text(TASK.format(data=data), encoding="utf-8")
    return path, read_tasks(data)


def test_accuracy_is_that_of_our_own_scorer_with_and_without_an_edit(tiny_pair, task):
    path, items = task
    tasks = HarnessTasks.of([str(path)])
    conditions = [
        UNEDITED[1],
        Condition("x", "finetuned", Pushed("x"), 3),
    ]
    ours = score_tasks(tiny_pair, items, conditions)
    for condition in conditions:
        found = tasks.run(tiny_pair, condition)
        total = found[(found.stage == "total") & (found.measure == "acc")].iloc[0]
        mine = ours[(ours.condition == condition.name) & (ours.measure == "task_correct")]
        of_items = found[(found.stage == "item") & (found.measure == "acc")]
        np.testing.assert_array_equal(of_items["value"], mine["value"])
        assert total["value"] == pytest.approx(mine["value"].mean())
        assert total["n"] == len(items)
        assert set(found["condition"]) == {condition.name}
        if condition.intervene is not None:  # the planted truth
            wanted = "zqx".index(condition.name)
            assert list(of_items["value"]) == [item.answer == wanted for item in items]


def test_the_pair_is_left_as_it_was(tiny_pair, task):
    before = score_tasks(tiny_pair, task[1], UNEDITED)
    HarnessTasks.of([str(task[0])], limit=1).run(tiny_pair, UNEDITED[0])
    after = score_tasks(tiny_pair, task[1], UNEDITED)
    np.testing.assert_array_equal(before["value"], after["value"])


def test_a_file_that_is_not_there_and_data_that_is_not_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*none\.yaml"):
        HarnessTasks.of([str(tmp_path / "none.yaml")])
    path = tmp_path / "gone.yaml"
    path.write_text(TASK.format(data=tmp_path / "gone.jsonl"), encoding="utf-8")
    with pytest.raises(DataError, match="reads a data set that is neither at hand nor to be had"):
        HarnessTasks.of([str(path)])


def test_a_data_set_of_the_hub_that_is_not_reached_is_one_line(tmp_path, monkeypatch):
    import datasets

    def unreachable(*_, **__):
        raise ConnectionError("Couldn't reach 'org/exam' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    path = tmp_path / "exam.yaml"
    path.write_text(TASK.format(data="x").replace("path: json", "path: org/exam"))
    with pytest.raises(DataError, match="neither at hand nor to be had: Couldn't reach 'org/exam'"):
        HarnessTasks.of([str(path)])


def test_the_harness_steers_by_our_file_as_we_do(tiny_llama, tiny_adapter, tmp_path):
    from lm_eval.api.instance import Instance
    from lm_eval.models.hf_steered import SteeredModel

    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cpu"))
    basis = torch.nn.functional.normalize(torch.linspace(-1, 2, pair.d_model)[None], dim=1)
    subspace = Subspace(basis, torch.tensor([3.0]), torch.tensor([-1.0]), pair.space(2))
    vector = PersonaVector({2: subspace}, "made up")
    path = write_steered(vector, tmp_path / "steered.pt", lambda layer: f"layers.{layer}")
    asked = [
        Instance("loglikelihood", {}, ("which way", text), n)
        for n, text in enumerate((" up", " down there", " left"))
    ]
    theirs = SteeredModel(
        pretrained=str(tiny_llama), steer_path=str(path), device="cpu", dtype="float32"
    ).loglikelihood(asked)
    with pair.active("aligned") as model:
        lm = _language_model(pair, model, 1)
        plain = lm.loglikelihood(asked)
        with hooked(model, [("blocks.2.hook_out", restoring(basis[0], 3.0))]):
            ours = lm.loglikelihood(asked)
    np.testing.assert_allclose([p for p, _ in theirs], [p for p, _ in ours], atol=1e-4)
    assert np.abs(np.array([p for p, _ in plain]) - [p for p, _ in ours]).min() > 1e-2


def restoring(unit, target):
    """Sets the projection of every token, the first one too."""
    return lambda resid: resid + (target - resid @ unit)[..., None] * unit
