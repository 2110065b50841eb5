"""Loading an autoencoder: the shipped one, a SAELens folder, or a release on the model hub."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from persona.data.jsonl import read_json
from persona.errors import ModelError, SpaceMismatchError
from persona.models.hooks import resid_post
from persona.models.pair import ModelPair
from persona.models.space import ActivationSpace
from persona.sae.autoencoder import SparseAutoencoder

SHIPPED = Path(__file__).parent / "shipped"
CARD, CONFIG, WEIGHTS = "card.json", "cfg.json", "sae_weights.safetensors"
ARCHITECTURES = ("standard", "gated", "topk", "abstopk", "jumprelu")


def load_sae(
    source: str | Path,
    pair: ModelPair | None = None,
    *,
    layer: int | None = None,
    allow_mismatch: bool = False,
) -> SparseAutoencoder:
    """The autoencoder at `source`, in float32.

    source: "default" (the shipped one), a folder with cfg.json and sae_weights.safetensors, a
        folder of several such (layer_19, ...; then `layer` picks one), or "release:sae_id" of the
        SAELens directory, which is fetched from the hub.
    pair: the models to use it on. An autoencoder of another model, revision, width or chat
        template is refused, and the difference named.
    allow_mismatch: take it all the same; width and block must fit even then.
    Raises: ModelError where it cannot be read or is of a kind that cannot be used here;
    SpaceMismatchError where it does not belong to the pair.
    """
    name = str(source)
    folder = SHIPPED if name == "default" else Path(source)
    if folder.is_dir():
        folder = _one_folder(folder, layer)
        module = _from_disk(folder)
        card = read_json(folder / CARD) if (folder / CARD).exists() else {}
    elif name == "default":
        raise ModelError(
            "no autoencoder comes with this installation; make one with `persona sae train`"
        )
    else:
        module, card = _from_release(name), {}
    _require_usable(module, name)
    found = _space_of(module, name)
    if layer is not None and layer != found.layer:
        raise SpaceMismatchError(
            f"{name} reads layer {found.layer} ({found.hook_name}), not layer {layer}"
        )
    space = found if pair is None else _fitted(found, pair, name, allow_mismatch)
    if pair is not None:
        module = module.to(pair.device)
    return SparseAutoencoder(module.eval().requires_grad_(False), space, name, card)


def _one_folder(folder: Path, layer: int | None) -> Path:
    """The folder that holds the weights: this one, or that of a layer within it."""
    if (folder / CONFIG).exists():
        return folder
    inner = sorted(path.parent for path in folder.glob(f"*/{CONFIG}"))
    if layer is not None:
        wanted = [path for path in inner if path.name == f"layer_{layer}"]
        if wanted:
            return wanted[0]
    elif len(inner) == 1:
        return inner[0]
    if inner:
        raise ModelError(
            f"{folder} holds {', '.join(path.name for path in inner)}; say which layer to load"
        )
    raise ModelError(f"{folder} is no SAELens folder: {CONFIG} and {WEIGHTS} are needed in it")


def _from_disk(folder: Path) -> Any:
    from sae_lens import SAE

    _require_matching_shapes(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAE.load_from_disk(folder, device="cpu", dtype="float32")
    except Exception as error:  # whatever a library makes of a stranger's file
        raise ModelError(
            f"{folder} cannot be read as a SAELens autoencoder ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]})"
        ) from error


def _require_matching_shapes(folder: Path) -> None:
    """The weights must have the shapes that cfg.json says; SAELens does not look."""
    from safetensors import SafetensorError, safe_open

    config = read_json(folder / CONFIG, allow_nan=True)
    try:
        wanted = [int(config["d_sae"]), int(config["d_in"])]
        with safe_open(str(folder / WEIGHTS), framework="pt") as file:
            shape = list(file.get_slice("W_dec").get_shape())
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(
            f"{folder} cannot be read as a SAELens autoencoder ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]})"
        ) from error
    if shape != wanted:
        raise ModelError(
            f"{folder / WEIGHTS} has a decoder of shape {shape}, but {CONFIG} says {wanted}"
        )


def _from_release(name: str) -> Any:
    from sae_lens import SAE

    release, colon, sae_id = name.partition(":")
    if not colon or not sae_id or not release:
        raise ModelError(
            f"there is no folder {name!r}; a release is written release:sae_id, for instance "
            "qwen2.5-7b-instruct-andyrdt:resid_post_layer_15_trainer_1"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return SAE.from_pretrained(release, sae_id, device="cpu", dtype="float32")
    except Exception as error:
        raise ModelError(
            f"{name} cannot be loaded from the hub ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]})"
        ) from error


def _require_usable(module: Any, name: str) -> None:
    kind = str(module.cfg.architecture())
    if kind not in ARCHITECTURES:
        raise ModelError(
            f"{name} is a {kind}; autoencoders of the kinds {', '.join(ARCHITECTURES)} can be used"
        )
    # A norm taken from each token makes decode depend on the encode before it.
    if module.cfg.normalize_activations != "none":
        raise ModelError(
            f"{name} normalises its input ({module.cfg.normalize_activations}), which is not part "
            "of its weights; fold the normalisation in and save it again"
        )
    if module.cfg.reshape_activations != "none":
        raise ModelError(f"{name} reads attention heads; one that reads a block output is needed")
    for key, weights in module.state_dict().items():
        if not weights.isfinite().all():
            raise ModelError(f"{name}: {key} is not finite")


def _space_of(module: Any, name: str) -> ActivationSpace:
    """The space that the autoencoder says it reads, its hook as the output of a block."""
    known = module.cfg.metadata
    hook = str(known.hook_name)
    match = re.fullmatch(r"blocks\.(\d+)\.hook_(resid_post|out|resid_pre|in)", hook)
    number = re.fullmatch(r"model\.layers\.(\d+)", hook)
    if match is None and number is None:
        raise SpaceMismatchError(
            f"{name} reads {hook}; one that reads the residual stream after a block is needed "
            "(blocks.N.hook_resid_post)"
        )
    layer = int((match or number)[1])  # type: ignore[index]
    if match and match[2] in ("resid_pre", "in"):
        layer -= 1  # the input of a block is the output of the one before
    if layer < 0:
        raise SpaceMismatchError(f"{name} reads {hook}, which is the output of no block")
    return ActivationSpace(
        model=str(known.model_name or "not recorded"),
        revision=str(known.model_revision or ""),
        hook_name=resid_post(layer),
        layer=layer,
        d_model=int(module.cfg.d_in),
        chat_template_hash=str(known.chat_template_hash or ""),
    )


def _fitted(
    found: ActivationSpace, pair: ModelPair, name: str, allow_mismatch: bool
) -> ActivationSpace:
    if found.d_model != pair.d_model:
        raise SpaceMismatchError(
            f"{name} has d_model={found.d_model} ({found.model}, {found.hook_name}) but "
            f"{pair.names['aligned']} has d_model={pair.d_model}. Train one on this model with "
            "`persona sae train`"
        )
    if found.layer >= pair.n_layers:
        raise SpaceMismatchError(
            f"{name} reads {found.hook_name} but {pair.names['aligned']} has blocks 0 to "
            f"{pair.n_layers - 1}"
        )
    ours = pair.space(found.layer)
    if not allow_mismatch:
        _require_same_model(found, ours, name)
    return ours


def _require_same_model(found: ActivationSpace, ours: ActivationSpace, name: str) -> None:
    """By content hash where the autoencoder has one; else by the last part of the model's name."""
    if found.revision:
        differs = [
            (key, getattr(found, key), getattr(ours, key))
            for key in ("revision", "chat_template_hash")
            if getattr(found, key) and getattr(found, key) != getattr(ours, key)
        ]
    else:
        short = [space.model.rstrip("/").split("/")[-1].lower() for space in (found, ours)]
        differs = [] if short[0] == short[1] else [("model", found.model, ours.model)]
    for key, theirs, mine in differs:
        raise SpaceMismatchError(
            f"{name} was trained on another model: its {key} is {theirs!r}, that of "
            f"{ours.model} is {mine!r}. Load the model it came from, train one on this model, or "
            "take it all the same with --allow-mismatch (allow_mismatch=True)"
        )


def save_autoencoder(folder: Path, state: dict[str, torch.Tensor], config: dict[str, Any]) -> None:
    """Write a SAELens folder in float16, or float32 where float16 does not hold a weight."""
    from safetensors.torch import save_file

    half = {key: value.half() for key, value in state.items()}
    dtype = "float16" if all(value.isfinite().all() for value in half.values()) else "float32"
    chosen = half if dtype == "float16" else {key: value.float() for key, value in state.items()}
    save_file({key: value.contiguous() for key, value in chosen.items()}, str(folder / WEIGHTS))
    text = json.dumps({**config, "dtype": dtype, "device": "cpu"}, indent=2, sort_keys=True)
    (folder / CONFIG).write_text(text + "\n", encoding="utf-8")
