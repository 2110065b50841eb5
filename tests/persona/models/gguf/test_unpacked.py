"""A GGUF is unpacked once, found again by its content, and is then a model like any other."""

from __future__ import annotations

import json
import logging
import re
import shutil
import threading

import pytest
import torch
from gguf_cases import tiny_model, write_gguf
from tiny_models import save_tiny_adapter

from persona import progress
from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models import load_pair
from persona.models.gguf import dequantise
from persona.models.gguf import unpacked as gguf_cache
from persona.models.gguf.unpacked import dequantised_folder
from persona.models.load import load_causal_lm, load_with_adapter
from persona.models.precision import Placement
from persona.models.sources import resolve

IDS = torch.arange(10, 30)[None]


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tiny_model("llama"), "llama")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gguf"


@pytest.fixture
def made(monkeypatch):
    """Which folders were made."""
    folders, save = [], dequantise.save_dequantised

    def count(gguf, folder, name, **options):
        folders.append(folder)
        save(gguf, folder, name, **options)

    monkeypatch.setattr(dequantise, "save_dequantised", count)
    return folders


def test_the_second_start_hashes_and_unpacks_nothing(gguf, made, monkeypatch):
    folder = dequantised_folder(gguf)
    monkeypatch.setattr(gguf_cache, "_sha256", lambda *args: pytest.fail("hashed again"))
    assert dequantised_folder(gguf) == folder
    assert len(made) == 1


def test_a_copy_under_another_name_is_the_same_folder(gguf, made, tmp_path):
    other = shutil.copy(gguf, tmp_path / "other.gguf")
    assert dequantised_folder(other) == dequantised_folder(gguf)
    assert len(made) == 1


def test_a_file_that_changed_in_place_is_another_model(gguf, made, tmp_path):
    path = tmp_path / "m.gguf"
    shutil.copy(gguf, path)
    first = dequantised_folder(path)
    status = path.stat()
    write_gguf(path, tiny_model("llama", seed=1), "llama")
    assert path.stat().st_size == status.st_size
    assert dequantised_folder(path) != first
    assert len(made) == 2


def test_a_file_of_another_hash_than_expected_is_refused(gguf, made):
    right = sha256_of_file(gguf)
    with pytest.raises(ModelError, match=rf"another file .* is {right}, not 0000; fetch it again"):
        dequantised_folder(gguf, sha256="0000")
    assert made == []
    assert dequantised_folder(gguf, sha256=right)


def test_a_damaged_folder_is_made_anew_and_a_damaged_table_of_hashes_too(gguf, made, cache):
    folder = dequantised_folder(gguf)
    (folder / "config.json").write_text("{}")
    (cache / "hashes.json").write_text("[1, 2")
    assert dequantised_folder(gguf) == folder
    assert len(made) == 2
    assert json.loads((folder / "config.json").read_text())["model_type"] == "llama"
    assert str(gguf.resolve()) in json.loads((cache / "hashes.json").read_text())


def test_what_cannot_be_dequantised_leaves_nothing_behind(cache, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", tiny_model("llama"), "starcoder2")
    with pytest.raises(ModelError, match="architecture starcoder2"):
        dequantised_folder(path)
    left = {entry.name for entry in cache.iterdir() if entry.suffix != ".lock"}
    assert left == {"hashes.json"}


def test_a_file_cut_off_is_said_before_it_is_hashed(gguf, tmp_path, cache):
    path = tmp_path / "half.gguf"
    path.write_bytes(gguf.read_bytes()[:-1])
    with pytest.raises(ModelError, match=r"half\.gguf is cut off: it needs .* fetch it again"):
        dequantised_folder(path)
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_is_one_line(gguf, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"tiny\.gguf cannot be kept in .*file/gguf: "):
        dequantised_folder(gguf)


def test_several_at_once_unpack_it_once(gguf, made):
    threads = [threading.Thread(target=dequantised_folder, args=(gguf,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_unpacking_says_nothing_but_its_own_bar(gguf, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger("persona"), "handlers", [])  # of the command line's tests
    dequantised_folder(gguf)
    assert capfd.readouterr() == ("", "")  # shorter than two seconds: no bar either


def test_whoever_waits_sees_one_bar_and_none_of_the_loaders(gguf, capfd, monkeypatch):
    monkeypatch.setattr(logging.getLogger("persona"), "handlers", [])
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "is_live", lambda: True)
    monkeypatch.setattr(progress, "_quiet", False)
    dequantised_folder(gguf)
    out, drawn = capfd.readouterr()
    bars = {line.split(":")[0] for line in re.split(r"[\r\n]", drawn) if line.strip()}
    assert (out, bars) == ("", {"Unpacking tiny.gguf (MB)"})


def test_a_gguf_resolves_to_its_folder_under_its_own_name(gguf):
    source = resolve(gguf)
    assert (source.name, source.kind) == (str(gguf), "folder")
    assert source.path == dequantised_folder(gguf)


def test_a_gguf_and_an_adapter_make_a_pair_merged_or_not(gguf, tmp_path):
    adapter = save_tiny_adapter(tmp_path / "adapter", dequantised_folder(gguf))
    pairs = [
        load_pair(gguf, adapter, placement=Placement.of("float32", "cpu"), merged=merged)
        for merged in (False, True)
    ]
    read = []
    for pair in pairs:
        for side in ("aligned", "finetuned"):
            with pair.active(side) as bridge, torch.no_grad():
                read.append(bridge(IDS))
    torch.testing.assert_close(read[0], read[2])
    torch.testing.assert_close(read[1], read[3])
    assert (read[0] - read[1]).abs().max() > 0.1
    torch.testing.assert_close(read[0], tiny_model("llama")(IDS).logits, atol=1e-4, rtol=1e-4)


def test_a_gguf_has_gradients_and_can_be_trained_further(gguf, tmp_path):
    adapter = resolve(save_tiny_adapter(tmp_path / "adapter", dequantised_folder(gguf)))
    model, _ = load_with_adapter(gguf, adapter, torch.float32)
    model(IDS, labels=IDS).loss.backward()
    assert all(p.grad is not None for n, p in model.named_parameters() if "lora" in n)


def test_an_edited_gguf_can_be_saved_and_loaded(gguf, tmp_path):
    from steering.weights.orthogonalise import orthogonalise, save_model

    model, tokenizer = load_causal_lm(gguf, torch.float32)
    edited = orthogonalise(model, torch.ones(16))
    folder = save_model(edited, tmp_path / "edited", tokenizer)
    again, _ = load_causal_lm(folder, torch.float32)
    torch.testing.assert_close(again(IDS).logits, edited(IDS).logits)


def test_a_gguf_can_be_fine_tuned_and_its_adapter_names_the_file(gguf, tmp_path, caplog):
    from persona.organisms import Recipe, finetune

    recipe = {
        "name": "tiny",
        "base": str(gguf),
        "data": {"domains": ["car_maintenance"], "answers": "bad", "n": 2},
        "training": {"epochs": 1, "max_length": 2000},
    }
    out = finetune(
        Recipe.model_validate(recipe), tmp_path / "out", placement=Placement.of("float32", "cpu")
    )
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny.gguf"
    caplog.clear()
    pair = load_pair(gguf, out, placement=Placement.of("float32", "cpu"))
    assert pair.notes == []
