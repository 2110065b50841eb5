"""What steering can do while a model is being trained, by callables or by a recipe's keys.

Source: preventative steering, Chen et al. 2025 (Persona vectors); CAFT, Casademunt et al. 2025.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from persona.data import load_neutral, load_pairs
from persona.data.selection import sample
from persona.directions.direction import Direction, PersonaVector
from persona.directions.storage import FORMAT as PERSONA_VECTOR
from persona.directions.storage import load_vector, read_format
from persona.errors import DataError, SpaceMismatchError
from persona.files import atomic_write_text
from persona.models.precision import Placement
from persona.models.sources import Source, resolve
from persona.organisms import (
    CusumAlarm,
    During,
    FamilyAlarm,
    KlPenalty,
    Recipe,
    Watch,
    cusum_alarm,
    family_alarm,
    finetune,
    read_readings,
)
from persona.organisms.inoculation import instruction_of
from persona.organisms.monitoring import mean_projections
from persona.rows import GOOD_TWIN
from persona.traits.comparing import open_trait
from steering.edits.from_directions import ablate, add
from steering.edits.steer import steer


def preventative(direction: Direction, coefficient: float = 1.0) -> During:
    """Adds coefficient times the direction in every training pass, so it need not be learnt.

    A positive coefficient pushes toward the trait while training; without the push, in use, the
    model is further from it than it would have been.
    """
    edits = add(direction, coefficient)
    return During(f"add {coefficient:g} x {named(direction)}", lambda model: steer(model, edits))


def projecting_out(vector: PersonaVector) -> During:
    """Takes the projection on the vector's direction away after each of its blocks (CAFT)."""
    directions = [vector.direction(layer) for layer in vector.layers]
    edits = [edit for direction in directions for edit in ablate(direction)]
    names = ", ".join(named(direction) for direction in directions)
    return During(f"project out {names}", lambda model: steer(model, edits))


PER_DOMAIN = 2
LONGEST_WATCH = 60
"""Readings within which a calibrated alarm keeps its stated rate of false ones."""


def finetune_guarded(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = True,
    placement: Placement | None = None,
    keep_every: int | None = None,
) -> Path:
    """Fine-tunes as `persona.organisms.finetune` does, with the recipe's watch and safeguards.

    The direction is the persona vector's at its middle block; projecting out takes all its blocks.
    Read are two questions of every domain that the recipe does not train on, and every second
    neutral text; the KL to the base model is taken on the others. A watched run gets course.html
    and course.svg, the way from the aligned model.

    Raises: SpaceMismatchError for a vector of another model than the recipe's base, before
        anything is written; DataError and ModelError as `finetune`.
    """
    watched, guards = recipe.watch, recipe.safeguards
    during = penalty = watch = None
    if guards.inoculate is not None:
        instruction_of(guards.inoculate)
    if guards.prevent is not None:
        vector = _fitting(guards.prevent, recipe)
        during = preventative(_middle(vector), guards.coefficient)
    elif guards.project_out is not None:
        during = projecting_out(_fitting(guards.project_out, recipe))
    if guards.kl_to_aligned is not None:
        anchors = [text.dialogue for text in load_neutral()[1::2]]
        penalty = KlPenalty(guards.kl_to_aligned, anchors)
    if watched.direction is not None:
        domains = sorted({pair.domain for pair in load_pairs()} - set(recipe.data.domains))
        along = watched_directions(watched.direction, recipe)
        watch = Watch(
            along,
            [q for domain in domains for q in sample(load_pairs([domain]), PER_DOMAIN)],
            load_neutral()[::2],
            watched.every,
            None if watched.harmless is None else _alarm(watched.harmless, along),
        )
    folder = finetune(
        recipe,
        out,
        resume=resume,
        placement=placement,
        watch=watch,
        during=during,
        penalty=penalty,
        keep_every=keep_every,
    )
    if watch is not None:
        draw_course(folder, watched.harmless)
    return folder


def draw_course(folder: Path, harmless: Path | None = None) -> None:
    """Writes course.html and course.svg beside the readings of a watched fine-tune."""
    from persona.report.figures import training_course
    from persona.report.svg import figure_svg

    runs = {"finetuned": read_readings(folder)}
    if harmless is not None:
        runs[GOOD_TWIN] = read_readings(harmless)
    figure = training_course(runs)
    html = figure.to_html(include_plotlyjs=True, full_html=True)
    atomic_write_text(folder / "course.html", html)
    atomic_write_text(folder / "course.svg", figure_svg(figure))


def watched_directions(
    paths: Path | Sequence[Path], recipe: Recipe
) -> Direction | dict[str, Direction]:
    """What a recipe watches: one direction, or several by their names.

    Of a persona vector its middle block, of a trait its own.
    Raises: SpaceMismatchError for a vector of another model than the recipe's base; DataError for
        two of one name.
    """
    if isinstance(paths, Path):
        return _watched(paths, recipe)[1]
    found: dict[str, Direction] = {}
    for path in paths:
        name, direction = _watched(path, recipe)
        if name in found:
            raise DataError(f"two directions to watch are called {name}; rename a file")
        found[name] = direction
    return found


def _watched(path: Path, recipe: Recipe) -> tuple[str, Direction]:
    if path.suffix == ".safetensors" and read_format(path) == PERSONA_VECTOR:
        return path.stem, _middle(_fitting(path, recipe))
    trait = open_trait(path)
    base = resolve(recipe.base)
    if trait.revision not in ("", base.revision):
        raise _of_another_model(path, trait.vectors.model, trait.revision, base)
    return trait.name, trait.direction()


def _alarm(harmless: Path, along: Direction | Mapping[str, Direction]) -> CusumAlarm | FamilyAlarm:
    """Raises: DataError where the harmless run was not watched along the same."""
    rows = read_readings(harmless).to_dict("records")
    if isinstance(along, Direction):
        return cusum_alarm(mean_projections(rows), LONGEST_WATCH)
    series = {name: mean_projections(rows, name) for name in along}
    if lacking := [name for name, readings in series.items() if not readings]:
        raise DataError(
            f"{harmless} was not watched along {lacking[0]}; watch the harmless fine-tune with the "
            "same directions"
        )
    return family_alarm(series, LONGEST_WATCH)


def _middle(vector: PersonaVector) -> Direction:
    return vector.direction(vector.layers[len(vector.layers) // 2])


def _fitting(path: Path, recipe: Recipe) -> PersonaVector:
    """Raises: SpaceMismatchError for a vector of another model than the recipe's base."""
    vector = load_vector(path)
    space = next(iter(vector.subspaces.values())).space
    base = resolve(recipe.base)
    if space.revision != base.revision:
        raise _of_another_model(path, space.model, space.revision, base)
    return vector


def _of_another_model(path: Path, model: str, revision: str, base: Source) -> SpaceMismatchError:
    return SpaceMismatchError(
        f"{path} is of {model} ({revision}), but the recipe trains {base.name} "
        f"({base.revision}). Make a vector of that model, or name the base it came from"
    )


def named(direction: Direction) -> str:
    """A direction by its place and content: equal names, equal edits."""
    digest = hashlib.sha256(direction.vector.float().numpy().tobytes()).hexdigest()[:12]
    return f"{direction.method} at {direction.space.hook_name} ({digest})"
