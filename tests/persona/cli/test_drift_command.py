"""`persona drift`: a planted change of level is found at its turn, a steady conversation is not."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_models import save_tiny_llama

from persona.cli.main import main
from persona.data import Dialogue, Turn
from persona.directions.exchange import VectorSet, save_vector_set
from persona.models import Placement
from persona.models.alone import load_alone
from probes.reading import read_pooled

CALM, LOUD = "abcab", "zyxzy"
PLAIN = ["--dtype", "float32", "--device", "cpu"]


def chat(answers: list[str]) -> list[dict[str, str]]:
    return [
        message
        for answer in answers
        for message in (
            {"role": "user", "content": "why?"},
            {"role": "assistant", "content": answer},
        )
    ]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, the direction from calm to loud answers in it, and a random one."""
    here = tmp_path_factory.mktemp("drift")
    pair = load_alone(
        save_tiny_llama(here / "model", n_layers=3), placement=Placement.of("float32", "cpu")
    )
    texts = [Dialogue((Turn("user", "why?"), Turn("assistant", a))) for a in (CALM, LOUD)]
    calm, loud = read_pooled(pair, texts, [1], side="aligned", cache=False)[:, 0]
    random = torch.randn(pair.d_model, generator=torch.Generator().manual_seed(1))
    for name, vector in (("loud", loud - calm), ("random", random)):
        facts = {"sign": "toward the trait", "layer": 1, "revision": pair.revisions["aligned"]}
        vectors = VectorSet({1: vector}, "resid_post", "tiny", "made", facts)
        save_vector_set(vectors, here / f"{name}.safetensors")
    return here


def run(place, monkeypatch, answers, *words) -> int:
    monkeypatch.chdir(place)
    (place / "chat.json").write_text(json.dumps({"messages": chat(answers)}))
    return main(["drift", "chat.json", "--model", "model", *PLAIN, *words])


def test_a_planted_change_is_found_at_its_turn_and_a_steady_talk_has_none(
    place, monkeypatch, capsys
):
    words = ["--direction", "loud.safetensors", "--out", "out"]
    assert run(place, monkeypatch, [CALM] * 5 + [LOUD] * 5, *words) == 0
    told = capsys.readouterr().out
    found = json.loads((place / "out" / "drift.json").read_text())["directions"]["loud"]
    assert found["layer"] == 1
    assert found["drift"]["change_at_turn"] == 11
    assert found["drift"]["p_value"] < 0.05
    assert found["drift"]["mean_after"] > found["drift"]["mean_before"]
    assert "from turn 11 on" in told and "toward it" in told
    assert "<svg" in (place / "out" / "drift.svg").read_text()
    assert run(place, monkeypatch, [CALM, LOUD] * 5, *words) == 0
    found = json.loads((place / "out" / "drift.json").read_text())["directions"]["loud"]
    assert found["drift"]["p_value"] > 0.3


def test_several_directions_share_their_error_rate(place, monkeypatch, capsys):
    words = ["--direction", "loud.safetensors", "--direction", "random.safetensors", "--json"]
    assert run(place, monkeypatch, [CALM] * 4 + [LOUD] * 4, *words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["turns"][1]["projection"].keys() == {"loud", "random"}
    for about in found["directions"].values():
        assert about["drift"]["p_family"] >= about["drift"]["p_value"] - 0.02


def test_few_turns_are_read_and_not_tested(place, monkeypatch, capsys):
    assert run(place, monkeypatch, [CALM] * 3, "--direction", "loud.safetensors") == 0
    assert "Not tested: 3 turns of the assistant's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("{", "line 1: no JSON"),
        ("{}", "holds no conversation"),
        ("[1]", 'message 1 has no "role"'),
        ('[{"role": "user", "content": "why?"}]', "no turn of the assistant's"),
        ('[{"role": "king", "content": "why?"}]', "role must be one of"),
    ],
)
def test_what_is_no_conversation_is_one_line(place, monkeypatch, capsys, content, line):
    monkeypatch.chdir(place)
    (place / "bad.json").write_text(content)
    words = ["--model", "model", *PLAIN, "--direction", "loud.safetensors", "--out", "none"]
    assert main(["drift", "bad.json", *words]) == 2
    told = capsys.readouterr()
    assert told.out == "" and line in told.err
    assert not (place / "none").exists()
