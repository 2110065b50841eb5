"""Damaged, foreign and hostile vector files: one clear line, nothing run, nothing blown up."""

import io
import json
import os
import pickle
import struct
import zipfile

import pytest
import torch

from persona.directions.exchange import (
    VectorSet,
    load_vector_set,
    read_assistant_axis,
    read_cast,
    read_control_vector,
    read_neuronpedia,
    read_persona_vectors,
    read_refusal_direction,
    read_refusal_evaluations,
    read_steering_vectors,
    save_vector_set,
    write_control_vector,
)
from persona.directions.exchange.safe_pickle import load_pt, owned
from persona.errors import DataError

D = 8


def why(read, path, **options):
    """The one line that reading a file raises; it names the file."""
    with pytest.raises(DataError) as caught:
        read(path, **options)
    line = str(caught.value)
    assert str(path.parent) in line
    assert "\n" not in line
    return line


def repacked(path, program, **more):
    """A .pt archive like torch's, whose pickle is `program`."""
    with zipfile.ZipFile(path, "w", **more) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(4 * D))
        archive.writestr("archive/version", "3\n")
    return path


class Shout:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
@pytest.mark.parametrize("archived", [True, False])
@pytest.mark.parametrize(
    "read", [read_persona_vectors, read_assistant_axis, read_steering_vectors, load_pt]
)
def test_a_pickle_that_would_run_a_command_is_refused(tmp_path, read, archived, protocol):
    shouted = tmp_path / "shouted"
    program = pickle.dumps({"axis": Shout(shouted)}, protocol=protocol)
    path = tmp_path / "evil.pt"
    if archived:
        repacked(path, program)
    else:
        path.write_bytes(program)
    line = why(read, path)
    assert "refused" in line or "no .pt file" in line
    assert not shouted.exists()


def test_the_command_would_have_run_in_an_ordinary_load(tmp_path):
    shouted = tmp_path / "shouted"
    pickle.loads(pickle.dumps(Shout(shouted)))
    assert shouted.exists()


def test_the_line_names_what_a_pickle_wanted_to_run(tmp_path):
    path = repacked(tmp_path / "evil.pt", pickle.dumps(Shout(tmp_path), protocol=2))
    assert "asks to run 'posix.system' on loading" in why(load_pt, path)


def test_what_weights_only_lets_through_is_refused_where_it_could_fill_the_memory(tmp_path):
    program = b"\x80\x02cbuiltins\nbytearray\n\x8a\x06" + (10**12).to_bytes(6, "little")
    line = why(load_pt, repacked(tmp_path / "big.pt", program + b"\x85R."))
    assert "'builtins.bytearray'" in line


def test_a_pickled_steering_vector_object_is_refused(tmp_path):
    class SteeringVector:
        pass

    SteeringVector.__module__, SteeringVector.__qualname__ = "steering_vectors.core", "V"
    program = b"\x80\x02csteering_vectors.steering_vector\nSteeringVector\n)\x81."
    line = why(read_steering_vectors, repacked(tmp_path / "v.pt", program))
    assert "'steering_vectors.steering_vector.SteeringVector'" in line


