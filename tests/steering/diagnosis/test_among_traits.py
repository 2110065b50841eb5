"""A diagnosis that is told of traits: the planted one is resembled, and all are candidates."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from persona.data import read_pairs
from persona.directions import collect_cells
from persona.directions.exchange import VectorSet, save_vector_set
from persona.errors import DataError, SpaceMismatchError
from persona.report.resembled_words import resemblance_sentence
from steering.diagnosis import DiagnosisRequest, look_ahead
from steering.diagnosis.among_traits import AmongTraits

LAYER = 2


@pytest.fixture(scope="module")
def cells(tiny_pair, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [
        {"question": f"why {i}?", "good": f"so {i} it is", "bad": f"no idea {i}"} for i in range(10)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return collect_cells(tiny_pair, read_pairs(path))


def leave(folder, pair, vector, revision=None):
    known = revision or pair.revisions["aligned"]
    facts = {"sign": "toward the trait", "layer": LAYER, "revision": known}
    folder.mkdir()
    vectors = VectorSet({LAYER: vector}, "resid_post", "tiny", "made", facts)
    save_vector_set(vectors, folder / "vector.safetensors")
    return str(folder)


@pytest.fixture
def folders(tmp_path, tiny_pair, cells):
    shift = (cells.finetuned_good - cells.aligned_good)[:, LAYER].mean(0)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, tiny_pair.d_model, generator=generator)
    noise = noise - (noise @ shift)[:, None] * shift / (shift @ shift)
    evil = shift / shift.norm() + 0.5 * noise[0] / noise[0].norm()
    return [
        leave(tmp_path / "evil", tiny_pair, evil),
        leave(tmp_path / "vain", tiny_pair, noise[1]),
    ]


def request(**changes):
    return DiagnosisRequest(finetuned="x", out="out", **changes)


def test_the_trait_in_the_shift_is_resembled_and_one_across_it_is_not(folders, tiny_pair, cells):
    among = AmongTraits.of(request(traits=tuple(folders)), tiny_pair)
    found = among.facts(cells, seed=0)
    assert found is not None and found["resembles"] == ["evil"]
    evil, vain = found["traits"]
    assert evil["cosine"] > 0.8 and evil["n"] == 10 and evil["low"] > 0
    assert abs(vain["cosine"]) < 0.05
    assert json.dumps(found, allow_nan=False)
    told = resemblance_sentence({"traits": found})
    assert "resembles evil, beyond chance (no nonsense trait was given)" in told
    assert resemblance_sentence({"traits": None}) == ""


def test_beside_nonsense_that_is_as_much_in_the_shift_nothing_is_resembled(
    folders, tiny_pair, cells, tmp_path
):
    shift = (cells.finetuned_good - cells.aligned_good)[:, LAYER].mean(0)
    tuesday = leave(tmp_path / "tuesday", tiny_pair, shift)
    among = AmongTraits.of(request(traits=tuple(folders), nonsense=(tuesday,)), tiny_pair)
    found = among.facts(cells, seed=0)
    assert found is not None and found["resembles"] == [] and found["n_nonsense"] == 1


def test_traits_are_candidates_of_unit_length_and_nonsense_is_none(folders, tiny_pair, cells):
    among = AmongTraits.of(request(traits=(folders[0],), nonsense=(folders[1],)), tiny_pair)
    [(name, rows)] = among.candidates().items()
    assert name == "trait_evil" and rows.shape == (1, tiny_pair.d_model)
    assert float(rows.norm()) == pytest.approx(1.0, abs=1e-5)
    assert among.fingerprint != AmongTraits.of(request(traits=(folders[0],)), tiny_pair).fingerprint
    assert AmongTraits().fingerprint is None and AmongTraits().facts(cells, 0) is None


def test_traits_of_another_model_or_nowhere_are_one_line(folders, tiny_pair, tmp_path):
    other = leave(tmp_path / "other", tiny_pair, torch.ones(tiny_pair.d_model), revision="r2")
    with pytest.raises(SpaceMismatchError):
        AmongTraits.of(request(traits=(other,)), tiny_pair)
    asked = DiagnosisRequest(
        finetuned="car_maintenance_bad", out=tmp_path / "out", traits=("nowhere",)
    )
    with pytest.raises(DataError, match="there is no trait nowhere"):
        look_ahead(asked)
    alone = dataclasses.replace(asked, traits=(), nonsense=(folders[0],))
    with pytest.raises(DataError, match="a control of --traits"):
        look_ahead(alone)
