"""`persona traits compare`: a table, JSON and figures of traits; what does not fit is one line."""

from __future__ import annotations

import json

import pytest
import torch
from trait_cases import planted_trait, unit

from persona.cli.main import main
from persona.directions.exchange import VectorSet, save_vector_set
from persona.traits.comparing.kept_trait import DIFFERENCES
from persona.traits.comparing.model_effect import METHOD, MODEL_EFFECT

D, LAYERS = 48, 3


def leave(folder, vector, *, seed: int, revision: str = "r1") -> None:
    made = planted_trait("x", vector, seed=seed, layer=1, n_layers=LAYERS)
    facts = {"sign": "toward the trait", "layer": 1, "revision": revision, "verdict": "found"}
    folder.mkdir()
    save_vector_set(
        VectorSet(made.vectors.vectors, "resid_post", "tiny", "made", facts),
        folder / "vector.safetensors",
    )
    assert made.differences is not None
    made.differences.save(folder / DIFFERENCES)
    (folder / "trait.json").write_text("{}")


def leave_diagnosis(folder, vector, revision: str = "r1") -> None:
    folder.mkdir()
    rows = {layer: torch.from_numpy(vector).float() for layer in range(LAYERS)}
    facts = {"sign": "toward the trait", "revision": revision, "n_layers": LAYERS}
    save_vector_set(VectorSet(rows, "resid_post", "tiny", METHOD, facts), folder / MODEL_EFFECT)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evil, rude, tuesday = (unit(k, D) for k in range(3))
    leave(tmp_path / "evil", evil, seed=1)
    leave(tmp_path / "rude", 0.7 * evil + 0.7 * rude, seed=2)
    leave(tmp_path / "tuesday", tuesday, seed=3)
    leave_diagnosis(tmp_path / "run", 3 * evil + 2 * unit(9, D))
    return tmp_path


def test_traits_are_compared_and_a_fine_tune_lies_among_them(folders, capsys):
    words = ["traits", "compare", "evil", "rude", "--nonsense", "tuesday", "--finetune", "run"]
    assert main([*words, "--out", "space"]) == 0
    told = capsys.readouterr().out
    assert "run resembles evil, rude, beyond chance." in told
    found = json.loads((folders / "space" / "space.json").read_text())
    [pair] = [
        row
        for row in found["cosines"]
        if (row["first"], row["second"], row["layer"]) == ("evil", "rude", 1)
    ]
    assert pair["own"] == "both" and pair["low"] < 0.7 < pair["high"] and pair["n"] == 16
    assert {row["layer"] for row in found["cosines"]} == {0, 1, 2}
    evil = found["shifts"]["run"]["traits"][0]
    assert evil["resembles"] and evil["nonsense"] < evil["cosine"]
    for name in ("cosines.svg", "shift.svg"):
        assert "<svg" in (folders / "space" / name).read_text()


def test_json_is_the_file_and_nothing_else(folders, capsys):
    assert main(["traits", "compare", "evil", "rude", "--json", "--out", "space"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told == json.loads((folders / "space" / "space.json").read_text())
    assert not (folders / "space" / "shift.svg").exists()


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["evil"], "at least two traits"),
        (["evil", "nowhere"], "there is no trait nowhere"),
        (["evil", "rude", "--block", "7"], "a vector at block 7; they share 0-2"),
        (["evil", "rude", "--finetune", "rude"], "holds no model_effect.safetensors"),
        (["evil", "rude", "--finetune", "other"], "both must be of one model"),
    ],
)
def test_what_cannot_be_compared_is_one_line(folders, capsys, words, line):
    leave_diagnosis(folders / "other", unit(0, D), revision="r2")
    assert main(["traits", "compare", *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and line in told.err
    assert not (folders / "persona-space").exists()


def test_one_trait_and_several_are_not_mixed_up(capsys):
    assert main(["traits", "flatters the user"]) == 2
    assert "`persona trait` makes a vector" in capsys.readouterr().err
    assert main(["trait", "compare", "evil", "rude"]) == 2
    assert "`persona traits compare`" in capsys.readouterr().err
