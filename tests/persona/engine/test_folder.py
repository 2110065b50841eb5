"""A shard is read whole, as it was written, or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from persona.engine import ShardFolder
from persona.errors import DataError

ARRAYS = {
    "lines": np.arange(40),
    "values": np.linspace(0, 1, 60).reshape(20, 3),
    "reasons": np.array(["no answer", "ü"]),
}


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1, exclude_max=True), n=st.integers(0, 60), value=st.integers(0, 256))
def test_a_damaged_shard_is_missing_or_the_same(tmp_path, place, n, value):
    folder = ShardFolder(tmp_path, {})
    folder.write(0, ARRAYS)
    content = bytearray(folder.path(0).read_bytes())
    at = int(place * len(content))
    if value == 256:
        del content[at:]
    else:
        content[at : at + n] = bytes([value]) * len(content[at : at + n])
    folder.path(0).write_bytes(bytes(content))
    found = folder.read(0)
    assert found is None or (
        set(found) == set(ARRAYS)
        and all(np.array_equal(found[name], ARRAYS[name]) for name in ARRAYS)
    )


@pytest.mark.parametrize("content", [b"\xff\x00", b"", b"[" * 100_000, b"3"])
def test_a_damaged_record_of_the_job_loses_no_shard_and_lets_none_of_another_in(
    tmp_path, caplog, content
):
    ShardFolder(tmp_path, {"a": 1}).write(0, ARRAYS)
    for job, found in ({"a": 2}, False), ({"a": 1}, True):
        (tmp_path / "job.json").write_bytes(content)
        assert (ShardFolder(tmp_path, job).read(0) is not None) == found
        assert "job.json is damaged: written anew" in caplog.text
    with pytest.raises(DataError, match="a is 1 there and 2 now"):
        ShardFolder(tmp_path, {"a": 2})


def test_a_folder_of_an_older_version_is_refused_by_name(tmp_path):
    (tmp_path / "job.json").write_text('{"a": 1, "layout": 2}')
    with pytest.raises(DataError, match="holds work that was started by another version of"):
        ShardFolder(tmp_path, {"a": 1})
