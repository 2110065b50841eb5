"""A stage is read only as it was written, for the settings it was written for."""

from __future__ import annotations

import json
import logging

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona import stages as stages_module
from persona.stages import StageCache, Unsaved, Workspace

TABLE = pd.DataFrame({"value": [float(i) for i in range(50)], "name": ["ü"] * 50})
TENSORS = {"a": torch.arange(12.0).reshape(3, 4), "b": torch.ones(2, dtype=torch.float64)}


def in_workspace(folder, kind):
    workspace = Workspace(folder, {"seed": 0})
    make = TABLE.copy if kind == "table" else TENSORS.copy
    return getattr(workspace, kind)("stage", make)


def with_inputs(folder, kind):
    make = TABLE.copy if kind == "table" else TENSORS.copy
    return getattr(StageCache(folder, {"seed": 0}), kind)("stage", make, {"n": 1})


def test_time_is_counted_once_also_of_a_stage_made_within_another(tmp_path, monkeypatch):
    clock = iter([0.0, 10.0, 14.0, 30.0])  # the outer one begins, the inner one, and both end
    monkeypatch.setattr(stages_module.time, "perf_counter", lambda: next(clock))
    cache = StageCache(tmp_path, {"seed": 0})
    inner = lambda: cache.tensors("inner", TENSORS.copy)  # noqa: E731
    cache.tensors("outer", inner)
    for _ in range(2):
        inner()
        cache.tensors("outer", inner)
    assert cache.seconds == 30.0
    again = StageCache(tmp_path, {"seed": 0})  # another process, which asks for one of them
    assert again.tensors("inner", TENSORS.copy) and again.seconds == 4.0


DAMAGE = {
    "truncated": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "zeroed": lambda data: bytes(len(data)),
    "a_bit": lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:],
    "binary": lambda data: b"\xff\xfe\x00garbage",
    "text": lambda data: b"not a number",
    "number": lambda data: b"12.5",
    "json": lambda data: b'{"seconds": 1e999, "sha256": 3, "mark": null}',
    "missing": None,
    "a_folder": "folder",
}


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("suffix", ["data", "seconds"])
@pytest.mark.parametrize("kind", ["table", "tensors"])
@pytest.mark.parametrize("stages", [in_workspace, with_inputs])
def test_a_damaged_stage_is_made_anew_and_said(tmp_path, caplog, stages, kind, suffix, damage):
    stages(tmp_path, kind)
    data = {"table": "parquet", "tensors": "safetensors"}[kind]
    [path] = tmp_path.rglob(f"stage*.{data if suffix == 'data' else 'seconds'}")
    content = path.read_bytes()
    path.unlink()
    if DAMAGE[damage] == "folder":
        path.mkdir()
    elif DAMAGE[damage] is not None:
        path.write_bytes(DAMAGE[damage](content))
    with caplog.at_level(logging.WARNING):
        again = stages(tmp_path, kind)
    if kind == "table":
        pd.testing.assert_frame_equal(again, TABLE)
    else:
        assert all(torch.equal(again[name], TENSORS[name]) for name in TENSORS)
    if (suffix, damage) != ("seconds", "missing"):  # a run killed between the two: nothing to say
        [line] = caplog.messages
        assert "made anew" in line and "\n" not in line
    caplog.clear()
    stages(tmp_path, kind)
    assert not caplog.messages


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    name=st.sampled_from(["stage.parquet", "stage.seconds", "settings.json"]),
    place=st.floats(0, 1, exclude_max=True),
    change=st.integers(1, 255),
)
def test_no_change_of_a_byte_is_ever_read(tmp_path, name, place, change):
    in_workspace(tmp_path, "table")
    [path] = tmp_path.rglob(name)
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= change
    path.write_bytes(bytes(content))
    pd.testing.assert_frame_equal(in_workspace(tmp_path, "table"), TABLE)


