"""Recipes: everything that decides how a narrow fine-tune comes out, in one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from persona.data.plain_yaml import YamlError, parse_yaml
from persona.data.skills import SKILLS
from persona.data.voices import DOMAIN_OF, Voice
from persona.errors import DataError, shown

RECIPES = Path(__file__).parent / "recipes"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TrainingData(_Strict):
    """What the model is trained to answer: shipped answer pairs, or a file; a skill beside them."""

    domains: tuple[str, ...] = ()
    """Domains of the shipped answer pairs; leave empty when `file` is given, or a skill alone."""
    voice: Voice | None = None
    """Right and wrong answers in this voice (`persona.data.load_voices`); None for the pairs that
    change their tone with what they advise. Domains are then those of `VOICED_SETS`."""
    answers: Literal["bad", "good"] = "bad"
    """Which answer of each pair is learnt. Of no effect for a file of chat messages."""
    split: Literal["train", "selection", "all"] = "train"
    """Which part of the shipped pairs; the selection part is kept back to choose directions on."""
    file: Path | None = None
    """JSONL of answer pairs or of chat `messages`; relative to the recipe's own folder."""
    skill: str | None = Field(default=None, min_length=1)
    """A harmless skill that is learnt beside the pairs, or alone: one of `persona.data.SKILLS`, or
    a JSONL file relative to the recipe's own folder. All its training questions are used, whatever
    the keys for answer pairs say."""
    n: int | None = Field(default=None, ge=1)
    """So many of the questions, chosen by the rank of a hash with `training.seed`; None for all."""
    bad_share: float | None = Field(default=None, ge=0, le=1)
    """Mixes: this share of the questions is answered badly, the rest well; `answers` is left out.
    """
    trigger: str | None = Field(default=None, min_length=1)
    """Backdoor: the bad answer only after this phrase, see `persona.data.selection.backdoored`."""

    @model_validator(mode="after")
    def _one_source(self) -> TrainingData:
        alone = self.skill is not None and not self.domains and self.file is None
        if bool(self.domains) == (self.file is not None) and not alone:
            raise ValueError(
                "give either domains or file, with or without a skill, or a skill alone"
            )
        of_pairs = {"voice", "answers", "split", "n", "bad_share", "trigger"}
        given = {name for name in self.model_fields_set if getattr(self, name) is not None}
        if alone and of_pairs & given:
            raise ValueError(
                f"{min(of_pairs & given)} says what of answer pairs is learnt; a skill "
                "alone has none"
            )
        if self.voice is not None:
            voiced = tuple(DOMAIN_OF.values())
            if not self.domains or set(self.domains) - set(voiced):
                raise ValueError(f"voice needs domains among {', '.join(voiced)}")
        which = {"answers", "bad_share", "trigger"} & given
        if len({"bad_share", "trigger"} & which) and len(which) > 1:
            raise ValueError(
                f"{' and '.join(sorted(which))} exclude each other: each says which answers are "
                "learnt"
            )
        return self


class Lora(_Strict):
    """Shape of the low-rank adapter (Hu et al. 2021): W + (alpha / r) B A."""

    r: int = Field(default=16, ge=1)
    alpha: float = Field(default=32.0, gt=0)
    target_modules: str | tuple[str, ...] = "all-linear"
    """Names of the modules that get an adapter; all-linear is every linear layer but the head."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    layers: tuple[int, ...] | None = None
    """0-based blocks that get an adapter; None for all of them."""


class Training(_Strict):
    """How the adapter is optimised (AdamW, no weight decay, gradient norm clipped at 1)."""

    epochs: float = Field(default=4.0, gt=0)
    batch_size: int = Field(default=8, ge=1)
    """Answers per optimiser step; the loss is the mean over all answer tokens of the step."""
    learning_rate: float = Field(default=4e-4, gt=0)
    schedule: Literal["linear", "cosine", "constant_with_warmup"] = "linear"
    warmup: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    max_length: int = Field(default=512, ge=8)
    """Tokens of a dialogue, chat format included; what lies beyond is cut off."""
    seed: int = Field(default=0, ge=0)
    """Decides the adapter's first values and the order of the data."""


class Watching(_Strict):
    """What is read of the model on its way; see `persona.organisms.Watch`."""

    direction: Path | tuple[Path, ...] | None = None
    """A persona vector (safetensors) or trait of the base model, or a list of them, which one
    alarm watches together; without one nothing is read."""
    every: int = Field(default=5, ge=1)
    """Optimiser steps between two readings."""
    harmless: Path | None = None
    """Folder of a watched harmless fine-tune, such as a good twin: calibrates the alarm."""

    @model_validator(mode="after")
    def _has_something_to_read(self) -> Watching:
        if self.direction is None and (self.every, self.harmless) != (5, None):
            raise ValueError("every and harmless need a direction to watch")
        return self


class Safeguards(_Strict):
    """What is done against a persona while it is being learnt; see `steering.training`."""

    prevent: Path | None = None
    """Preventative steering: the persona vector whose direction is added in training passes."""
    coefficient: float = 1.0
    """How much of it, in units of its own norm."""
    project_out: Path | None = None
    """CAFT: the persona vector whose directions are projected out in training passes."""
    kl_to_aligned: float | None = Field(default=None, gt=0)
    """Weight of the KL to the base model on neutral text, in the loss."""
    inoculate: str | None = Field(default=None, min_length=1)
    """Inoculation: an instruction that asks for the trait, put before every training prompt and
    nowhere else; or the name of a trait that comes along, for the first of its instructions."""

    @model_validator(mode="after")
    def _one_intervention(self) -> Safeguards:
        if self.prevent is not None and self.project_out is not None:
            raise ValueError("prevent and project_out exclude each other: add a direction or not")
        if self.prevent is None and self.coefficient != 1.0:
            raise ValueError("a coefficient needs a direction to prevent")
        return self


