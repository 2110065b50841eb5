"""What a demo steers with: a diagnosis, or vectors of another toolkit, and how it is applied."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor

from persona.directions.direction import Direction, PersonaVector
from persona.directions.exchange.vectors import VectorSet, listed
from persona.errors import DataError, SpaceMismatchError, SteeringError
from persona.models.pair import SIDES, ModelPair, Side
from persona.models.sources import short_name
from steering.demo.session.evidence import Evidence, evidence_beside
from steering.edits.edit import Edit, require_finite
from steering.edits.from_directions import ablate, add, induce, restore

Mode = Literal["restore", "add", "ablate"]
MODES: tuple[Mode, ...] = get_args(Mode)

MAX_FILE_BYTES = 64 * 2**20
"""Rank 2 at 80 blocks of d_model 8192 takes 21 MB; a larger file is no direction."""


@dataclass(frozen=True)
class Setting:
    """How the steered column is steered.

    coefficient: restore: 1 sets the projection to the aligned model's mean, 0 changes nothing;
        add: times the shift from the aligned to the fine-tuned mean, at every chosen block, so
        +1 pushes toward the trait and -1 away from it; ablate: 1 leaves a projection of zero.
    layers: first and last 0-based block, both included; None for all that the vector has.
    side: the model that is steered.
    Raises: SteeringError for a mode, side, coefficient or range that means nothing.
    """

    coefficient: float = 1.0
    mode: Mode = "restore"
    layers: tuple[int, int] | None = None
    side: Side = "finetuned"

    def __post_init__(self) -> None:
        require_finite(self.coefficient)
        if self.mode not in MODES:
            raise SteeringError(f"the mode must be {', '.join(MODES)}; got {self.mode!r}")
        if self.side not in SIDES:
            raise SteeringError(f"the steered model must be {' or '.join(SIDES)}; got {self.side}")
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            first, last = self.layers
            raise SteeringError(f"blocks run from the first to the last; got {first}-{last}")

    @property
    def words(self) -> str:
        """For people, such as "restore, coefficient 1, all blocks, fine-tuned model"."""
        return f"{self.edit_in_words}, {self.model_in_words}"

    @property
    def edit_in_words(self) -> str:
        """Such as "restore, coefficient 1, all blocks"."""
        return f"{self.mode}, coefficient {self.coefficient:g}, {self.blocks_in_words}"

    @property
    def blocks_in_words(self) -> str:
        if self.layers is None:
            return "all blocks"
        first, last = self.layers
        return f"block {first}" if first == last else f"blocks {first}-{last}"

    @property
    def model_in_words(self) -> str:
        return "fine-tuned model" if self.side == "finetuned" else "aligned model"


@dataclass(frozen=True, eq=False)
class DemoVector:
    """Directions toward the trait by block, and the models' means on them where they are known.

    persona_vector: None for vectors of another toolkit, which cannot restore: they hold no means.
    proved_at: block and coefficient at which `persona trait` tried it, where that made it.
    name: what the person calls it. notes: what a reader must know about how it was read.
    evidence: what the run that found it knows of it, where that lies beside it.
    """

    directions: Mapping[int, Direction]
    persona_vector: PersonaVector | None = None
    name: str = ""
    notes: tuple[str, ...] = ()
    evidence: Evidence | None = None
    proved_at: tuple[int, float] | None = None

    @property
    def layers(self) -> list[int]:
        return sorted(self.directions)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What can be done with it."""
        return MODES if self.persona_vector is not None else ("add", "ablate")

    @property
    def default_setting(self) -> Setting:
        """Restore, as far as the diagnosis chose; add, away from a trait where and as far as its
        proof did; of other plain vectors, -1 times at every block."""
        if self.persona_vector is not None:
            return Setting(self.persona_vector.coefficient, "restore")
        if self.proved_at is not None:
            layer, coefficient = self.proved_at
            return Setting(-coefficient, "add", (layer, layer))
        return Setting(-1.0, "add")

    def chosen(self, layers: tuple[int, int] | None) -> list[int]:
        """The vector's blocks in a range. Raises: SteeringError where there is none."""
        if layers is None:
            return self.layers
        inside = [layer for layer in self.layers if layers[0] <= layer <= layers[1]]
        if not inside:
            raise SteeringError(
                f"the direction has no block from {layers[0]} to {layers[1]}; it has "
                f"{listed(self.layers)}"
            )
        return inside

    def row(self, layer: int) -> Float[Tensor, " d_model"]:
        """What a residual is multiplied with to give its projection, in residual-stream units.

        Read as the edit reads it (with the readout of a subspace), along the line from the aligned
        to the fine-tuned mean.
        """
        if self.persona_vector is None:
            return self.directions[layer].unit
        subspace = self.persona_vector.subspaces[layer]
        shift = subspace.finetuned_mean - subspace.aligned_mean
        return shift / shift.norm() @ subspace.effective_readout

    def levels(self, layer: int) -> tuple[float, float] | None:
        """Projections of the aligned and of the fine-tuned mean, None where not known."""
        if self.persona_vector is None:
            return None
        subspace = self.persona_vector.subspaces[layer]
        shift = subspace.finetuned_mean - subspace.aligned_mean
        unit = shift / shift.norm()
        return float(unit @ subspace.aligned_mean), float(unit @ subspace.finetuned_mean)


