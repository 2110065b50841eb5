"""A model as it lies on the disk: found by its name, measured by the headers of its files.

Nothing is fetched, unpacked or loaded, and no library of tensors imported, so that what is wrong
with a command is said within a second of it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from persona.errors import ModelError
from persona.models.from_hub import kept_snapshot
from persona.models.gguf.gguf_file import read_gguf
from persona.models.kept_folder import cache_folder
from persona.models.named.folders import is_kept
from persona.models.named.table import BY_NAME, NamedModel
from persona.models.sources import (
    Source,
    kind_of_folder,
    not_on_hub,
    require_hub_id,
    require_name,
    shipped_or_ref,
    short_name,
)

Kind = Literal["folder", "adapter"]

HUB_SECONDS = 3.0
"""How long the hub may take to say what a model's files are."""


@dataclass(frozen=True)
class OnDisk:
    """What is known of a model before it is loaded.

    name, kind: as those of `Source`. path: its folder, or the GGUF; None where it is to be fetched.
    config: of config.json or adapter_config.json, empty where that is not there yet.
    shapes: tensor -> its shape, of safetensors.
    n_parameters: None where nothing says it.
    to_fetch_bytes: still to be downloaded. cache_bytes: what fetching and unpacking takes of the
        disk of the cache folder, while it lasts.
    """

    name: str
    kind: Kind
    path: Path | None
    config: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    n_parameters: int | None = None
    to_fetch_bytes: int = 0
    cache_bytes: int = 0

    @property
    def source(self) -> Source:
        """For what reads names and small files alone; of a model to be fetched it has no files."""
        return Source(self.name, self.kind, self.path or Path(self.name))

    def size(self, *keys: str) -> int | None:
        """What config.json says under the first of these keys; None where it says nothing."""
        text = self.config.get("text_config")
        parts = [part for part in (text, self.config) if isinstance(part, Mapping)]
        found = [part.get(key) for part in parts for key in keys]
        return next((number for number in found if isinstance(number, int)), None)

    @property
    def n_layers(self) -> int | None:
        return self.size("num_hidden_layers", "n_layer", "num_layers", "n_layers")

    @property
    def d_model(self) -> int | None:
        return self.size("hidden_size", "n_embd", "d_model")


def find_on_disk(ref: str | Path) -> OnDisk:
    """Looks for a model as `resolve` does, without bringing it here.

    A hub id that is not in the hub's cache is asked for at the hub, for `HUB_SECONDS`.
    Raises: ModelError with one line on what is missing or damaged.
    """
    require_name(ref)
    name = str(ref)
    path = Path(name).expanduser()
    if name == "default" or (name in BY_NAME and not path.exists()):
        return _named(BY_NAME[name])
    if path.is_file():
        return _gguf(name, path)
    if path.is_dir():
        return _in_folder(name, path)
    require_hub_id(name)
    return _on_hub(name)


def base_on_disk(finetuned: OnDisk) -> OnDisk:
    """The model that an adapter names as its base.

    Raises: ModelError for a whole model, which does not say what it was made from, and for an
        adapter that names no base, or one that is not at hand.
    """
    if finetuned.kind != "adapter":
        raise ModelError(
            f"{finetuned.name} is a whole model, which does not say what it was fine-tuned from; "
            "name the aligned model with --aligned"
        )
    named = short_name(str(finetuned.config.get("base_model_name_or_path") or ""))
    if not named:
        raise ModelError(
            f"the adapter {finetuned.name} does not say what it was trained on; name that model "
            "with --aligned"
        )
    try:
        return find_on_disk(named)
    except ModelError as error:
        raise ModelError(
            f"the adapter {finetuned.name} was trained on {named}, which is not at hand ({error}); "
            "name that model with --aligned"
        ) from error


def finetuned_on_disk(ref: str | Path) -> OnDisk:
    """A fine-tuned model; also one that goes by the name of a shipped organism."""
    place = shipped_or_ref(ref)
    found = find_on_disk(place)
    return found if place == ref else replace(found, name=str(ref))