def test_a_zip_bomb_is_refused_before_it_is_opened(tmp_path):
    path = repacked(
        tmp_path / "bomb.pt", b"\x80\x02" + bytes(10**7), compression=zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 10**5
    assert "refused as a zip bomb" in why(load_pt, path)


def test_a_compressed_archive_is_refused(tmp_path):
    path = repacked(tmp_path / "v.pt", os.urandom(900), compression=zipfile.ZIP_DEFLATED)
    assert "compressed archive" in why(load_pt, path)


def test_a_tensor_larger_than_its_storage_is_refused(tmp_path):
    buffer = tmp_path / "wide.pt"
    torch.save(torch.ones(1).expand(10**11), buffer)
    assert buffer.stat().st_size < 10_000
    value = load_pt(buffer)
    with pytest.raises(DataError, match="more than the file holds"):
        owned(value, "it")


def test_a_storage_that_claims_more_than_the_file_ends_with_the_file(tmp_path):
    torch.save(torch.ones(D), tmp_path / "v.pt")
    with zipfile.ZipFile(tmp_path / "v.pt") as archive:
        name = next(n for n in archive.namelist() if n.endswith("data.pkl"))
        program = archive.read(name)
    assert program.count(b"K\x08") >= 2  # numel of the storage, and the size of the tensor
    grown = program.replace(b"K\x08", b"J" + struct.pack("<i", 10**8))
    line = why(load_pt, repacked(tmp_path / "grown.pt", grown))
    assert "damaged" in line


def test_lists_that_hold_each_other_a_million_fold_cost_nothing(tmp_path):
    nested = ["x"]
    for _ in range(60):
        nested = [nested, nested]
    torch.save({"axis": torch.ones(2, D), "metadata": {"a": nested, "b": 1}}, tmp_path / "n.pt")
    assert read_assistant_axis(tmp_path / "n.pt").facts["b"] == 1
    torch.save(nested, tmp_path / "n.pt")
    assert "tensor; got list" in why(read_persona_vectors, tmp_path / "n.pt")


def gguf(n_tensors=0, n_fields=0, body=b"", version=3, magic=b"GGUF"):
    return magic + struct.pack("<IQQ", version, n_tensors, n_fields) + body


def field(name, kind, value):
    return struct.pack("<Q", len(name)) + name + struct.pack("<I", kind) + value


def tensor(name=b"direction.1", n_dims=1, width=4, kind=0, offset=0):
    return (
        struct.pack("<Q", len(name))
        + name
        + struct.pack("<I", n_dims)
        + struct.pack("<Q", width) * min(n_dims, 4)
        + struct.pack("<IQ", kind, offset)
    )


HUGE = 2**62
ARCH = field(b"general.architecture", 8, struct.pack("<Q", 13) + b"controlvector")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "truncated"),
        (b"GGUF", "truncated"),
        (gguf(magic=b"GGML"), "no little-endian GGUF"),
        (gguf(version=0x03000000), "no little-endian GGUF"),
        (gguf(n_tensors=HUGE), "no control vector"),
        (gguf(n_tensors=1, n_fields=HUGE), "no control vector"),
        (gguf(1, 1, field(b"a", 9, struct.pack("<IQ", 4, HUGE))), "no control vector"),
        (gguf(1, 1, field(b"a", 9, struct.pack("<IQ", 9, 1))), "no control vector"),
        (gguf(1, 1, field(b"a", 8, struct.pack("<Q", HUGE))), "truncated"),
        (gguf(1, 1, field(b"a", 77, b"")), "unknown type 77"),
        (gguf(1, 1, field(b"\xff", 4, bytes(4))), "not UTF-8"),
        (gguf(1, 1, field(b"general.alignment", 4, bytes(4))), "power of two"),
        (gguf(1, 0, tensor(n_dims=HUGE % 2**32)), "dimensions"),
        (gguf(1, 0, tensor(n_dims=2)), "2 dimensions; a vector has 1"),
        (gguf(1, 0, tensor(width=HUGE)), "beyond the file"),
        (gguf(1, 0, tensor(offset=2**64 - 1)), "beyond the file"),
        (gguf(1, 0, tensor(kind=1) + bytes(64)), "number type 1; float32"),
        (gguf(1, 0, tensor() + bytes(64)), "general.architecture is None"),
        (gguf(1, 2, ARCH + ARCH + tensor() + bytes(64)), "damaged GGUF"),
        (gguf(2, 1, ARCH + tensor() + tensor() + bytes(64)), "damaged GGUF"),
        (gguf(1, 1, ARCH + tensor(name=b"token_embd") + bytes(64)), "no direction.<block>"),
        (gguf(1, 1, ARCH + tensor(name=b"direction.99999") + bytes(64)), "from 0 to 1023"),
    ],
)
def test_a_gguf_that_claims_too_much_is_refused_at_once(tmp_path, data, reason):
    path = tmp_path / "v.gguf"
    path.write_bytes(data)
    assert reason in why(read_control_vector, path)