def edits_of(vector: DemoVector, setting: Setting) -> list[Edit]:
    """The edits that a setting means, in the order of the blocks.

    Raises: SteeringError for blocks the vector does not have, or to restore without means.
    """
    layers, coefficient = vector.chosen(setting.layers), setting.coefficient
    if setting.mode == "add":
        return [e for layer in layers for e in add(vector.directions[layer], coefficient)]
    if vector.persona_vector is None:
        if setting.mode == "restore":
            raise SteeringError(
                "restore needs the aligned model's means, which this file does not hold; take the "
                "mode add or ablate"
            )
        return [e for layer in layers for e in ablate(vector.directions[layer], coefficient)]
    make = restore if setting.mode == "restore" else ablate
    return make(_at(vector.persona_vector, layers), coefficient)


def induced(
    vector: DemoVector, layers: tuple[int, int] | None, coefficient: float
) -> Sequence[Edit]:
    """The mirror of `restore`: each projection moved toward the fine-tuned model's mean.

    Raises: SteeringError for blocks the vector does not have, or without means.
    """
    chosen = vector.chosen(layers)
    require_finite(coefficient)
    if vector.persona_vector is None:
        raise SteeringError(
            "induce needs the fine-tuned model's means, which this file does not hold; take the "
            "mode add"
        )
    return induce(_at(vector.persona_vector, chosen), coefficient)


def model_of_vector(path: str | Path) -> str:
    """The model that a file of vectors says it belongs to, "" where it says none.

    Raises: DataError when the file is missing, damaged or of a kind that is not read here.
    """
    from persona.directions.exchange import read_vectors

    path = Path(path)
    _require_direction_file(path)
    return short_name(read_vectors(path).model)


def from_persona_vector(vector: PersonaVector, name: str = "") -> DemoVector:
    """To steer with what a diagnosis found. Raises: DataError where both means are the same."""
    directions = {layer: vector.direction(layer) for layer in vector.layers}
    return DemoVector(directions, vector, name or vector.method)


def load_demo_vector(
    path: str | Path, pair: ModelPair, *, allow_mismatch: bool = False
) -> DemoVector:
    """A direction from a file, checked against the pair it will steer.

    Reads direction.safetensors of a diagnosis, a vector set, a GGUF control vector and a
    Neuronpedia vector (.json), the last two as a vector of this model where width and blocks fit.
    Raises: DataError when the file is missing, damaged, larger than 64 MB or of another kind;
    SpaceMismatchError when it belongs to another model.
    """
    path = Path(path)
    _require_direction_file(path)
    loaded = _read(path, pair, allow_mismatch)
    if isinstance(loaded, PersonaVector):
        return replace(from_persona_vector(loaded, path.name), evidence=evidence_beside(path))
    return _of_vector_set(loaded, pair, path.name)


