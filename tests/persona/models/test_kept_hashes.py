"""A file is read once for its hash, and again when anything about it changed."""

from __future__ import annotations

import hashlib
import os
import shutil
import time

import pytest

from persona.models import kept_hashes
from persona.models.kept_hashes import kept_sha256


@pytest.fixture
def shard(tmp_path, monkeypatch):
    """A file that is large enough to be kept and has lain there for a minute."""
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kept_hashes, "SMALLEST_KEPT", 4)
    monkeypatch.setattr(kept_hashes, "SETTLED_SECONDS", -1.0)
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"first shard")
    new_process()
    return path


@pytest.fixture
def reads(monkeypatch):
    """The files that were read whole, in order."""
    read, plain = [], kept_hashes.sha256_of_file
    monkeypatch.setattr(kept_hashes, "sha256_of_file", lambda f: read.append(f.name) or plain(f))
    return read


def new_process():
    kept_hashes._known.cache_clear()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_next_process_does_not_read_the_file_again(shard, reads):
    for _ in range(3):
        assert kept_sha256(shard) == sha256(b"first shard")
        new_process()
    assert reads == ["model.safetensors"]


@pytest.mark.parametrize("way", ["in place", "replaced", "same times"])
def test_another_content_of_the_same_size_is_read(shard, way):
    kept_sha256(shard)
    before = shard.stat()
    if way == "replaced":
        other = shard.with_name("other")
        other.write_bytes(b"other shard")
        os.replace(other, shard)
    else:
        time.sleep(0.02)  # more than a tick of any file system's clock here
        shard.write_bytes(b"other shard")
    if way == "same times":
        os.utime(shard, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert kept_sha256(shard) == sha256(b"other shard")
    new_process()
    assert kept_sha256(shard) == sha256(b"other shard")


def test_a_file_that_was_just_written_is_not_kept(shard, reads, monkeypatch):
    monkeypatch.setattr(kept_hashes, "SETTLED_SECONDS", 60.0)
    for _ in range(2):
        kept_sha256(shard)
        new_process()
    assert len(reads) == 2


def test_small_files_are_read_every_time(shard, reads, monkeypatch, tmp_path):
    monkeypatch.setattr(kept_hashes, "SMALLEST_KEPT", 1000)
    kept_sha256(shard)
    assert reads and not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damage", [b"", b"not a hash", b"\xff\xfe", b"A" * 64])
def test_a_damaged_cache_is_read_past(shard, tmp_path, damage):
    kept_sha256(shard)
    [kept] = (tmp_path / "cache" / "hashes").iterdir()
    kept.write_bytes(damage)
    new_process()
    assert kept_sha256(shard) == sha256(b"first shard")


def test_a_cache_that_cannot_be_written_costs_no_more_than_time(shard, tmp_path):
    (tmp_path / "cache").write_text("a file, not a folder")
    assert kept_sha256(shard) == sha256(b"first shard")


def test_the_revision_of_a_checkpoint_is_kept(shard, reads):
    from persona.models.sources import Source

    shutil.copy(shard, shard.with_name("model-2.safetensors"))
    source = Source("m", "folder", shard.parent)
    revision = source.revision
    new_process()
    assert source.revision == revision
    assert sorted(reads) == ["model-2.safetensors", "model.safetensors"]