def test_a_handmade_control_vector_is_read(tmp_path):
    start = gguf(1, 1, ARCH + tensor(width=2))
    start += bytes(-len(start) % 32)
    path = tmp_path / "v.gguf"
    path.write_bytes(start + struct.pack("<2f", 1.5, -2.0))
    read = read_control_vector(path)
    assert read.vectors[1].tolist() == [1.5, -2.0]
    assert read.model == ""


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_vector_that_is_not_finite_is_refused_by_every_reader(tmp_path, value):
    bad = torch.full((4, D), value)
    torch.save(bad, tmp_path / "p.pt")
    assert "not finite" in why(read_persona_vectors, tmp_path / "p.pt")
    torch.save({"axis": bad}, tmp_path / "a.pt")
    assert "not finite" in why(read_assistant_axis, tmp_path / "a.pt")
    torch.save({"layer_activations": {1: bad[0]}, "layer_type": "decoder_block"}, tmp_path / "s.pt")
    assert "not finite" in why(read_steering_vectors, tmp_path / "s.pt")
    torch.save(bad[0], tmp_path / "direction.pt")
    (tmp_path / "direction_metadata.json").write_text('{"pos": -1, "layer": 2}')
    assert "not finite" in why(read_refusal_direction, tmp_path / "direction.pt")
    (tmp_path / "v.svec").write_text(json.dumps({"directions": {"1": [value]}}))
    assert "not JSON" in why(read_cast, tmp_path / "v.svec", layers_are="blocks")
    path = write_control_vector(
        VectorSet({1: torch.full((D,), 7.0)}, "resid_post", "m"), tmp_path / "v.gguf"
    )
    marker = struct.pack("<f", 7.0)
    path.write_bytes(path.read_bytes().replace(marker, struct.pack("<f", value)))
    assert "not finite" in why(read_control_vector, path)


def test_rounding_to_infinity_is_noticed(tmp_path):
    torch.save(torch.full((4, D), 1e300, dtype=torch.float64), tmp_path / "p.pt")
    assert "not finite" in why(read_persona_vectors, tmp_path / "p.pt")
    (tmp_path / "v.svec").write_text('{"directions": {"1": [1e300]}}')
    assert "not finite" in why(read_cast, tmp_path / "v.svec", layers_are="blocks")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (torch.ones(D), "got shape (8,)"),
        (torch.ones(2, D), "got shape (2, 8)"),
        (torch.ones(5, 0), "at least one block"),
        (torch.ones(5, D, dtype=torch.int64), "floating-point numbers; got torch.int64"),
        (torch.zeros(5, D), "at least one block"),
        ({"axis": torch.ones(5, D)}, "must be a tensor; got dict"),
    ],
)
def test_another_thing_in_place_of_persona_vectors_is_named(tmp_path, content, reason):
    torch.save(content, tmp_path / "v.pt")
    assert reason in why(read_persona_vectors, tmp_path / "v.pt")


def test_each_format_says_what_another_format_lacks(tmp_path):
    path = tmp_path / "v.pt"
    torch.save(torch.ones(5, D), path)
    assert "object with keys; got Tensor" in why(read_assistant_axis, path)
    torch.save({}, path)
    assert 'no "axis"' in why(read_assistant_axis, path)
    assert 'no "layer_activations"' in why(read_steering_vectors, path)
    activations = {1: torch.ones(D), 2: torch.ones(D + 1)}
    torch.save({"layer_activations": activations, "layer_type": "decoder_block"}, path)
    assert "8 at block 1, 9 at block 2" in why(read_steering_vectors, path)
    torch.save({"layer_activations": {-1: torch.ones(D)}, "layer_type": "decoder_block"}, path)
    assert "whole number from 0" in why(read_steering_vectors, path)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "line 1: not JSON"),
        ("[]", "object with keys; got list"),
        ("{}", "directions must be an object"),
        ('{"directions": {}}', "at least one block"),
        ('{"directions": {"one": [1]}}', "got 'one'"),
        ('{"directions": {"1": [1, "x"]}}', "must be a number; got str"),
        ('{"directions": {"1": [1, true]}}', "must be a number; got bool"),
        ('{"directions": {"1": [[1]]}}', "must be a number; got list"),
        ('{"directions": {"1": [1], "2": [1, 2]}}', "1 at block 1, 2 at block 2"),
        ('{"directions": {"1": [%s]}}' % ("9" * 400), "too large a number"),
        ('{"directions": {"1": [%s]}}' % ("9" * 5000), "not JSON"),
        ('{"directions": {"1": [NaN]}}', "NaN is no JSON number"),
        ('{"directions": ' + "[" * 9999 + "]" * 9999 + "}", "nested too deeply"),
        ('{"directions": {"1": [1]}, "model_type": 3}', "model_type must be text"),
        ('{"directions": {"1": [1]}, "explained_variances": {"1": "x"}}', "must be a number"),
    ],
)
def test_a_malformed_svec_is_named(tmp_path, text, reason):
    path = tmp_path / "v.svec"
    path.write_text(text)
    assert reason in why(read_cast, path, layers_are="blocks")