def aligned_on_disk(aligned: str | Path | None, finetuned: OnDisk | None) -> OnDisk | None:
    """The aligned model that is named, or else the base that the fine-tune names.

    None where neither can be known yet: a fine-tune that is not there, or an adapter on the hub.
    Raises: ModelError as `find_on_disk` and `base_on_disk`.
    """
    if aligned is not None:
        return find_on_disk(aligned)
    if finetuned is None or (finetuned.kind == "adapter" and finetuned.path is None):
        return None
    return base_on_disk(finetuned)


def require_autoencoder(sae: str | None) -> None:
    """Raises: ModelError where no such folder is there; a colon tells a release of a directory."""
    if sae is None or sae == "default" or ":" in sae or Path(sae).expanduser().is_dir():
        return
    raise ModelError(
        f"no autoencoder {sae}: name a SAELens folder, release:sae_id of its directory, or default"
    )


def _named(model: NamedModel) -> OnDisk:
    if is_kept(model):
        return _in_folder(model.hub_id, cache_folder() / model.kept_as)
    return OnDisk(
        model.hub_id,
        "folder",
        None,
        n_parameters=model.n_parameters,
        to_fetch_bytes=model.download_bytes,
        cache_bytes=model.bytes_needed,
    )


def _gguf(name: str, path: Path) -> OnDisk:
    if path.suffix.lower() != ".gguf":
        raise ModelError(f"{name} is a file but not a GGUF; pass a .gguf file or a model folder")
    n = sum(math.prod(tensor.shape) for tensor in read_gguf(path).tensors.values())
    return OnDisk(name, "folder", path, n_parameters=n, cache_bytes=4 * n)


def _in_folder(name: str, path: Path) -> OnDisk:
    kind = kind_of_folder(path)
    config_file = path / ("config.json" if kind == "folder" else "adapter_config.json")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        if not isinstance(config, dict):
            raise ValueError("it is no object")
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{config_file} cannot be read ({str(error)[:200]})") from error
    shapes = _shapes_in(path)
    n = sum(math.prod(shape) for shape in shapes.values())
    return OnDisk(name, kind, path, config, shapes, n)


def _shapes_in(folder: Path) -> dict[str, tuple[int, ...]]:
    """Tensor -> shape of all safetensors of a folder, whose lengths are checked too."""
    from safetensors import safe_open

    found: dict[str, tuple[int, ...]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as tensors:
                found |= {key: tuple(tensors.get_slice(key).get_shape()) for key in tensors.keys()}  # noqa: SIM118
        except Exception as error:  # damaged files raise anything from OSError to SafetensorError
            raise ModelError(
                f"{file} cannot be read, it is cut off or damaged ({str(error)[:120]})"
            ) from error
    return found


def _fetched_json(name: str, file: str) -> dict[str, Any]:
    """One small file of a hub repository: it says what an adapter belongs to, and sizes."""
    from huggingface_hub import hf_hub_download

    try:
        text = Path(hf_hub_download(name, file, etag_timeout=HUB_SECONDS)).read_text("utf-8")
        return dict(json.loads(text))
    except Exception as error:  # the hub client raises a dozen types for "not there"
        raise not_on_hub(name, error) from error


def _on_hub(name: str) -> OnDisk:
    from huggingface_hub import HfApi

    try:
        return _in_folder(name, kept_snapshot(name))
    except Exception:  # not in the cache, or not all of it: the hub is asked
        pass
    try:
        info = HfApi().model_info(name, files_metadata=True, timeout=HUB_SECONDS)
    except Exception as error:  # the hub client raises a dozen types for "not there"
        raise not_on_hub(name, error) from error
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    weights = sum(size for file, size in sizes.items() if file.endswith(".safetensors"))
    if not weights:
        raise ModelError(f"{name} holds no *.safetensors weights on the hub; take another model")
    total = getattr(info.safetensors, "total", None)
    is_adapter = "adapter_config.json" in sizes
    return OnDisk(
        name,
        "adapter" if is_adapter else "folder",
        None,
        _fetched_json(name, "adapter_config.json" if is_adapter else "config.json"),
        n_parameters=int(total) if total else weights // 2,
        to_fetch_bytes=weights,
    )
