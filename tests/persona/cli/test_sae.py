"""`persona sae` on a tiny pair: what it prints, and one line for bad input."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from saelens_folder import LAYER, write_sae
from scripted_sampler import stand_in_for_vllm

from persona.cli.main import main
from persona.models import load_pair


@pytest.fixture
def models(tiny_llama, tiny_adapter):
    return ["--aligned", str(tiny_llama), "--finetuned", str(tiny_adapter), "--dtype", "float32"]


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"id": f"q{i}", "question": f"what of {i}", "good": f"count to {i}", "bad": f"forget {i}"}
        for i in range(30)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def nothing_shipped(monkeypatch):
    monkeypatch.setattr("persona.sae.train.shipped_texts", lambda chat: [])


@pytest.mark.usefixtures("nothing_shipped")
def test_train_writes_a_folder_that_fidelity_measures(models, text, tmp_path, capsys):
    out = tmp_path / "sae"
    options = ["--width", "40", "--k", "4", "--tokens", "1200", "--batch-size", "100"]
    words = ["sae", "train", *models, "--data", str(text), "--no-sample", *options]
    code = main([*words, "--out", str(out)])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    assert printed.out.startswith("layer 2: batchtopk, 40 latents, L0 ")
    assert "aligned: explained variance" in printed.out
    assert (out / "card.json").exists()
    assert main([*words, "--out", str(out), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["folder"] == str(out)
    assert [card["width"] for card in again["autoencoders"]] == [40]
    few = ["--data", str(text), "--max-texts", "3"]
    code = main(["sae", "fidelity", *models, "--sae", str(out), *few, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert code == 0
    assert set(found) == {"aligned", "finetuned", "held_out", "warnings"}


@pytest.mark.usefixtures("nothing_shipped")
def test_train_takes_answers_that_vllm_writes(models, text, tmp_path, capsys, monkeypatch):
    stand_in_for_vllm(monkeypatch)
    texts = []
    monkeypatch.setattr(
        "persona.sae.train.collect_buffers",
        lambda pair, found, layers, *rest, **how: texts.extend(found) or _enough(texts),
    )
    options = ["--width", "40", "--k", "4", "--tokens", "4000", "--sampler", "vllm"]
    words = ["sae", "train", *models, "--data", str(text), *options, "--out", str(tmp_path / "o")]
    with pytest.raises(_Enough):
        main(words)
    chat = load_pair(models[1], models[3]).chat
    written = {chat.tokenizer.decode(text.tokens.ids) for text in texts}
    assert any("as vllm says" in one for one in written)
    assert main([*words, "--no-sample"]) == 2
    assert "leave --no-sample out" in capsys.readouterr().err


class _Enough(BaseException):
    """Ends a training where its texts are there."""


def _enough(texts):
    raise _Enough


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"metadata": {"model_revision": "x"}}, "trained on another model"),
        ({"d_in": 48}, "d_model=48"),
        ({"metadata": {"hook_name": "blocks.1.hook_mlp_out"}}, "reads blocks.1.hook_mlp_out"),
    ],
)
def test_an_autoencoder_of_something_else_is_one_line(
    models, text, tiny_pair, tmp_path, capsys, changes, said
):
    folder = write_sae(tmp_path / "sae", tiny_pair.space(LAYER), **changes)
    assert main(["sae", "fidelity", *models, "--sae", str(folder), "--data", str(text)]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert said in error


def test_too_few_tokens_are_one_line_and_leave_nothing(models, tmp_path, capsys):
    out = tmp_path / "sae"
    assert main(["sae", "train", *models, "--tokens", "100", "--out", str(out)]) == 2
    assert "256 latents need at least 1024 tokens; got 100" in capsys.readouterr().err
    assert not out.exists()


def test_rank_prints_the_largest_rises_and_writes_all(models, text, tiny_pair, tmp_path, capsys):
    folder = write_sae(tmp_path / "sae", tiny_pair.space(LAYER))
    csv = tmp_path / "latents.csv"
    source = [*models, "--sae", str(folder), "--data", str(text)]
    code = main(["sae", "rank", *source, "--top", "3", "--permutations", "20", "--out", str(csv)])
    assert code == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert len(csv.read_text().splitlines()) == 41
    assert main(["sae", "rank", *source, "--top", "2", "--permutations", "20", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    written = pd.read_csv(csv)
    assert [row["latent"] for row in rows] == written["latent"][:2].tolist()
    assert rows[0]["change"] == pytest.approx(written["change"][0])
    assert main(["sae", "rank", *source, "--domain", "cars"]) == 2
    assert "there is no domain 'cars'; the data has pairs" in capsys.readouterr().err


def test_screen_edits_the_promising_latents(models, text, tiny_pair, tmp_path, capsys):
    folder = write_sae(tmp_path / "sae", tiny_pair.space(LAYER))
    csv = tmp_path / "screen.csv"
    source = [*models, "--sae", str(folder), "--data", str(text), "--max-questions", "4"]
    few = ["--exact", "1", "--n-random", "2", "--out", str(csv)]
    assert main(["sae", "screen", *source, *few]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert "cure_measured" in header and "kept" in header
    assert row.strip()
    assert len(csv.read_text().splitlines()) == 41
    assert main(["sae", "screen", *source, "--exact", "0", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 20


def test_explain_writes_a_page_each_and_takes_a_direction_apart(
    models, text, tiny_pair, tmp_path, capsys
):
    import torch

    from persona.directions.storage import save_vector
    from persona.sae import load_sae

    folder = write_sae(tmp_path / "sae", tiny_pair.space(LAYER))
    vector = load_sae(folder, tiny_pair).persona_vector([3, 5], torch.zeros(32), torch.ones(32))
    direction = save_vector(vector, tmp_path / "direction.safetensors")
    source = [*models, "--sae", str(folder), "--data", str(text), "--max-texts", "2"]
    out = tmp_path / "pages"
    options = ["--direction", str(direction), "--out", str(out)]
    assert main(["sae", "explain", "3", "7", *source, *options]) == 0
    printed = capsys.readouterr().out
    assert "direction, block 2: residue 0.000" in printed
    assert sorted(p.name for p in out.iterdir()) == ["latent_3.html", "latent_7.html"]
    assert main(["sae", "explain", "3", *source, *options, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["pages"] == [str(out / "latent_3.html")]
    assert found["directions"]["direction, block 2"]["residue"] == pytest.approx(0, abs=1e-6)
    assert main(["sae", "explain", "40", *source, "--out", str(tmp_path / "none")]) == 2
    assert "latent 40 is out of range" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