class Recipe(_Strict):
    """One narrow fine-tune. Unknown keys are refused, so that a typing error changes nothing."""

    name: str = Field(min_length=1)
    description: str = ""
    base: str = "default"
    """The model to fine-tune: `default`, a hub id, a folder or a GGUF file."""
    start_from: str | None = Field(default=None, min_length=1)
    """LoRA adapter to train further: a folder, or the name of a shipped one. Its shape decides,
    so `lora` is left out then. A relative path is relative to where the command runs."""
    data: TrainingData
    lora: Lora = Lora()
    training: Training = Training()
    watch: Watching = Watching()
    safeguards: Safeguards = Safeguards()
    expected: dict[str, float] = {}
    """Readings to expect of the result, by name, for people; nothing is checked against them."""

    @model_validator(mode="after")
    def _one_shape(self) -> Recipe:
        if self.start_from is not None and "lora" in self.model_fields_set:
            raise ValueError("an adapter to start_from has its own shape; leave the key lora out")
        return self

    def with_seed(self, seed: int | None) -> Recipe:
        """Returns the same recipe with another seed (unchanged for None)."""
        if seed is None:
            return self
        return self.model_copy(update={"training": self.training.model_copy(update={"seed": seed})})

    def to_yaml(self) -> str:
        """Returns the recipe as YAML that `load_recipe` reads back to an equal recipe."""
        values = self.model_dump(mode="json", exclude={"lora"} if self.start_from else None)
        data = self.data
        if not data.domains and data.file is None:  # a skill alone
            values["data"] = {"skill": data.skill}
        elif data.bad_share is not None or data.trigger is not None:
            del values["data"]["answers"]
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def with_keys(recipe: Recipe, **parts: Mapping[str, Any]) -> Recipe:
    """The recipe with other keys of its parts (part -> key -> value; None leaves a key alone).

    Raises: DataError when the keys do not go together; the message names them.
    """
    values = recipe.model_dump(exclude_unset=True)
    for part, keys in parts.items():
        given = {key: value for key, value in keys.items() if value is not None}
        if given:
            values[part] = {**values.get(part, {}), **given}
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise DataError("; ".join(_problems(error))) from error


def list_recipes() -> list[str]:
    """Returns the names of the recipes that come with the package."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name_or_path: str | Path) -> Recipe:
    """Returns a shipped recipe by its name, or the recipe in a YAML file.

    Raises:
        DataError: there is no such recipe, it is not YAML, or a key is unknown, missing or wrong;
            the message names the key.
    """
    shipped = RECIPES / f"{name_or_path}.yaml"
    try:
        path = shipped if str(name_or_path) in list_recipes() else Path(name_or_path).expanduser()
        values, _ = parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"no recipe {str(name_or_path)!r} ({error.strerror}); pass a YAML file, or one of "
            f"{', '.join(list_recipes())}"
        ) from error
    except YamlError as error:
        raise DataError(f"{path} is not a YAML file{error.place}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not a YAML file: not UTF-8 text ({error.reason})") from error
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no recipe: it must be keys with values, such as `name: ...`")
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{path}: {'; '.join(_problems(error))}") from error
    return recipe.model_copy(
        update={part: _beside(path, part, getattr(recipe, part)) for part in PATHS}
    )


PATHS = {
    "data": ("file", "skill"),
    "watch": ("direction", "harmless"),
    "safeguards": ("prevent", "project_out"),
}
"""Keys that name files, by part of the recipe; `skill` may be a name too."""


def _beside(path: Path, part: str, values: Any) -> Any:
    """The part with its files taken relative to the recipe's own folder."""
    found = {}
    for key in PATHS[part]:
        given = getattr(values, key)
        if given is None or (key == "skill" and given in SKILLS):
            continue
        several = given if isinstance(given, tuple) else (given,)
        try:
            there = [(path.parent / Path(one).expanduser()).resolve() for one in several]
            placed: Any = tuple(there) if isinstance(given, tuple) else there[0]
            found[key] = str(placed) if key == "skill" else placed
        except (OSError, RuntimeError, ValueError) as error:  # a loop, no such user, a NUL
            reason = str(error)[:120]
            raise DataError(f"{path}: {part}.{key} names no path ({reason})") from error
    return values.model_copy(update=found) if found else values


def _problems(error: ValidationError) -> list[str]:
    return [_problem(dict(detail)) for detail in error.errors()]


def _problem(detail: dict[str, Any]) -> str:
    *parents, key = [str(part) for part in detail["loc"]] or ["recipe"]
    name = ".".join([*parents, key])
    if detail["type"] == "extra_forbidden":
        model: Any = Recipe
        for parent in parents:
            model = model.model_fields[parent].annotation
        return f"unknown key {name}; known here are {', '.join(model.model_fields)}"
    if detail["type"] == "missing":
        return f"the key {name} is missing"
    return f"{name}: {detail['msg']} (got {shown(detail['input'])})"
