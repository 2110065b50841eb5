"""Every format: written and read back bit for bit, each vector at the block it was planted at."""

import json

import pytest
import torch

from persona.directions.choosing import RefusalEvaluation, select_by_refusal_rule
from persona.directions.exchange import (
    AWAY_FROM_TRAIT,
    TOWARD_TRAIT,
    VectorSet,
    read_assistant_axis,
    read_cast,
    read_control_vector,
    read_neuronpedia,
    read_persona_vectors,
    read_refusal_direction,
    read_refusal_evaluations,
    read_steering_vectors,
    write_assistant_axis,
    write_cast,
    write_control_vector,
    write_neuronpedia,
    write_persona_vectors,
    write_refusal_direction,
    write_steering_vectors,
)
from persona.directions.exchange.formats import guess_target, read_vectors, write_vectors
from persona.errors import DataError

D, N_LAYERS = 16, 8


def random_set(layers, hook="resid_post", **facts):
    g = torch.Generator().manual_seed(3)
    scale = [1e-30, 1e30, 1.0]  # float32 all the way down and up
    vectors = {k: torch.randn(D, generator=g) * scale[i % 3] for i, k in enumerate(layers)}
    return VectorSet(vectors, hook, "llama", "planted", {"sign": TOWARD_TRAIT, **facts})


MANY, ONE = (1, 3, 4, 6), (4,)
ROUND_TRIPS = {
    "control_vector": (MANY, lambda v, p: read_control_vector(write_control_vector(v, p))),
    "persona_vectors": (
        MANY,
        lambda v, p: read_persona_vectors(write_persona_vectors(v, p, n_layers=N_LAYERS)),
    ),
    "assistant_axis": (
        (0, *MANY, 7),
        lambda v, p: read_assistant_axis(write_assistant_axis(v, p, n_layers=N_LAYERS)).pointing(
            TOWARD_TRAIT
        ),
    ),
    "steering_vectors": ((0, 7), lambda v, p: read_steering_vectors(write_steering_vectors(v, p))),
    "cast": (
        (0, 7),
        lambda v, p: read_cast(write_cast(v, p, layers_are="blocks"), layers_are="blocks"),
    ),
    "cast, blocks+1": (
        (0, 7),
        lambda v, p: read_cast(write_cast(v, p, layers_are="blocks+1"), layers_are="blocks+1"),
    ),
    "refusal_direction": (
        ONE,
        lambda v, p: read_refusal_direction(
            write_refusal_direction(v, p, position=-2)
        ).at_resid_post(),
    ),
    "neuronpedia": (ONE, lambda v, p: read_neuronpedia(write_neuronpedia(v, p, coefficient=2.0))),
}


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_what_is_written_comes_back_bit_for_bit_at_the_same_blocks(tmp_path, name):
    layers, there_and_back = ROUND_TRIPS[name]
    vectors = random_set(layers)
    back = there_and_back(vectors, tmp_path / "file")
    assert (back.hook, back.layers) == ("resid_post", list(layers))
    for layer in layers:
        assert back.vectors[layer].numpy().tobytes() == vectors.vectors[layer].numpy().tobytes()


@pytest.mark.parametrize("name", ROUND_TRIPS)
def test_a_set_read_at_block_inputs_lands_one_block_lower(tmp_path, name):
    layers, there_and_back = ROUND_TRIPS[name]
    inputs = random_set([layer + 1 for layer in layers], hook="resid_pre")
    back = there_and_back(inputs, tmp_path / "file").at_resid_post()
    assert back.layers == list(layers)
    for layer in layers:
        assert back.vectors[layer].equal(inputs.vectors[layer + 1])


def marked(*layers, hook="resid_post"):
    """The vector of block k has k + 1 at its place k and 0 elsewhere."""
    return VectorSet(
        {k: (k + 1) * torch.eye(D)[k] for k in layers}, hook, "llama", "", {"sign": TOWARD_TRAIT}
    )


