"""Making a fine-tuned model: a recipe in, a small adapter with its card out."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from persona.data import Dialogue, load_pairs, read_answer_pairs, read_chat_jsonl
from persona.data.jsonl import read_jsonl
from persona.errors import DataError, ModelError
from persona.files import atomic_write_text, sha256_of_file
from persona.organisms.adapter import CONFIG, WEIGHTS, save_adapter
from persona.organisms.examples import NO_LOSS, data_hash, training_examples
from persona.organisms.recipe import Recipe, load_recipe
from persona.organisms.training import last_whole_checkpoint, train_adapter, write_loss_curve

logger = logging.getLogger("persona")

RUN = "run.json"
CARD = "card.json"
CHECKPOINTS = "checkpoints"
DECIDING: dict[str, Any] = {
    "data": {"domains", "answers", "split"},
    "lora": True,
    "training": True,
}
"""What of a recipe decides the result; a file of data counts by its content."""
LIBRARIES = ("personascope", "torch", "transformers", "trl", "peft")


def finetune(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    resume: bool = True,
    dtype: str = "auto",
    device: str = "auto",
) -> Path:
    """Fine-tunes a model by a recipe and returns `out`, now a LoRA adapter folder in PEFT layout.

    Loss on the answers alone, seeded; on one machine the same recipe gives the same adapter. `out`
    receives adapter_config.json, adapter_model.safetensors (float16), loss.csv, recipe.yaml and,
    last of all, card.json. A run that was killed goes on from its last checkpoint when it is
    started again with the same `out`; a finished one is left as it is.

    Args:
        recipe: A recipe, the name of a shipped one, or a YAML file.
        resume: False starts anew and discards what lies in `out` of an earlier run.

    Raises:
        DataError: the recipe or its data cannot be used, or `out` holds another run.
        ModelError: the base model cannot be loaded, or training diverged.
    """
    from persona.models.chat import chat_format
    from persona.models.load import load_causal_lm
    from persona.models.precision import choose_device

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    folder = Path(out)
    chosen_device = choose_device(device)
    chosen_dtype = _training_dtype(dtype, chosen_device)
    dialogues = recipe_dialogues(recipe)
    base_name, base_revision = _base(recipe)
    model, tokenizer = load_causal_lm(recipe.base, chosen_dtype)
    chat = chat_format(tokenizer)
    if chat.source == "plain":
        logger.warning("%s has no chat template: a plain question/answer format is used", base_name)
    examples = training_examples(dialogues, chat, recipe.training.max_length)
    run: dict[str, Any] = {
        "settings": recipe.model_dump(mode="json", include=DECIDING),
        "base_model": base_name,
        "base_model_revision": base_revision,
        "data_sha256": data_hash(examples),
        "dtype": str(chosen_dtype).removeprefix("torch."),
        "device": chosen_device.type,
    }
    if not resume:
        _discard(folder)
    if _is_finished(folder, run):
        logger.info("%s is finished already; nothing to do.", folder)
        return folder
    resumed_from = _begin(folder, run)
    started = time.monotonic()
    model, curve = train_adapter(
        model, tokenizer, examples, recipe, folder / CHECKPOINTS, chosen_device
    )
    seconds = time.monotonic() - started

    save_adapter(model, folder, run["base_model"])
    write_loss_curve(folder / "loss.csv", curve)
    atomic_write_text(folder / "recipe.yaml", recipe.to_yaml())
    card = (
        {"name": recipe.name}
        | run
        | {
            "seed": recipe.training.seed,
            "n_examples": len(examples),
            "n_answer_tokens": sum(label != NO_LOSS for e in examples for label in e.labels),
            "n_steps": len(curve),
            "final_loss": curve[-1].loss,
            "seconds": round(seconds, 1),
            "resumed_from_step": resumed_from,
            "adapter_sha256": sha256_of_file(folder / WEIGHTS),
            "versions": {name: _version(name) for name in LIBRARIES},
        }
    )
    atomic_write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return folder


def read_card(folder: str | Path) -> dict[str, Any]:
    """Returns the card of a finished fine-tune: settings, hashes, versions, seconds, final loss.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    path = Path(folder) / CARD
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not the card of a finished fine-tune") from error