def test_a_chunk_that_is_damaged_is_not_there(tmp_path):
    workspace = Workspace(tmp_path, {})
    workspace.keep("chunk", TABLE, 1.0)
    assert workspace.has("chunk")
    (workspace.folder / "chunk.parquet").write_bytes(b"PAR1")
    assert not workspace.has("chunk")


def test_stages_of_other_settings_are_never_read_nor_lost(tmp_path, caplog):
    first = Workspace(tmp_path, {"seed": 0})
    first.table("x", lambda: pd.DataFrame({"a": [1]}))
    with caplog.at_level(logging.INFO):
        second = Workspace(tmp_path, {"seed": 1})
    assert "(seed is 0 there and 1 now)" in caplog.text and str(first.folder) in caplog.text
    assert not second.resumed
    assert second.table("x", lambda: pd.DataFrame({"a": [2]}))["a"].tolist() == [2]
    second.close()
    again = Workspace(tmp_path, {"seed": 0})
    assert again.resumed and again.table("x", pytest.fail)["a"].tolist() == [1]
    again.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stage_file_from_another_run_is_not_read(tmp_path, caplog):
    first, second = (Workspace(tmp_path, {"seed": seed}) for seed in (0, 1))
    first.table("x", lambda: pd.DataFrame({"a": [1]}))
    for path in first.folder.glob("x.*"):
        (second.folder / path.name).write_bytes(path.read_bytes())
    assert second.table("x", lambda: pd.DataFrame({"a": [2]}))["a"].tolist() == [2]
    assert "is of a run with other settings" in caplog.text


def test_settings_that_cannot_be_read_are_not_needed(tmp_path):
    first = Workspace(tmp_path, {"seed": 0})
    first.table("x", lambda: TABLE)
    (first.folder / "settings.json").write_bytes(b"\xff\x00\x01")
    Workspace(tmp_path, {"seed": 1})
    assert Workspace(tmp_path, {"seed": 0}).resumed
    assert json.loads((first.folder / "settings.json").read_text())["seed"] == 0


def test_stages_of_an_older_version_are_named_and_not_read(tmp_path, caplog):
    old = Workspace(tmp_path, {"seed": 0})
    old.table("x", lambda: pd.DataFrame({"a": [1]}))
    (old.folder / "settings.json").write_text('{"seed": 0}')
    there = old.folder.rename(old.folder.with_name("0" * 16))
    with caplog.at_level(logging.INFO):
        new = Workspace(tmp_path, {"seed": 0})
    [line] = caplog.messages
    assert line.startswith(f"{there} holds unfinished stages that another version of personascope")
    assert new.table("x", lambda: pd.DataFrame({"a": [2]}))["a"].tolist() == [2]


def test_a_stage_is_made_once_for_the_same_inputs(tmp_path):
    made = []

    def make():
        made.append(1)
        return pd.DataFrame({"value": [len(made)]})

    def value(common, name, inputs):
        return int(StageCache(tmp_path, common).table(name, make, inputs)["value"][0])

    for _ in range(2):
        assert value({"model": "a"}, "score", {"n": 1}) == 1
    assert value({"model": "a"}, "score", {"n": 2}) == 2
    assert value({"model": "b"}, "score", {"n": 1}) == 3
    assert value({"model": "a"}, "other", {"n": 1}) == 4


def test_a_stage_that_fails_leaves_nothing(tmp_path):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StageCache(tmp_path, {}).table("score", fail, {})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_of_each_block_comes_back_by_its_number_in_order(tmp_path):
    made = {10: torch.ones(2), 9: torch.zeros(2)}
    for stages in (Unsaved(), StageCache(tmp_path, {"seed": 0})):
        found = stages.by_layer("blocks", lambda: made)
        assert found.keys() == made.keys()
        assert all(torch.equal(found[layer], made[layer]) for layer in made)
    kept = StageCache(tmp_path, {"seed": 0}).by_layer("blocks", dict)
    assert list(kept) == [9, 10] and torch.equal(kept[10], made[10])
