"""The plan of a study: what is run and what is read of it, fixed by a hash before the first run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from persona.choices import MAX_DAMAGE
from persona.data.plain_yaml import YamlError, parse_yaml
from persona.data.skills import SKILLS
from persona.errors import DataError, Mistakes, shown
from persona.files import sha256_of_file
from persona.organisms.recipe import Recipe, list_recipes, load_recipe
from steering.study.study_measures import MEASURES, OF_A_SKILL, OF_A_TWIN

SHOWN_DIGITS = 12
"""Of the hash, where a person reads it."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PlannedRecipe(_Strict):
    """One fine-tune of the study, made anew with every seed."""

    recipe: str = Field(min_length=1)
    """A shipped recipe, or a YAML file relative to the plan's folder."""
    twin: str | None = Field(default=None, min_length=1)
    """The recipe of its good twin, made with the same seeds."""
    keep: str | None = Field(default=None, min_length=1)
    """A skill that the removal should leave: one of `persona.data.SKILLS`, or a JSONL file."""
    trained_on: tuple[str, ...] | None = None
    """Domains that are chosen on; None for those of the recipe."""


class PlannedDiagnosis(_Strict):
    """How each fine-tune is read: keys of `steering.DiagnoseConfig`, the same for every seed."""

    questions_per_domain: int | None = Field(default=8, ge=4)
    data: Path | None = None
    validation_domains: tuple[str, ...] = ()
    n_random: int = Field(default=20, ge=20)
    max_damage: float = Field(default=MAX_DAMAGE, ge=0)
    seed: int = Field(default=0, ge=0)
    """Of the questions and random draws: one for all fine-tunes, which answer the same questions.
    """
    samples: bool = False


class StudyPlan(_Strict):
    """Everything that is fixed before the first run. Unknown keys are refused."""

    name: str = Field(min_length=1)
    question: str = ""
    base: str | None = None
    """The model to fine-tune; None for that of the recipes."""
    seeds: tuple[int, ...] = Field(min_length=2)
    recipes: tuple[PlannedRecipe, ...] = Field(min_length=1)
    diagnosis: PlannedDiagnosis = PlannedDiagnosis()
    measured: tuple[str, ...] = tuple(n for n in MEASURES if n not in {*OF_A_SKILL, *OF_A_TWIN})
    """Numbers that are told; see `steering.study.MEASURES`."""
    primary: str = "net_restoration"
    """The number that the study is about: tests are made of it alone."""
    smallest_difference: float = Field(default=0.1, gt=0)
    """Of the primary number, in its unit: what should be told apart, for the power."""

    @model_validator(mode="after")
    def _goes_together(self) -> StudyPlan:
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError("seeds are different whole numbers from 0 up")
        if unknown := [name for name in self.measured if name not in MEASURES]:
            raise ValueError(
                f"measured: no number is called {', '.join(unknown)}; there are "
                f"{', '.join(MEASURES)}"
            )
        if self.primary not in self.measured:
            raise ValueError(f"the primary number, {self.primary}, is not among those measured")
        for names, key in ((OF_A_TWIN, "twin"), (OF_A_SKILL, "keep")):
            asked = [name for name in self.measured if name in names]
            lacking = [one.recipe for one in self.recipes if getattr(one, key) is None]
            if asked and lacking:
                raise ValueError(
                    f"{asked[0]} needs the key {key}, which the recipe {lacking[0]} lacks"
                )
        return self


