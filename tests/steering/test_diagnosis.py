"""The main job on a tiny pair: four files, every field, and a killed run that goes on."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from persona.directions import load_persona_vector
from persona.errors import DataError
from steering import DiagnoseConfig, diagnose, restore_to_aligned, steer
from steering.diagnosis import COLUMNS, Questions
from steering.scorecard import CONDITIONS, make_scorecard

WORDS = [
    "oil",
    "tyre",
    "lamp",
    "road",
    "door",
    "seat",
    "fuel",
    "wire",
    "bolt",
    "hose",
    "belt",
    "horn",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what about the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home", "food")
        for i, word in enumerate(WORDS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(data, tiny_llama, tiny_adapter, tmp_path_factory):
    def make(out, **changes):
        return DiagnoseConfig(
            aligned=str(tiny_llama),
            finetuned=str(tiny_adapter),
            out=out,
            data=data,
            trained_on=("car",),
            dtype="float32",
            device="cpu",
            questions_per_domain=4,
            **changes,
        )

    return make


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory):
    out = tmp_path_factory.mktemp("finished")
    return out, diagnose(config(out))


def stripped(scorecard):
    return {k: v for k, v in scorecard.items() if k not in ("seconds", "peak_rss_bytes")}


def test_the_folder_holds_the_four_files_and_nothing_half_written(finished):
    out, _ = finished
    names = sorted(path.name for path in out.iterdir())
    assert names == ["direction.safetensors", "report.html", "rows.parquet", "scorecard.json"]


def test_the_scorecard_has_every_field_of_the_contract(finished):
    out, result = finished
    card = json.loads((out / "scorecard.json").read_text())
    assert card == result.scorecard
    assert [c["name"] for c in card["conditions"]][:6] == list(CONDITIONS)
    for condition in card["conditions"]:
        assert condition["em_rate"] is None and condition["coherence"] is None
        assert set(condition["gap_held_out"]) == {"mean", "low", "high", "n"}
    for name in ("models", "data", "emergent_shift", "kl_restoration", "verdict", "seconds"):
        assert card[name] is not None
    assert set(card["direction"]) >= {
        "method",
        "rank",
        "layers",
        "hook_names",
        "norms",
        "split_half_cosine",
    }
    assert len(card["direction"]["split_half_cosine"]) == len(card["direction"]["layers"])
    assert card["peak_rss_bytes"] > 1e8


def test_every_number_is_recomputable_from_the_rows(finished):
    out, result = finished
    rows = pd.read_parquet(out / "rows.parquet")
    assert list(rows.columns) == list(COLUMNS)
    again = make_scorecard(
        rows,
        result.vector,
        models=result.scorecard["models"],
        data=result.scorecard["data"],
        split_half_cosine=result.scorecard["direction"]["split_half_cosine"],
    )
    for name, value in again.items():
        assert result.scorecard[name] == value, name


def test_held_out_domains_only_score(finished):
    _, result = finished
    rows = result.rows
    chosen_on = rows[rows.stage.isin(["screen", "verify", "dose"]) & (rows.split == "selection")]
    assert set(chosen_on.domain) == {"car"}
    held_out = rows[(rows.stage == "score") & (rows.split == "held_out")]
    assert set(held_out.domain) == {"home", "food"}
    texts = rows[rows.split == "neutral"].groupby("stage")["question_id"].agg(set)
    assert not texts["verify"] & texts["score"]


def test_the_saved_direction_steers_like_the_scored_one(finished, tiny_pair):
    out, result = finished
    loaded = load_persona_vector(out / "direction.safetensors")
    assert loaded.method == result.vector.method and loaded.layers == result.vector.layers
    assert loaded.card["trained_on"] == ["car"]
    with tiny_pair.active("finetuned") as bridge, steer(bridge, restore_to_aligned(loaded)):
        bridge(tiny_pair.tokenizer("<s>hello there", return_tensors="pt")["input_ids"])


def test_the_same_seed_gives_the_same_scorecard(finished, config, tmp_path):
    _, result = finished
    assert stripped(diagnose(config(tmp_path)).scorecard) == stripped(result.scorecard)


@pytest.mark.parametrize("stage", ["attribute", "dose", "score-neutral"])
def test_a_killed_run_goes_on_to_the_same_result(finished, config, tmp_path, monkeypatch, stage):
    from steering.workspace import Workspace

    whole = Workspace._stage

    def dying(self, name, *rest):
        if name == stage:
            raise KeyboardInterrupt
        return whole(self, name, *rest)

    monkeypatch.setattr(Workspace, "_stage", dying)
    with pytest.raises(KeyboardInterrupt):
        diagnose(config(tmp_path))
    assert not (tmp_path / "scorecard.json").exists()
    made = []

    def counting(self, name, path, make, *rest):
        return whole(self, name, path, lambda: (made.append(name), make())[1], *rest)

    monkeypatch.setattr(Workspace, "_stage", counting)
    again = diagnose(config(tmp_path))
    assert "cells" not in made and stage in made
    assert stripped(again.scorecard) == stripped(finished[1].scorecard)


def test_another_configuration_does_not_reuse_stages(config, tmp_path, monkeypatch):
    from steering.workspace import Workspace

    first = Workspace(tmp_path, {"seed": 0})
    first.table("x", lambda: pd.DataFrame({"a": [1]}))
    assert Workspace(tmp_path, {"seed": 0}).resumed
    assert not Workspace(tmp_path, {"seed": 1}).resumed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trained_on": ("boat",)}, "no domain 'boat'; the data has car, food, home"),
        ({"trained_on": ("car", "home", "food")}, "one must be left to score"),
        ({"n_random": 5}, "at least 20 random draws; got 5"),
    ],
)
def test_bad_settings_are_named(data, tmp_path, changes, message):
    settings = {"finetuned": "x", "out": tmp_path, "data": data, "trained_on": ("car",), **changes}
    with pytest.raises(DataError, match=message):
        Questions.of(DiagnoseConfig(**settings))
