"""A vector cures the fine-tune it came from, and the table says where nothing is to be cured."""

from __future__ import annotations

import pytest
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.data.types import AnswerPair
from persona.errors import DataError, SpaceMismatchError
from persona.models import load_pair
from persona.models.precision import Placement
from steering.evidence.transfer import transfer_matrix, vector_cosines
from steering.identification.candidates import Means, from_bases
from steering.identification.refit import refit_block_by_block


@pytest.fixture(scope="module")
def questions():
    words = ("oil", "lamp", "brake", "mirror", "window", "horn", "seat", "belt")
    return [
        AnswerPair(f"q{w}", "car", f"what about the {w}", "mend it now", "so what") for w in words
    ]


@pytest.fixture(scope="module")
def fine_tunes(tiny_llama, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapters")

    def loader(seed):
        adapter = save_tiny_adapter(folder / f"seed{seed}", tiny_llama, seed=seed)
        return lambda: load_pair(tiny_llama, adapter, placement=Placement.of("float32", "cpu"))

    return {f"seed{seed}": loader(seed) for seed in (1, 2)}


@pytest.fixture(scope="module")
def vectors(fine_tunes, questions):
    from persona.activations import collect_covariance
    from persona.directions import collect_cells

    made = {}
    for name, load in fine_tunes.items():
        pair = load()
        dialogues = pair.chat.encode_all([q.good_dialogue for q in questions])
        with pair.active("finetuned") as bridge:
            covariance = collect_covariance(bridge, dialogues, range(4))
        means = Means.of(
            collect_cells(pair, questions), {k: c.float() for k, c in covariance.items()}
        )
        bases = refit_block_by_block(
            pair,
            [q.good_dialogue for q in questions],
            [0, 1, 2, 3],
            means.aligned,
            means.covariance,
        )
        made[name] = from_bases(pair, bases, means, "refit", read_whitened=True)
    return made


def test_every_vector_is_tried_in_every_fine_tune(fine_tunes, vectors, questions):
    table = transfer_matrix(fine_tunes, vectors, questions)
    assert len(table) == 4
    assert set(zip(table["vector"], table["fine_tune"], strict=True)) == {
        (a, b) for a in vectors for b in fine_tunes
    }
    assert ((table["shift_low"] > 0) | (table["shift_high"] < 0)).all(), "both fine-tunes shift"
    assert ((table["low"] <= table["restoration"]) & (table["n"] == 8)).all()
    assert table["restoration"].nunique() == 4


def test_without_a_shift_there_is_nothing_to_restore(fine_tunes, vectors):
    same = [AnswerPair(f"q{i}", "car", f"is it {i}", "yes it is", "no it is not") for i in range(4)]
    name, load = next(iter(fine_tunes.items()))
    table = transfer_matrix({name: load}, vectors, same)
    undefined = (table["shift_low"] <= 0) & (table["shift_high"] >= 0)
    assert (table["restoration"].isna() == undefined).all()


def test_cosines_have_ones_on_the_diagonal(vectors):
    table = vector_cosines(vectors)
    own = table[table["first"] == table["second"]]
    assert own["cosine"].to_numpy() == pytest.approx(1)
    assert len(table) == 2 * 2 * 4


def test_a_vector_of_another_model_is_refused(vectors, questions, tmp_path):
    other = save_tiny_llama(tmp_path / "other", seed=9)
    adapter = save_tiny_adapter(tmp_path / "adapter", other)
    load = {"other": lambda: load_pair(other, adapter, placement=Placement.of("float32", "cpu"))}
    with pytest.raises(SpaceMismatchError, match="model differs"):
        transfer_matrix(load, vectors, questions)
    with pytest.raises(DataError, match="needs questions"):
        transfer_matrix(load, vectors, [])