@dataclass(frozen=True)
class Planned:
    """A plan with the recipes it names, as they are now.

    folder: where the plan's relative paths start. labels: what each recipe is called, in order.
    """

    plan: StudyPlan
    recipes: dict[str, Recipe]
    twins: dict[str, Recipe]
    folder: Path

    @property
    def labels(self) -> list[str]:
        return list(self.recipes)

    def of(self, label: str) -> PlannedRecipe:
        """What the plan says of a recipe."""
        return self.plan.recipes[self.labels.index(label)]

    def skill(self, label: str) -> str | None:
        """The skill's name, or its file."""
        keep = self.of(label).keep
        return keep if keep is None or keep in SKILLS else str(self._path(keep))

    @property
    def data(self) -> Path | None:
        """The file of answer pairs, None for the shipped ones."""
        given = self.plan.diagnosis.data
        return None if given is None else self._path(given)

    def _path(self, given: str | Path) -> Path:
        return (self.folder / Path(given).expanduser()).resolve()

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the plan, the recipes it names and the files it reads, in hex."""
        files = [self.data, *map(self.skill, self.labels)]
        for recipe in (*self.recipes.values(), *self.twins.values()):
            files += [recipe.data.file, recipe.data.skill]
        content = [sha256_of_file(Path(f)) for f in files if f is not None and Path(f).is_file()]
        text = json.dumps({**self.as_json(), "files": content}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """The plan with all its keys, and what of the recipes decides the fine-tunes."""
        return {
            "plan": self.plan.model_dump(mode="json"),
            "recipes": {n: _deciding(r) for n, r in self.recipes.items()},
            "twins": {n: _deciding(r) for n, r in self.twins.items()},
        }


def load_plan(path: str | Path) -> Planned:
    """A plan file with its recipes.

    Raises: DataError for no such file, no YAML, keys or recipes that are wrong, a twin of another
        base, or two recipes of one name; SeveralErrors where several things are wrong.
    """
    file = Path(path).expanduser()
    plan = _read(file)
    mistakes = Mistakes()
    recipes: dict[str, Recipe] = {}
    twins: dict[str, Recipe] = {}
    for planned in plan.recipes:
        with mistakes.noted():
            recipe = _recipe(planned.recipe, plan, file.parent)
            if recipe.name in recipes:
                raise DataError(f"two recipes of {file} are called {recipe.name}; rename one")
            recipes[recipe.name] = recipe
            if planned.twin is not None:
                twin = _recipe(planned.twin, plan, file.parent)
                if twin.base != recipe.base:
                    raise DataError(
                        f"the twin {twin.name} is of {twin.base}, but {recipe.name} is of "
                        f"{recipe.base}; give the plan a base, or another twin"
                    )
                twins[recipe.name] = twin
    if len(bases := {recipe.base for recipe in recipes.values()}) > 1:
        with mistakes.noted():
            raise DataError(
                f"the recipes are of several models ({', '.join(sorted(bases))}); a study is of one"
            )
    mistakes.raise_all()
    return Planned(plan, recipes, twins, file.parent)


def _read(file: Path) -> StudyPlan:
    try:
        values, _ = parse_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"no plan {file} ({error.strerror}); pass a YAML file") from error
    except YamlError as error:
        raise DataError(f"{file} is not a YAML file{error.place}: {error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not a YAML file: not UTF-8 text ({error.reason})") from error
    if not isinstance(values, dict):
        raise DataError(f"{file} holds no plan: it must be keys with values, such as `seeds: ...`")
    try:
        return StudyPlan.model_validate(values)
    except ValidationError as error:
        raise DataError(f"{file}: {'; '.join(map(_problem, error.errors()))}") from error


def _problem(detail: Any) -> str:
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return f"unknown key {name}"
    if detail["type"] == "missing":
        return f"the key {name} is missing"
    said = detail["msg"].removeprefix("Value error, ")
    return f"{name}: {said} (got {shown(detail['input'])})" if name else said


def _recipe(name: str, plan: StudyPlan, folder: Path) -> Recipe:
    """A shipped recipe, or one in a file beside the plan; with the plan's base."""
    shipped = name in list_recipes()
    recipe = load_recipe(name if shipped else folder / Path(name).expanduser())
    return recipe if plan.base is None else recipe.model_copy(update={"base": plan.base})


def _deciding(recipe: Recipe) -> dict[str, Any]:
    """What the recipe says, but its words and its seed, which is the study's.

    Keys that it leaves out are no part of it, so that a later version with more of them is no other
    recipe. Files count by their content.
    """
    values = recipe.model_dump(mode="json", exclude={"description", "expected"}, exclude_unset=True)
    for part, key in (("training", "seed"), ("data", "file"), ("data", "skill")):
        if part in values and not (key == "skill" and recipe.data.skill in SKILLS):
            values[part].pop(key, None)
    return values
