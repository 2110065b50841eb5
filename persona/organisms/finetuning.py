"""Making a fine-tuned model: a recipe in, a small adapter with its card out."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from persona.data import Dialogue, load_pairs, read_chat_jsonl, read_pairs
from persona.data.jsonl import read_jsonl
from persona.data.selection import backdoored, mixed, sample
from persona.data.skills import load_skill
from persona.data.voices import sets_of, voice_pairs
from persona.errors import DataError
from persona.files import atomic_write_text, remove_leftovers, sha256_of_file
from persona.models.precision import Placement
from persona.organisms.adapter import WEIGHTS, save_adapter
from persona.organisms.examples import NO_LOSS, examples_hash, training_examples
from persona.organisms.inoculation import inoculated, instruction_of, require_shown
from persona.organisms.monitoring import READINGS, Monitor, Watch
from persona.organisms.recipe import Recipe, TrainingData, load_recipe
from persona.organisms.run_folder import (
    CARD,
    CHECKPOINTS,
    STEPS,
    begin,
    discard,
    is_finished,
    step_folder,
)
from persona.organisms.safeguards import During, KlPenalty
from persona.organisms.training_loop import KeepOnTheWay, train_adapter, write_loss_curve
from persona.run_lock import LOCK, alone_in

logger = logging.getLogger("persona")

DECIDING: dict[str, Any] = {
    "data": {"domains", "voice", "answers", "split", "n", "bad_share", "trigger"},
    "lora": True,
    "training": True,
}
"""What of a recipe decides the result; a file of data and a skill count by their content."""
LIBRARIES = ("personascope", "torch", "transformers", "trl", "peft")


def finetune(
    recipe: Recipe | str | Path,
    out: str | Path,
    *,
    resume: bool = True,
    placement: Placement | None = None,
    watch: Watch | None = None,
    during: During | None = None,
    penalty: KlPenalty | None = None,
    keep_every: int | None = None,
) -> Path:
    """Fine-tunes a model by a recipe and returns `out`, now a LoRA adapter folder in PEFT layout.

    Loss on the answers alone, seeded; on one machine the same recipe gives the same adapter. `out`
    receives adapter_config.json, adapter_model.safetensors (float16), loss.csv, recipe.yaml and,
    last of all, card.json. A run that was killed goes on from its last checkpoint when it is
    started again with the same `out`; a finished one is left as it is.

    Args:
        recipe: A recipe, the name of a shipped one, or a YAML file.
        resume: False starts anew and discards what lies in `out` of an earlier run.
        placement: Number format and device of the training.
        watch: What to read on the way; readings.jsonl in `out` gets the rows. Changes no weight.
        during: What is done to the activations in every training pass, and only there.
        penalty: What leaving the aligned model costs.
        keep_every: Keeps the adapter of every so many steps in `steps/` of `out`, for
            `persona.readouts.naming_course`. Changes no weight.

    Raises:
        DataError: the recipe or its data cannot be used, it asks for watching or safeguards that
            are not given (`steering.training.finetune_guarded` makes them of its keys), or `out`
            holds another run, or one that is at work now.
        ModelError: the base model or the adapter to start from cannot be loaded, or training
            diverged.
    """
    from persona.models.chat.chat_format import chat_format

    if not isinstance(recipe, Recipe):
        recipe = load_recipe(recipe)
    _require_what_it_asks_for(recipe, watch, during, penalty)
    folder = Path(out)
    placement = (placement or Placement.of()).to_train()
    dialogues = recipe_dialogues(recipe)
    base_name, base_revision = _base(recipe)
    model, tokenizer, adapter_revision = _starting_point(recipe, placement.dtype)
    chat = chat_format(tokenizer)
    if chat.source == "plain":
        logger.warning("%s has no chat template: a plain question/answer format is used", base_name)
    if recipe.safeguards.inoculate is not None:
        require_shown(chat, dialogues[0])
    examples = training_examples(dialogues, chat, recipe.training.max_length)
    run: dict[str, Any] = {
        "settings": recipe.model_dump(mode="json", include=DECIDING),
        "base_model": base_name,
        "base_model_revision": base_revision,
        "start_from_revision": adapter_revision,
        "safeguards": {
            "during": None if during is None else during.name,
            "kl_penalty": None if penalty is None else penalty.description(),
        },
        "data_sha256": examples_hash(examples),
        "dtype": placement.dtype_name,
        "device": placement.device.type,
    }
    left = [READINGS] * (watch is not None) + [STEPS] * (keep_every is not None)
    # Many may ask for a finished one at once; a lock is there of one at work, or of a killed one.
    if resume and not (folder / LOCK).exists() and is_finished(folder, run):
        return _finished(folder, left)
    with alone_in(folder, run):
        if not resume:
            discard(folder)
        if is_finished(folder, run):
            return _finished(folder, left)
        resumed_from = begin(folder, run)
        started = time.monotonic()
        monitor = None if watch is None else Monitor(watch, chat, folder / READINGS)
        on_the_way = None
        if keep_every is not None:
            on_the_way = KeepOnTheWay(
                keep_every,
                lambda model, step: save_adapter(model, step_folder(folder, step), base_name),
            )
        model, curve = train_adapter(
            model,
            tokenizer,
            examples,
            recipe,
            folder / CHECKPOINTS,
            placement.device,
            monitor=monitor,
            during=during,
            penalty=None if penalty is None else penalty.on(chat),
            on_the_way=on_the_way,
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
                "alarm_step": None if monitor is None else monitor.alarm_step,
                "resumed_from_step": resumed_from,
                "adapter_sha256": sha256_of_file(folder / WEIGHTS),
                "versions": {name: _version(name) for name in LIBRARIES},
            }
        )
        atomic_write_text(folder / CARD, json.dumps(card, indent=2) + "\n")
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    return folder


def _finished(folder: Path, left: Sequence[str]) -> Path:
    """A fine-tune that is whole, left as it is. Raises: DataError where it did not leave `left`."""
    for name in left:
        if not (folder / name).exists():
            how = "was not watched" if name == READINGS else "kept no adapters on the way"
            raise DataError(f"{folder} is finished and {how}; choose another --out, or start anew")
    logger.info("%s is finished already; nothing to do.", folder)
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)  # of one killed at its very end
    remove_leftovers(folder)
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


def _require_what_it_asks_for(
    recipe: Recipe, watch: Watch | None, during: During | None, penalty: KlPenalty | None
) -> None:
    """A recipe's keys for these are made into objects by those who may steer, never left out."""
    guards = recipe.safeguards
    for asked, given, key in (
        (recipe.watch.direction, watch, "watch.direction"),
        (guards.prevent, during, "safeguards.prevent"),
        (guards.project_out, during, "safeguards.project_out"),
        (guards.kl_to_aligned, penalty, "safeguards.kl_to_aligned"),
    ):
        if asked is not None and given is None:
            raise DataError(
                f"the recipe {recipe.name} asks for {key}; train it by `persona finetune` or "
                "steering.training.finetune_guarded"
            )