def test_a_control_vector_names_the_block_whose_output_it_is_added_to(tmp_path):
    from gguf import GGUFReader

    reader = GGUFReader(write_control_vector(marked(2, 5), tmp_path / "v.gguf"))
    assert {t.name: t.data.argmax() for t in reader.tensors} == {"direction.2": 2, "direction.5": 5}
    assert [t.tensor_type.name for t in reader.tensors] == ["F32", "F32"]
    fields = {name: field.contents() for name, field in reader.fields.items()}
    assert fields["general.architecture"] == "controlvector"
    assert fields["controlvector.model_hint"] == "llama"
    assert fields["controlvector.layer_count"] == 2


def test_block_0_of_a_control_vector_is_refused_with_the_reason(tmp_path):
    with pytest.raises(DataError, match=r"block 0: llama.cpp refuses a file with direction\.0"):
        write_control_vector(marked(0, 5), tmp_path / "v.gguf")
    with pytest.raises(DataError, match="block 0: llama.cpp refuses"):
        write_control_vector(marked(1, 5, hook="resid_pre"), tmp_path / "v.gguf")
    assert list(tmp_path.iterdir()) == []


def test_a_control_vector_needs_a_model_hint(tmp_path):
    nameless = VectorSet({1: torch.ones(D)}, "resid_post")
    with pytest.raises(DataError, match="give the model"):
        write_control_vector(nameless, tmp_path / "v.gguf")
    path = write_control_vector(nameless, tmp_path / "v.gguf", model_hint="qwen3")
    assert read_control_vector(path).model == "qwen3"


def test_row_l_of_persona_vectors_is_the_output_of_block_l_minus_1(tmp_path):
    rows = torch.arange(1.0, 6.0)[:, None] * torch.ones(D)  # 4 blocks, row l holds l + 1
    torch.save(rows, tmp_path / "evil.pt")
    read = read_persona_vectors(tmp_path / "evil.pt", model="m")
    assert read.layers == [0, 1, 2]
    assert [float(v[0]) for v in read.vectors.values()] == [2.0, 3.0, 4.0]
    assert (read.model, read.facts["n_layers"]) == ("m", 4)
    assert "row 4 (after the final norm" in read.facts["left_out"]


def test_persona_vectors_are_written_one_row_lower_than_their_block(tmp_path):
    written = write_persona_vectors(marked(0, 5), tmp_path / "v.pt", n_layers=N_LAYERS)
    rows = torch.load(written, weights_only=True)
    assert rows.shape == (N_LAYERS + 1, D)
    assert rows.nonzero().tolist() == [[1, 0], [6, 5]]


def test_the_last_block_of_persona_vectors_is_refused_both_ways(tmp_path):
    with pytest.raises(DataError, match=r"last block \(7\) is after the final norm"):
        write_persona_vectors(marked(3, 7), tmp_path / "v.pt", n_layers=N_LAYERS)
    with pytest.raises(DataError, match="block 7, beyond 7 blocks"):
        write_persona_vectors(marked(3, 7), tmp_path / "v.pt", n_layers=7)


def test_row_k_of_an_assistant_axis_is_the_output_of_block_k_away_from_the_trait(tmp_path):
    path = write_assistant_axis(marked(0, 5), tmp_path / "axis.pt", n_layers=N_LAYERS)
    content = torch.load(path, weights_only=True)
    assert content["axis"].shape == (N_LAYERS, D)
    assert content["axis"].nonzero().tolist() == [[0, 0], [5, 5]]
    assert content["axis"][5, 5] == -6
    read = read_assistant_axis(path)
    assert (read.layers, read.model) == ([0, 5], "llama")
    assert read.facts["sign"] == AWAY_FROM_TRAIT
    assert read.facts["left_out"] == "blocks whose row is 0: 1, 2, 3, 4, 6, 7"


def test_an_axis_that_was_read_is_written_as_it_was(tmp_path):
    axis = torch.randn(3, D, generator=torch.Generator().manual_seed(0))
    torch.save({"axis": axis, "n_roles": 4, "role_mean": axis}, tmp_path / "a.pt")
    read = read_assistant_axis(tmp_path / "a.pt", model="m")
    assert (read.model, read.facts["n_roles"]) == ("m", 4)
    assert "role_mean" not in read.facts
    written = write_assistant_axis(read, tmp_path / "b.pt", n_layers=3)
    assert torch.load(written, weights_only=True)["axis"].equal(axis)


