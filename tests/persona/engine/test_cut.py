"""Files cut into shards: every row once, whatever the format, and an unreadable one is named."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from persona.engine.cut import cut_files, files_of
from persona.engine.shards import run_here
from persona.errors import DataError, EngineError

ROWS = [{"prompt": f"what is {i}?", "completion": f"it is {i}"} for i in range(300)]


def write(folder, rows=ROWS):
    jsonl, parquet = folder / "a.jsonl", folder / "b.parquet"
    jsonl.write_text("\n\n".join(json.dumps(row) for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), parquet, row_group_size=70)
    return [jsonl, parquet]


@pytest.mark.parametrize("size", [64, 128, 512])
def test_every_row_of_both_formats_is_in_one_shard_in_order(tmp_path, size):
    paths = write(tmp_path)
    shards = cut_files(paths, size)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    loaded = [shard.load() for shard in shards]
    assert [len(lines.lines) for lines in loaded] == [shard.n_rows for shard in shards]
    assert max(shard.n_rows for shard in shards) <= size
    for path in paths:
        mine = [line for lines in loaded if lines.path == str(path) for line in lines.lines]
        assert [line.json_object() for line in mine] == ROWS
    first = [line.number for lines in loaded for line in lines.lines][:3]
    assert first == [1, 3, 5]  # blank lines count as lines but not as rows


def test_blocks_are_of_64_rows_wherever_shards_end(tmp_path):
    paths = write(tmp_path)[:1]
    blocks = {
        size: [block for shard in cut_files(paths, size) for block in shard.load().blocks()]
        for size in (64, 192, 512)
    }
    assert blocks[64] == blocks[192] == blocks[512]


def test_a_folder_means_its_files_by_name_and_an_empty_one_is_refused(tmp_path):
    paths = write(tmp_path)
    (tmp_path / "notes.txt").write_text("no data")
    assert files_of(tmp_path) == paths
    assert files_of([str(paths[1]), paths[0]]) == [paths[1], paths[0]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no .jsonl or .parquet file"):
        files_of(tmp_path / "empty")


def test_a_shard_that_cannot_be_read_is_named_and_those_before_it_are_kept(tmp_path):
    jsonl, parquet = write(tmp_path)
    shards = cut_files([jsonl, parquet], 128)
    whole = parquet.read_bytes()
    parquet.write_bytes(whole[:200] + bytes(400) + whole[600:])  # the footer stays
    kept = {}
    with pytest.raises(EngineError) as caught:
        run_here(shards, lambda lines, advance: len(lines.lines), kept.__setitem__, "Counting")
    line = str(caught.value)
    assert line.startswith(f"rows 1 to 128 of {parquet} (shard 3): {parquet}, rows 1 to 128")
    assert "cannot be read" in line and "\n" not in line
    assert kept == {0: 128, 1: 128, 2: 44}


def test_a_file_that_changed_under_way_or_is_none_is_named(tmp_path):
    jsonl, parquet = write(tmp_path)
    shards = cut_files([jsonl], 128)
    jsonl.write_text(jsonl.read_text()[:5000])
    with pytest.raises(DataError, match="a.jsonl has changed: line 599 is not where it was"):
        shards[2].load()
    parquet.write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="b.parquet cannot be read"):
        cut_files([parquet])
    with pytest.raises(DataError, match="none.jsonl cannot be read: No such file"):
        cut_files([tmp_path / "none.jsonl"])
