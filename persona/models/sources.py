"""Model references: a name, folder, GGUF file, adapter or hub id, resolved to files."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from persona.errors import ModelError
from persona.models.from_hub import snapshot_folder
from persona.models.gguf.unpacked import dequantised_folder
from persona.models.kept_hashes import kept_sha256
from persona.models.named.folders import named_model_folder
from persona.models.named.table import BY_NAME, MODELS

Kind = Literal["folder", "adapter"]

_DECIDING = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
)
"""Files beside the weights that decide ids, end tokens, or what is done with the weights."""


@dataclass(frozen=True)
class Source:
    """A model reference resolved to files on this machine.

    name: what the person typed (a short name such as "default" becomes the model's hub id).
    path: folder of the checkpoint or adapter; of a GGUF, the folder that it was unpacked into.
    """

    name: str
    kind: Kind
    path: Path

    @property
    def revision(self) -> str:
        """Hub commit of a snapshot folder, else a short hash over the weight files."""
        if self.path.parent.name == "snapshots":
            return self.path.name[:12]
        files = [self.path] if self.path.is_file() else sorted(self.path.glob("*.safetensors"))
        hashes = [kept_sha256(file) for file in files]
        # One or two shards keep the form that saved directions carry; of more, all count.
        parts = [digest[:12] for digest in hashes[:2]]
        if len(hashes) > 2:
            parts.append(hashlib.sha256("".join(hashes[2:]).encode()).hexdigest()[:12])
        return "+".join(parts) or "unknown"

    @property
    def fingerprint(self) -> str:
        """The revision and a short hash of every small file that decides what the model computes:
        config, adapter's scale, tokenizer, template, end tokens.
        """
        digest = hashlib.sha256()
        for file in sorted(self.path.glob("*")):
            if file.name in _DECIDING or file.suffix in (".jinja", ".model"):
                digest.update(file.name.encode() + b"\0" + file.read_bytes())
        return f"{self.revision} {digest.hexdigest()[:12]}"


def resolve(ref: str | Path) -> Source:
    """Find the files of a model reference.

    ref: a short name (`persona models` lists them; "default" is one), a folder of safetensors, a
    GGUF file, a LoRA adapter folder (PEFT layout), or a hub id of a checkpoint or an adapter.
    Raises: ModelError with one line on what is missing.
    """
    require_name(ref)
    name = str(ref)
    path = Path(name).expanduser()
    if name == "default" or (name in BY_NAME and not path.exists()):
        model = BY_NAME[name]
        return Source(model.hub_id, "folder", named_model_folder(model))
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(
                f"{name} is a file but not a GGUF; pass a .gguf file or a model folder"
            )
        return Source(name, "folder", dequantised_folder(path))
    if path.is_dir():
        return Source(name, kind_of_folder(path), path)
    require_hub_id(name)
    return _from_hub(name)


def require_hub_id(name: str) -> None:
    """Raises: ModelError for the name of a file or folder that is not there."""
    looks_local = name.startswith((".", "/", "~")) or name.count("/") != 1
    looks_local = looks_local or Path(name).suffix != ""
    if looks_local and not _looks_like_hub_id(name):
        raise ModelError(f"no such model file or folder: {name}{_shipped_like(name)}")


def _shipped_like(name: str) -> str:
    """The models and organisms of a name like this one, for who mistyped it."""
    from difflib import get_close_matches

    from persona.models.shipped_adapters import shipped_names

    if near := get_close_matches(name, [*BY_NAME, *shipped_names()]):
        return f"; did you mean {' or '.join(near)}?"
    if Path(name).name != name or Path(name).suffix:
        return ""  # a path
    return (
        f"; models that go by a name are {', '.join(BY_NAME)}, and fine-tunes "
        f"{', '.join(shipped_names())}"
    )


def require_name(ref: object) -> None:
    """Raises: ModelError for a model in memory where the name of one, or its folder, is needed."""
    if not isinstance(ref, (str, Path)):
        raise ModelError(
            f"here models go by name or path, and this is a {type(ref).__name__}; for models in "
            "memory: persona.pair_of(aligned, finetuned, tokenizer)"
        )


def _looks_like_hub_id(name: str) -> bool:
    return (
        name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith(".gguf")
    )


def kind_of_folder(path: Path) -> Kind:
    if (path / "adapter_config.json").exists():
        if not list(path.glob("adapter_model.safetensors")):
            raise ModelError(
                f"{path} has adapter_config.json but no adapter_model.safetensors; "
                "save the adapter with PEFT in safetensors format"
            )
        return "adapter"
    if (path / "config.json").exists():
        if not list(path.glob("*.safetensors")):
            raise ModelError(f"{path} has config.json but no *.safetensors weights")
        return "folder"
    raise ModelError(
        f"{path} is neither a checkpoint (config.json) nor a LoRA adapter (adapter_config.json)"
    )


def _from_hub(name: str) -> Source:
    try:
        folder = snapshot_folder(name)
    except Exception as error:  # the hub client raises a dozen types for "not there"
        raise not_on_hub(name, error) from error
    return Source(name, kind_of_folder(folder), folder)


def not_on_hub(name: str, error: Exception) -> ModelError:
    """What a person is told where the hub does not give a model."""
    return ModelError(
        f"{name} is no local path, and the hub did not give it "
        f"({type(error).__name__}: {str(error).splitlines()[0][:160]}). "
        "Check the spelling and the network, or pass a local folder"
    )


def base_of(finetuned: str | Path) -> str:
    """The aligned model of a LoRA adapter, as `resolve` takes it: what it was trained on.

    finetuned: an adapter as `load_pair` takes it, the name of a shipped organism included.
    Raises: ModelError for a whole model, which does not say what it was made from, and for an
        adapter that names no base, or one that is not at hand.
    """
    source = resolve(shipped_or_ref(finetuned))
    if source.kind != "adapter":
        raise ModelError(
            f"{source.name} is a whole model, which does not say what it was fine-tuned from; name "
            "the aligned model with --aligned"
        )
    named = base_named_by(source)
    if not named:
        raise ModelError(
            f"the adapter {source.name} does not say what it was trained on; name that model with "
            "--aligned"
        )
    named = short_name(named)
    try:
        resolve(named)
    except ModelError as error:
        raise ModelError(
            f"the adapter {source.name} was trained on {named}, which is not at hand ({error}); "
            "name that model with --aligned"
        ) from error
    return named


def base_named_by(adapter: Source) -> str:
    """The base that an adapter's config names, "" where it names none.

    Raises: ModelError where the config cannot be read.
    """
    try:
        config = json.loads((adapter.path / "adapter_config.json").read_text(encoding="utf-8"))
        return str(config.get("base_model_name_or_path") or "")
    except (OSError, ValueError, RecursionError, AttributeError) as error:
        raise ModelError(f"{adapter.path}/adapter_config.json cannot be read ({error})") from error


def require_its_base(adapter: Source, base: Source) -> None:
    """Raises: ModelError where the adapter names another model; before any weight is loaded."""
    named = base_named_by(adapter)
    if not is_base(named, base):
        raise ModelError(
            f"the adapter {adapter.name} was trained on {named}, and {base.name} is another model; "
            f"type --aligned {short_name(named)} --finetuned {adapter.name}, or add "
            "--allow-mismatch where the two are the same weights"
        )


def is_base(named: str, base: Source) -> bool:
    """Whether a model may be the base that an adapter names.

    A hub id is compared by the last part of its name; a folder that is here by its weights. A
    folder of another machine, or of a cache, says nothing of what is in it.
    """
    path = Path(named).expanduser()
    if path.is_absolute():
        if not path.is_dir() or path.name == base.path.name:
            return True
        return Source(named, "folder", path).revision == base.revision
    snapshot = base.path.parent.parent.name if base.path.parent.name == "snapshots" else ""
    known = {Path(base.name).name, base.path.name, snapshot.split("--")[-1]}
    return path.name.lower() in {"", *(name.lower() for name in known)}


def short_name(name: str) -> str:
    """The short name of a model that a card calls by its hub id; any other name as it is."""
    return next((model.name for model in MODELS if model.hub_id == name), name)


def shipped_or_ref(ref: str | Path) -> str | Path:
    """A shipped organism's adapter folder when `ref` names one and no local path shadows it."""
    require_name(ref)
    name = str(ref)
    if "/" in name or name == "default" or Path(name).exists():
        return ref
    from persona.models.shipped_adapters import shipped_adapter, shipped_names

    return shipped_adapter(name) if name in shipped_names() else ref