def save_demo_vector(vector: DemoVector, setting: Setting, path: str | Path) -> Path:
    """Write the chosen blocks, and of a diagnosis the coefficient, as safetensors; the path."""
    from persona.directions.exchange.vector_set_file import save_vector_set
    from persona.directions.exchange.vectors import TOWARD_TRAIT
    from persona.directions.storage import save_vector

    layers = vector.chosen(setting.layers)
    if vector.persona_vector is not None:
        kept = _at(vector.persona_vector, layers)
        if setting.mode == "restore":
            kept = replace(kept, coefficient=setting.coefficient)
        return save_vector(kept, path)
    first = vector.directions[layers[0]]
    vectors = {layer: vector.directions[layer].vector.clone() for layer in layers}
    facts = {"sign": TOWARD_TRAIT, "operation": "add", "revision": first.space.revision}
    return save_vector_set(
        VectorSet(vectors, "resid_post", first.space.model, first.method, facts), path
    )


def _at(vector: PersonaVector, layers: list[int]) -> PersonaVector:
    return replace(vector, subspaces={layer: vector.subspaces[layer] for layer in layers})


def _require_direction_file(path: Path) -> None:
    """Raises: DataError for a file that is not there, too large, or of no kind that is read."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise DataError(
            f"{path.name} has {size / 2**20:.0f} MB; a direction has at most "
            f"{MAX_FILE_BYTES // 2**20} MB"
        )
    if path.suffix.lower() not in (".safetensors", ".gguf", ".json"):
        raise DataError(
            f"{path.name}: a direction is a .safetensors, .gguf or .json file; turn others into "
            "one with `persona convert`"
        )


def _read(path: Path, pair: ModelPair, allow_mismatch: bool) -> PersonaVector | VectorSet:
    from persona.directions.exchange import read_vectors
    from persona.directions.storage import FORMAT as PERSONA_VECTOR
    from persona.directions.storage import load_vector, read_format

    if path.suffix.lower() == ".safetensors" and read_format(path) == PERSONA_VECTOR:
        return load_vector(path, pair, allow_mismatch=allow_mismatch)
    return read_vectors(path)


def _of_vector_set(vectors: VectorSet, pair: ModelPair, name: str) -> DemoVector:
    """Raises: SpaceMismatchError where width, blocks or, if the file says it, revision differ."""
    placed = vectors.at_resid_post()
    if placed.d_model != pair.d_model or placed.layers[-1] >= pair.n_layers:
        raise SpaceMismatchError(
            f"{name} has d_model={placed.d_model} and block {listed(placed.layers)}, but "
            f"{pair.names['aligned']} has d_model={pair.d_model} and blocks 0 to "
            f"{pair.n_layers - 1}. Take a direction of this model"
        )
    here, revision = pair.space(placed.layers[0]), placed.facts.get("revision")
    if revision and revision != here.revision:
        raise SpaceMismatchError(
            f"{name} is of {placed.model} revision {revision!r}, but this is {here.model} revision "
            f"{here.revision!r}. Take a direction of this model"
        )
    notes = []
    if placed.model != here.model:
        of = f"names {placed.model!r} as its model" if placed.model else "names no model"
        notes.append(f"{name} {of}; it is taken as a direction of {here.model}")
    if placed.facts.get("sign") is None:
        notes.append(f"{name} does not say which way it points; taken as toward the trait")
    directions = placed.to_directions(
        revision=here.revision, model=here.model, chat_template_hash=here.chat_template_hash
    )
    proved_at = _proved_at(placed)
    if proved_at is not None:
        notes.append(
            f"{name} was tried at block {proved_at[0]} with coefficient {proved_at[1]:g} (verdict: "
            f"{placed.facts['verdict']}); it steers there, away from the trait, unless you say "
            "otherwise"
        )
    return DemoVector(directions, None, name, tuple(notes), proved_at=proved_at)


def _proved_at(vectors: VectorSet) -> tuple[int, float] | None:
    """Block and coefficient on the card of a trait; None where they are not there, or mean
    nothing."""
    layer, coefficient = vectors.facts.get("layer"), vectors.facts.get("coefficient")
    if "verdict" not in vectors.facts or not isinstance(layer, int) or layer not in vectors.vectors:
        return None
    if not isinstance(coefficient, int | float) or not math.isfinite(coefficient):
        return None
    return layer, float(coefficient)