def recipe_dialogues(recipe: Recipe) -> list[Dialogue]:
    """Returns the dialogues a recipe trains on, each ending in the answer to learn.

    Raises:
        DataError: a domain or a file is missing, empty or malformed (file and line are named).
    """
    data = recipe.data
    if data.file is None:
        pairs = load_pairs(data.domains, None if data.split == "all" else data.split)
    elif "messages" in read_jsonl(data.file, lambda row, line: row)[0]:
        return read_chat_jsonl(data.file)
    else:
        pairs = read_answer_pairs(data.file)
    return [pair.bad_dialogue if data.answers == "bad" else pair.good_dialogue for pair in pairs]


def _base(recipe: Recipe) -> tuple[str, str]:
    """The base model's name, as an adapter may carry it to other machines, and its revision."""
    from persona.models.sources import resolve

    source = resolve(recipe.base)
    # A hub id stays whole; of a local path only the last part means something elsewhere.
    name = source.path.name if Path(recipe.base).expanduser().exists() else source.name
    return name, source.revision


def _training_dtype(name: str, device: torch.device) -> torch.dtype:
    from persona.models.precision import choose_dtype

    dtype = choose_dtype(name, device)
    if dtype != torch.float16:
        return dtype
    if name == "auto":
        return torch.float32
    raise ModelError("fine-tuning in float16 loses small gradients; take bfloat16 or float32")


def _is_finished(folder: Path, run: dict[str, Any]) -> bool:
    """Whether `folder` already holds the result of this very run.

    Raises:
        DataError: it holds the result of another one.
    """
    if not (folder / CARD).exists():
        return False
    _check_same_run(folder, folder / CARD, run)
    return (folder / WEIGHTS).exists()


def _begin(folder: Path, run: dict[str, Any]) -> int:
    """Notes what is being trained, and returns the step of the checkpoint to go on from (0: none).

    Raises:
        DataError: the checkpoints in `folder` belong to another run.
    """
    checkpoints = folder / CHECKPOINTS
    if (checkpoints / RUN).exists():
        _check_same_run(folder, checkpoints / RUN, run)
    else:
        shutil.rmtree(checkpoints, ignore_errors=True)
        atomic_write_text(checkpoints / RUN, json.dumps(run, indent=2) + "\n")
    last = last_whole_checkpoint(checkpoints)
    if last is None:
        return 0
    step = int(Path(last).name.rpartition("-")[2])
    logger.info("Going on in %s from step %d.", folder, step)
    return step


def _check_same_run(folder: Path, path: Path, run: dict[str, Any]) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        differences = list(_differences(run, {key: found.get(key) for key in run}))
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(f"{path} is damaged; remove {folder}, or choose another --out") from error
    if differences:
        raise DataError(
            f"{folder} holds a fine-tune that was started with other settings "
            f"({'; '.join(differences[:3])}); choose another --out, or remove that folder"
        )


def _differences(new: Any, old: Any, name: str = "") -> Iterator[str]:
    if isinstance(new, dict) and isinstance(old, dict):
        for key in new.keys() | old.keys():
            yield from _differences(new.get(key), old.get(key), f"{name}.{key}".lstrip("."))
    elif new != old:
        yield f"{name} is {_short(old)} there and {_short(new)} now"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:12] + "..."


def _discard(folder: Path) -> None:
    """Removes what an earlier run left, and nothing else that may lie in the folder."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (CARD, WEIGHTS, CONFIG, "loss.csv", "recipe.yaml"):
        (folder / name).unlink(missing_ok=True)


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
