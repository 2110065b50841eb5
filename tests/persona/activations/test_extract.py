"""Moments over files: those of the rows, however they are cut, stored or resumed."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from persona.activations import Moments, collect_rows, extract_moments
from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError

N, LAYERS = 150, [1, 3]


@pytest.fixture(scope="module")
def rows():
    return [
        {"prompt": f"what is {i}?", "completion": f"it is {i}" + "." * (i % 7)} for i in range(N)
    ]


@pytest.fixture(scope="module")
def data(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("data") / "data.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.fixture(scope="module")
def found(tiny_pair, data):
    return extract_moments(tiny_pair, data, LAYERS, shard_size=64)


def close(first, second, tolerance=1e-10):
    assert first.count == second.count
    torch.testing.assert_close(first.mean_LD, second.mean_LD, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(first.variance_LD, second.variance_LD, atol=tolerance, rtol=1e-4)


def test_they_are_the_moments_of_all_rows_read_at_once(tiny_pair, rows, found):
    texts = [
        Dialogue((Turn("user", row["prompt"]), Turn("assistant", row["completion"])))
        for row in rows
    ]
    with tiny_pair.active("aligned") as bridge:
        read = collect_rows(bridge, tiny_pair.chat.encode_all(texts), LAYERS)
    close(found, Moments.of(read), tolerance=1e-5)  # other batches, so float32 rounds elsewhere


def test_shards_formats_and_several_files_change_nothing(tiny_pair, data, rows, found, tmp_path):
    close(extract_moments(tiny_pair, data, LAYERS, shard_size=512), found)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet", row_group_size=40)
    parquet = extract_moments(tiny_pair, tmp_path, LAYERS, shard_size=64)
    assert torch.equal(parquet.squares_LD, found.squares_LD)
    parts = [tmp_path / "first.jsonl", tmp_path / "second.jsonl"]
    for part, some in zip(parts, (rows[:64], rows[64:]), strict=True):
        part.write_text("\n".join(json.dumps(row) for row in some))
    close(extract_moments(tiny_pair, parts, LAYERS, shard_size=64), found)


def test_the_other_side_and_another_token_set_are_read(tiny_pair, data, found):
    other = extract_moments(tiny_pair, data, LAYERS, side="finetuned")
    assert (other.mean_LD - found.mean_LD).abs().max() > 1e-3
    last = extract_moments(tiny_pair, data, LAYERS, token_set="last_prompt")
    assert (last.mean_LD - found.mean_LD).abs().max() > 1e-3


def test_a_second_call_reads_nothing_and_another_job_is_refused(
    tiny_pair, data, found, tmp_path, monkeypatch
):
    extract_moments(tiny_pair, data, LAYERS, shard_size=64, out=tmp_path)

    def asked(*_, **__):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("persona.activations.extract.collect_sets", asked)
    again = extract_moments(tiny_pair, data, LAYERS, shard_size=64, out=tmp_path)
    assert torch.equal(again.squares_LD, found.squares_LD)
    with pytest.raises(DataError, match=r"other settings \(layers is .*; model is .*; side is"):
        extract_moments(tiny_pair, data, [0], shard_size=64, out=tmp_path, side="finetuned")


def test_bad_rows_and_blocks_are_named_and_what_was_read_is_kept(tiny_pair, data, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text(data.read_text() + '\n{"prompt": "no answer"}\n')
    with pytest.raises(DataError, match=r"bad.jsonl, line 151: no sample: needed are the keys"):
        extract_moments(tiny_pair, bad, LAYERS, shard_size=64, out=tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.npz")) == [
        "000000.npz",
        "000001.npz",
    ]
    with pytest.raises(ModelError, match="layer 9 is out of range"):
        extract_moments(tiny_pair, data, [9])
    bad.write_text("\n\n")
    with pytest.raises(DataError, match="holds no rows; one sample a row is needed"):
        extract_moments(tiny_pair, bad, LAYERS)