NEURONPEDIA = {
    "modelId": "m",
    "layerNumber": 3,
    "hookType": "hook_resid_post",
    "vector": [1.0],
    "vectorLabel": "x",
}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hookType": "hook_mlp_out"}, "hook_resid_pre or hook_resid_post"),
        ({"hookType": ["hook_resid_post"]}, "hookType must be text"),
        ({"layerNumber": 1.5}, "whole number"),
        ({"layerNumber": 10**9}, "from 0 to 1023"),
        ({"vector": {}}, "must be a list of numbers"),
        ({"vector": []}, "shape (0,)"),
        ({"vectorDefaultSteerStrength": "10"}, "must be a number"),
    ],
)
def test_a_malformed_neuronpedia_vector_is_named(tmp_path, change, reason):
    path = tmp_path / "v.json"
    path.write_text(json.dumps({**NEURONPEDIA, **change}))
    assert reason in why(read_neuronpedia, path)


@pytest.mark.parametrize("key", NEURONPEDIA)
def test_each_missing_key_of_a_neuronpedia_vector_is_named(tmp_path, key):
    path = tmp_path / "v.json"
    path.write_text(json.dumps({k: v for k, v in NEURONPEDIA.items() if k != key}))
    assert f'no "{key}"' in why(read_neuronpedia, path)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (3, "row 0 must be an object"),
        ({}, "position of row 0"),
        ({"position": -1, "layer": 1, "refusal_score": None}, "refusal_score of row 0"),
    ],
)
def test_a_malformed_table_of_evaluations_is_named(tmp_path, row, reason):
    path = tmp_path / "direction_evaluations.json"
    path.write_text(json.dumps([row]))
    assert reason in why(read_refusal_evaluations, path)


def test_nan_in_a_table_of_evaluations_is_kept(tmp_path):
    path = tmp_path / "e.json"
    row = {"position": -1, "layer": 2, "refusal_score": float("nan"), "steering_score": 1}
    path.write_text(json.dumps([{**row, "kl_div_score": 0.5}]))
    [read] = read_refusal_evaluations(path)
    assert read.ablated_score != read.ablated_score
    assert (read.layer, read.added_score, read.kl_nats) == (2, 1.0, 0.5)


def test_a_missing_file_is_named_by_every_reader(tmp_path):
    path = tmp_path / "none"
    for read in (
        read_control_vector,
        read_persona_vectors,
        read_refusal_direction,
        read_refusal_evaluations,
        read_assistant_axis,
        read_steering_vectors,
        read_neuronpedia,
        load_vector_set,
    ):
        why(read, path)
    why(read_cast, path, layers_are="blocks")


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 0.99])
def test_a_truncated_file_is_refused(tmp_path, part):
    vectors = VectorSet({1: torch.ones(D), 2: torch.ones(D)}, "resid_post", "m")
    buffer = io.BytesIO()
    torch.save(torch.ones(5, D), buffer)
    files = {
        read_control_vector: write_control_vector(vectors, tmp_path / "v.gguf").read_bytes(),
        load_vector_set: save_vector_set(vectors, tmp_path / "v.safetensors").read_bytes(),
        read_persona_vectors: buffer.getvalue(),
        read_neuronpedia: json.dumps(NEURONPEDIA).encode(),
    }
    for read, data in files.items():
        path = tmp_path / "cut"
        path.write_bytes(data[: int(part * len(data))])
        why(read, path)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (b"\x80\x02}q\x00" + b"".join([b")"] + [b"q\x01h\x01\x86"] * 60) + b"K\x01s.", "tuples"),
        (b"\x80\x02(]X\x01\x00\x00\x00aK\x01tQ.", "something other than words"),
        (b"\x80\x02K\x012.", "operation DUP is not read"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "is not read; refused"),
        (b"\x80\x02h\x07.", "damaged pickle"),
        (b"\x80\x02t.", "damaged pickle"),
        (b"\x80\x02\xff.", "damaged pickle"),
        (b"", "damaged pickle"),
    ],
)
def test_a_pickle_that_would_not_end_or_hides_a_call_is_refused(tmp_path, program, reason):
    assert reason in why(load_pt, repacked(tmp_path / "v.pt", program))