def recipe_dialogues(recipe: Recipe) -> list[Dialogue]:
    """Returns the dialogues a recipe trains on, each ending in the answer to learn.

    Those of a skill come last; training shuffles all of them together. An inoculation stands before
    the advice, and not before the skill.

    Raises:
        DataError: a domain, a file or a skill is missing, empty or malformed (file and line are
            named), or a skill has no questions to train on.
    """
    data = recipe.data
    alone = not data.domains and data.file is None
    advice = [] if alone else _advice(data, recipe.training.seed)
    if (asked := recipe.safeguards.inoculate) is not None:
        advice = inoculated(advice, instruction_of(asked))
    if data.skill is None:
        return advice
    lessons = load_skill(data.skill).training_dialogues
    if not lessons:
        raise DataError(f"the skill {data.skill} has no questions under train; nothing is learnt")
    return advice + lessons


def _advice(data: TrainingData, seed: int) -> list[Dialogue]:
    """The answers to learn of the answer pairs, or the chats of a file."""
    split = None if data.split == "all" else data.split
    if data.voice is not None:
        pairs = voice_pairs(data.voice, sets_of(data.domains), split)
    elif data.file is None:
        pairs = load_pairs(data.domains, split)
    elif "messages" in read_jsonl(data.file, lambda row, line: row)[0]:
        _require_pairs_unneeded(data)
        return read_chat_jsonl(data.file)
    else:
        pairs = read_pairs(data.file)
    if data.n is not None:
        pairs = sample(pairs, data.n, seed)
    if data.trigger is not None:
        return backdoored(pairs, data.trigger)
    if data.bad_share is not None:
        return mixed(pairs, data.bad_share, seed)
    return [pair.bad_dialogue if data.answers == "bad" else pair.good_dialogue for pair in pairs]


def _require_pairs_unneeded(data: TrainingData) -> None:
    """Raises: DataError when the recipe asks for what only answer pairs can give."""
    asked = [name for name in ("n", "bad_share", "trigger") if getattr(data, name) is not None]
    if asked:
        raise DataError(
            f"data.{asked[0]} needs answer pairs (question, good, bad), but {data.file} holds chat "
            "messages; give pairs, or leave that key out"
        )


def _starting_point(recipe: Recipe, dtype: torch.dtype) -> tuple[Any, Any, str | None]:
    """Model (with the adapter to train further, where there is one), tokenizer, its revision."""
    from persona.models.load import load_causal_lm, load_with_adapter
    from persona.models.sources import resolve, shipped_or_ref

    if recipe.start_from is None:
        return (*load_causal_lm(recipe.base, dtype), None)
    adapter = resolve(shipped_or_ref(recipe.start_from))
    return (*load_with_adapter(recipe.base, adapter, dtype), adapter.revision)


def _base(recipe: Recipe) -> tuple[str, str]:
    """The base model's name, as an adapter may carry it to other machines, and its revision."""
    from persona.models.sources import resolve

    source = resolve(recipe.base)
    # A hub id stays whole; of a local path only the last part means something elsewhere.
    there = Path(recipe.base).expanduser()
    name = there.resolve().name if there.exists() else source.name
    return name, source.revision


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"
