"""One line from texts to a probe with its direction; the model runs once."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import probes.reading
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError, SpaceMismatchError
from probes.estimators import AttentionPoolProbe, LdaProbe, MultiLayerProbe, PooledProbe
from probes.fitting import fit
from probes.reading import encode_texts, read_pooled

QUESTIONS = [f"{word} {n}?" for word in ("why", "how", "what", "when") for n in range(3)]


def dialogues():
    """Two answers to each question; the bad ones shout."""
    texts, labels, groups = [], [], []
    for number, question in enumerate(QUESTIONS):
        for bad, answer in enumerate((f"take care {number}", f"NEVER MIND {number}")):
            texts.append(Dialogue((Turn("user", question), Turn("assistant", answer))))
            labels.append(bad)
            groups.append(question)
    return texts, labels, groups


@pytest.fixture
def runs(monkeypatch):
    """Counts how often the model is run."""
    count = []
    for name in ("collect_rows", "collect_tokens"):
        original = getattr(probes.reading, name)

        def counted(*args, original=original, **options):
            count.append(1)
            return original(*args, **options)

        monkeypatch.setattr(probes.reading, name, counted)
    return count


def test_one_line_gives_a_probe_its_direction_and_held_out_numbers(tiny_pair, tmp_path):
    found = fit(tiny_pair, *dialogues(), layer=2, cache=tmp_path)
    assert found.direction.space == tiny_pair.space(2)
    assert found.direction.method == "LogisticProbe"
    assert found.evaluation is not None
    assert found.evaluation.auroc.value > 0.9
    scores = found.scores(tiny_pair, dialogues()[0], cache=tmp_path)
    assert ((scores > 0) == np.asarray(dialogues()[1])).all()


@pytest.mark.parametrize(
    "probe", [LdaProbe(), PooledProbe("max"), AttentionPoolProbe(max_iter=20)], ids=repr
)
def test_the_model_runs_once_for_the_same_texts(tiny_pair, tmp_path, runs, probe):
    first = fit(tiny_pair, *dialogues(), layer=1, probe=probe, cache=tmp_path, scheme=None)
    again = fit(tiny_pair, *dialogues(), layer=1, probe=probe, cache=tmp_path, scheme=None)
    assert len(runs) == 1
    np.testing.assert_array_equal(first.probe.coef_, again.probe.coef_)
    texts, labels, groups = dialogues()
    fit(tiny_pair, texts[2:], labels[2:], groups[2:], layer=1, cache=tmp_path, scheme=None)
    for change in ({"layer": 0}, {"side": "aligned"}, {"token_set": "all"}):
        options = {"layer": 1, "scheme": None, "cache": tmp_path, **change}
        fit(tiny_pair, *dialogues(), probe=probe, **options)
    assert len(runs) == 5


def test_a_damaged_cache_is_read_anew(tiny_pair, tmp_path, runs):
    texts = dialogues()[0][:3]
    rows = read_pooled(tiny_pair, texts, [1], cache=tmp_path)
    [path] = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    assert (read_pooled(tiny_pair, texts, [1], cache=tmp_path) == rows).all()
    assert (read_pooled(tiny_pair, texts, [1], cache=tmp_path) == rows).all()
    assert len(runs) == 2


def test_activations_are_kept_in_the_cache_folder_of_the_toolkit(tiny_pair, tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))
    read_pooled(tiny_pair, ["some text"], [0])
    assert len(list((tmp_path / "activations").glob("*.safetensors"))) == 1
    read_pooled(tiny_pair, ["some text"], [1], cache=False)
    assert len(list((tmp_path / "activations").glob("*.safetensors"))) == 1


def test_several_layers_give_a_direction_each(tiny_pair, tmp_path):
    probe = MultiLayerProbe("stack", n_folds=3)
    found = fit(tiny_pair, *dialogues(), layer=[0, 2], probe=probe, cache=tmp_path, scheme=None)
    assert found.layers == (0, 2)
    assert [d.space.layer for d in found.directions] == [0, 2]
    with pytest.raises(DataError, match="2 directions, not one"):
        _ = found.direction


def test_one_model_by_name_is_enough(tiny_llama: Path, tmp_path):
    found = fit(str(tiny_llama), *dialogues(), layer=1, cache=tmp_path, scheme=None)
    assert found.side == "aligned"
    assert found.direction.space.d_model == 32


def test_bare_texts_are_read_as_they_stand(tiny_pair):
    [encoded] = encode_texts(tiny_pair.chat, ["abc"])
    assert encoded.ids == tuple(tiny_pair.tokenizer("abc")["input_ids"])
    assert encoded.response == (1, len(encoded.ids))


def test_a_probe_of_another_model_is_refused(tiny_pair, tmp_path):
    found = fit(tiny_pair, *dialogues(), layer=1, cache=tmp_path, scheme=None)
    other = dataclasses.replace(tiny_pair, revisions={"aligned": "x", "finetuned": "y"})
    with pytest.raises(SpaceMismatchError, match="revision differs"):
        found.scores(other, ["some text"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [1] * 24}, "all 24 labels are of one class"),
        ({"labels": [0, 1]}, "2 labels for 24 rows"),
        ({"groups": None}, "groups are missing"),
        ({"texts": [*dialogues()[0][:23], "  "]}, "text 23 is empty"),
        ({"texts": [*dialogues()[0][:23], "x" * 600]}, "600 tokens but the model reads 512"),
        ({"layer": [0, 1]}, "LogisticProbe reads one layer; got 2"),
        ({"token_set": "answer"}, "unknown token set 'answer'"),
        ({"layer": 9}, "layer 9 is out of range"),
    ],
)
def test_what_does_not_fit_is_named(tiny_pair, tmp_path, change, message):
    texts, labels, groups = dialogues()
    given = {"texts": texts, "labels": labels, "groups": groups, "layer": 1, **change}
    with pytest.raises((DataError, ModelError), match=message):
        fit(tiny_pair, cache=tmp_path, **given)
