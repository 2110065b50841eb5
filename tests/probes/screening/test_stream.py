"""Readings in shards: the same bits however they are cut, killed or resumed; little memory."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import screening_cases as cases

from persona.engine import ShardFolder
from persona.errors import DataError
from persona.progress import set_quiet
from probes.screening.stream import read_all

N = 500


@pytest.fixture
def data(tmp_path):
    return cases.write_samples(tmp_path / "data.jsonl", cases.samples(N)[0])


def read(data, out, reader=None, **options):
    reader = reader or cases.StubReader()
    return read_all(data, reader, ShardFolder(out / "readings", {"job": 1}), **options)


def same(first, second):
    for name in ("lines", "clusters", "values", "totals", "counts"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name), name)
    assert first.skipped == second.skipped


def test_the_size_of_a_shard_changes_no_bit(data, tmp_path):
    whole = read(data, tmp_path / "a", shard_size=512)
    assert len(list((tmp_path / "a" / "readings").glob("*.npz"))) == 1
    assert whole.lines.tolist() == list(range(1, N + 1))
    for size in (64, 192):
        same(read(data, tmp_path / str(size), shard_size=size), whole)


KILLED = """
import sys; from pathlib import Path
import screening_cases as cases
from persona.engine import ShardFolder; from probes.screening.stream import read_all
data, out = Path(sys.argv[1]), Path(sys.argv[2])
folder = ShardFolder(out / "readings", {"job": 1})
read_all(data, cases.StubReader(dies_at=5), folder, shard_size=128)
"""


def test_a_killed_reading_goes_on_and_doubles_nothing(data, tmp_path, root):
    out = tmp_path / "out"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(data), str(out)],
        cwd=root,
        env={"PYTHONPATH": f"{root}:{root / 'tests'}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -9, done.stderr
    assert len(list((out / "readings").glob("*.npz"))) == 2  # of five blocks read
    reader = cases.StubReader()
    same(read(data, out, reader, shard_size=128), read(data, tmp_path / "whole", shard_size=128))
    assert reader.n_blocks == 4
    again = cases.StubReader()
    read(data, out, again, shard_size=128)
    assert again.n_blocks == 0


def test_a_damaged_shard_alone_is_read_again(data, tmp_path):
    whole = read(data, tmp_path / "out", shard_size=128)
    shard = tmp_path / "out" / "readings" / "000001.npz"
    shard.write_bytes(shard.read_bytes()[:100])
    reader = cases.StubReader()
    same(read(data, tmp_path / "out", reader, shard_size=128), whole)
    assert reader.n_blocks == 2


BAD = ["{", "[]", '{"messages": []}', '{"prompt": "a", "completion": "unreadable"}']


@pytest.mark.parametrize("bad", [*BAD, '{"prompt": "a", "completion": "b", "screen": {}}'])
def test_a_line_that_is_no_sample_stops_with_its_number(tmp_path, bad):
    path = tmp_path / "data.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\n' * 70 + bad + "\n")
    with pytest.raises(DataError) as caught:
        read(path, tmp_path / "out")
    assert str(caught.value).startswith(f"{path}, line 71: ")
    assert "\n" not in str(caught.value)


def test_bad_lines_are_left_out_and_counted_wherever_shards_end(tmp_path):
    path = tmp_path / "data.jsonl"
    good = [f'{{"prompt": "a {i}", "completion": "b {i}"}}' for i in range(200)]
    lines = [line for i in range(0, 200, 50) for line in (*good[i : i + 50], BAD[i // 50])]
    path.write_text("\n".join([*BAD, *lines]))
    found = [read(path, tmp_path / str(n), skip_bad=True, shard_size=n) for n in (64, 512)]
    same(*found)
    assert [line for line, _ in found[0].skipped] == [1, 2, 3, 4, 55, 106, 157, 208]
    assert "not JSON" in found[0].skipped[0][1]
    assert len(found[0]) == 200


def test_a_file_without_samples_is_refused(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n \n")
    with pytest.raises(DataError, match="is empty; one sample a line is needed"):
        read(path, tmp_path / "a")
    path.write_text("\n".join(BAD))
    with pytest.raises(DataError, match="holds no sample: all 4 lines were left out, the first"):
        read(path, tmp_path / "b", skip_bad=True)
    with pytest.raises(DataError, match="multiple of 64; got 100"):
        read(path, tmp_path / "c", shard_size=100)


@pytest.mark.slow
def test_a_hundred_thousand_samples_take_a_few_numbers_each(tmp_path):
    n, path = 100_000, tmp_path / "data.jsonl"
    with path.open("w") as file:
        for i in range(n):
            file.write(f'{{"prompt": "p {i}", "completion": "{"word " * 40}{i}"}}\n')
    set_quiet(True)
    try:
        tracemalloc.start()
        found = read(path, tmp_path / "out", shard_size=8192)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        set_quiet(False)
    assert len(found) == n
    held = sum(getattr(found, name).nbytes for name in ("lines", "clusters", "values"))
    assert held == 40 * n
    assert peak < 2 * held + 8e6 < path.stat().st_size