def test_steering_vectors_are_the_arguments_of_their_class(tmp_path):
    written = write_steering_vectors(marked(0, 5), tmp_path / "v.pt")
    content = torch.load(written, weights_only=True)
    assert set(content) == {"layer_activations", "layer_type"}
    assert content["layer_type"] == "decoder_block"
    assert {k: int(v.argmax()) for k, v in content["layer_activations"].items()} == {0: 0, 5: 5}


def test_vectors_of_the_mlp_are_no_residual(tmp_path):
    torch.save({"layer_activations": {1: torch.ones(D)}, "layer_type": "mlp"}, tmp_path / "v.pt")
    with pytest.raises(DataError, match="layer_type is 'mlp'; only 'decoder_block'"):
        read_steering_vectors(tmp_path / "v.pt")


def test_the_layers_of_cast_mean_what_the_reader_is_told(tmp_path):
    directions = {str(k): [float(k)] * D for k in (0, 1, 2)}
    path = tmp_path / "v.svec"
    content = {
        "model_type": "llama",
        "directions": directions,
        "explained_variances": {"0": 0.1, "1": 0.25, "2": 0.5},
    }
    path.write_text(json.dumps(content))
    blocks = read_cast(path, layers_are="blocks")
    assert {k: float(v[0]) for k, v in blocks.vectors.items()} == {0: 0.0, 1: 1.0, 2: 2.0}
    entries = read_cast(path, layers_are="blocks+1")
    assert {k: float(v[0]) for k, v in entries.vectors.items()} == {0: 1.0, 1: 2.0}
    assert entries.facts["left_out"] == "key 0 (embedding)"
    assert entries.facts["explained_variances"] == {"0": 0.25, "1": 0.5}
    written = json.loads(
        write_cast(entries, tmp_path / "w.svec", layers_are="blocks+1").read_text()
    )
    assert written["directions"].keys() == written["explained_variances"].keys() == {"1", "2"}


def test_cast_asks_what_its_layers_mean(tmp_path, unchecked_hints):
    with pytest.raises(TypeError, match="layers_are"):
        read_cast(tmp_path / "v.svec")
    with pytest.raises(DataError, match=r"layers are blocks or blocks\+1; got 'rows'"):
        read_cast(tmp_path / "v.svec", layers_are="rows")


def test_a_refusal_direction_stands_before_its_block(tmp_path):
    path = write_refusal_direction(marked(5), tmp_path / "x.direction.pt", position=-3)
    said = json.loads((tmp_path / "x.direction_metadata.json").read_text())
    assert said == {"pos": -3, "layer": 6}
    read = read_refusal_direction(path, model="m")
    assert (read.hook, read.layers, read.facts["position"]) == ("resid_pre", [6], -3)
    assert read.vectors[6].argmax() == 5
    again = write_refusal_direction(read, tmp_path / "direction.pt")
    assert again.with_name("direction_metadata.json").read_text().count('"layer": 6') == 1


def test_a_refusal_direction_asks_for_one_block_and_a_position(tmp_path):
    with pytest.raises(DataError, match="holds one block and there are 2"):
        write_refusal_direction(marked(1, 2), tmp_path / "d.pt", position=-1)
    with pytest.raises(DataError, match="give the position"):
        write_refusal_direction(marked(1), tmp_path / "d.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_neuronpedia_vector_keeps_its_hook_label_and_coefficient(tmp_path):
    path = write_neuronpedia(
        marked(5, hook="resid_pre"), tmp_path / "v.json", coefficient=8.0, label="Evil", model="g"
    )
    content = json.loads(path.read_text())
    assert (content["modelId"], content["layerNumber"]) == ("g", 5)
    assert (content["hookType"], content["vectorLabel"]) == ("hook_resid_pre", "Evil")
    read = read_neuronpedia(path)
    assert (read.hook, read.layers, read.model) == ("resid_pre", [5], "g")
    assert (read.facts["label"], read.facts["default_coefficient"]) == ("Evil", 8.0)
    again = write_neuronpedia(read, tmp_path / "w.json")
    assert again.read_text() == path.read_text()


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"label": "x"}, "the default coefficient"),
        ({"coefficient": 1.0}, "a label"),
    ],
)
def test_what_a_neuronpedia_vector_must_name_is_asked_for(tmp_path, options, what):
    with pytest.raises(DataError, match=f"names {what}, which is not known"):
        write_neuronpedia(marked(1), tmp_path / "v.json", **options)


def evaluation(layer, ablated, added=1.0, kl=0.0):
    return RefusalEvaluation(-1, layer, ablated, added, kl)


def test_the_rule_takes_the_smallest_ablated_score_among_those_that_qualify():
    good = evaluation(3, -2.0)
    rest = [
        evaluation(4, -1.0),
        evaluation(8, -9.0),  # 0.8 * 10: too late
        evaluation(2, -9.0, added=-0.1),
        evaluation(2, -9.0, kl=0.11),
        evaluation(2, -9.0, kl=float("nan")),
        evaluation(2, float("nan")),
    ]
    for order in ([good, *rest], [*rest, good]):
        assert select_by_refusal_rule(order, 10) is good
    assert select_by_refusal_rule([*rest, evaluation(7, -3.0, 0.0, 0.1)], 10).layer == 7


def test_the_depth_is_rounded_down_as_released():
    at_14 = evaluation(14, -9.0)  # 0.8 * 18 = 14.4
    assert select_by_refusal_rule([at_14, evaluation(13, 0.0)], 18).layer == 13


def test_without_a_candidate_the_rule_says_what_stopped_each():
    with pytest.raises(DataError, match="of 2, 1 are complete and before block 8, 0 of them"):
        select_by_refusal_rule([evaluation(9, 0.0), evaluation(1, 0.0, kl=5.0)], 10)


@pytest.mark.parametrize(("name", "n_layers"), [("gemma-2b-it", 18), ("qwen-1_8b-chat", 24)])
def test_the_rule_reproduces_the_published_choice(shared_data, name, n_layers):
    folder = shared_data / "fixtures" / "refusal_direction"
    rows = read_refusal_evaluations(folder / f"{name}.direction_evaluations.json")
    assert len(rows) % n_layers == 0
    chosen = select_by_refusal_rule(rows, n_layers)
    published = json.loads((folder / f"{name}.direction_metadata.json").read_text())
    assert {"pos": chosen.position, "layer": chosen.layer} == published


def test_the_published_refusal_direction_is_read_without_its_storage(shared_data):
    path = shared_data / "fixtures" / "refusal_direction" / "gemma-2b-it.direction.pt"
    read = read_refusal_direction(path)
    [(layer, vector)] = read.vectors.items()
    assert (layer, read.hook, read.facts["position"]) == (10, "resid_pre", -2)
    assert vector.untyped_storage().nbytes() == 4 * 2048 < path.stat().st_size // 100
    other = path.with_name("gemma-2b-it.mean_diffs.pt")
    means = torch.load(other, map_location="cpu", weights_only=True)
    assert vector.equal(means[-2, 10].float())


def test_the_published_persona_vector_saved_on_a_gpu_is_read(shared_data):
    path = shared_data / "fixtures" / "persona_vectors" / "Qwen3-4B.evil_response_avg_diff.pt"
    read = read_persona_vectors(path, model="Qwen/Qwen3-4B")
    rows = torch.load(path, map_location="cpu", weights_only=True)
    assert read.layers == list(range(35))
    assert all(vector.equal(rows[layer + 1]) for layer, vector in read.vectors.items())
    assert read.norms[34] > 1.5 * float(rows[36].norm())  # what the final norm would have hidden


@pytest.mark.parametrize("name", ["v.gguf", "V.GGUF", "v.safetensors", "v.json"])
def test_a_file_shows_its_own_format(tmp_path, name):
    vectors = VectorSet({3: torch.ones(4)}, "resid_post", "llama", "made up")
    path, kind = tmp_path / name, guess_target(tmp_path / name)
    write_vectors(vectors, path, kind, label="v", coefficient=1.0)
    found = read_vectors(path)
    assert found.layers == [3] and torch.equal(found.vectors[3], vectors.vectors[3])


def test_a_format_that_is_open_or_that_there_is_not_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"the name v\.pt leaves its format open"):
        read_vectors(tmp_path / "v.pt")
    with pytest.raises(DataError, match="there is no format 'xyz' of vectors; there are persona-v"):
        read_vectors(tmp_path / "v.pt", "xyz")
