"""A trait as it is kept: a folder of `persona trait`, or any file of vectors."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from persona.choices import VectorFormat
from persona.directions.direction import Direction
from persona.directions.exchange.formats import read_vectors
from persona.directions.exchange.vectors import TOWARD_TRAIT, VectorSet, listed
from persona.directions.storage import read_tensors_and_card, tool_version
from persona.errors import DataError
from persona.files import atomic_write_bytes
from persona.models.space import ActivationSpace

RESULT, VECTOR_FILE, DIFFERENCES = "trait.json", "vector.safetensors", "differences.safetensors"
FORMAT = "personascope/trait-differences"
SCHEMA_VERSION = 1
FEWEST_QUESTIONS = 4
"""Of fewer questions no interval is given."""


@dataclass(frozen=True, eq=False)
class QuestionDifferences:
    """What a trait's vector is the mean of: answers for it less answers against it, by question.

    rows: [question layer d_model], mean over the question's pairs. n_pairs: [question], its weight.
    """

    rows: Float[Tensor, "question layer d_model"]
    n_pairs: Float[Tensor, " question"]

    def save(self, path: str | Path) -> Path:
        """Writes a safetensors file with a card; returns the path."""
        from safetensors.torch import save

        card = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "tool_version": tool_version(),
            "layer_convention": "0-based block; hook_resid_post is that block's output",
            "what": "answers for the trait less answers against it, mean over a question's pairs",
        }
        tensors = {"rows": self.rows.float().contiguous(), "n_pairs": self.n_pairs.float()}
        text = json.dumps(card, sort_keys=True)
        atomic_write_bytes(path, save(tensors, metadata={"card": text}))
        return Path(path)

    @classmethod
    def load(cls, path: str | Path) -> QuestionDifferences:
        """Raises: DataError where the file is damaged, or of another kind."""
        tensors, _ = read_tensors_and_card(path, FORMAT, SCHEMA_VERSION)
        rows, n_pairs = tensors.get("rows"), tensors.get("n_pairs")
        if rows is None or n_pairs is None or rows.ndim != 3 or n_pairs.shape != rows.shape[:1]:
            raise DataError(f"{path} holds no differences [question layer d_model] with weights")
        if not rows.isfinite().all() or not (n_pairs > 0).all():
            raise DataError(f"{path} holds numbers that are no differences of answers")
        return cls(rows, n_pairs)

    @classmethod
    def of_pairs(
        cls, differences: Float[Tensor, "pair layer d_model"], questions: Sequence[str]
    ) -> QuestionDifferences:
        """The mean of each question's pairs, questions in the order in which they first come."""
        places = {name: place for place, name in enumerate(dict.fromkeys(questions))}
        index = torch.tensor([places[name] for name in questions])
        counts = torch.bincount(index, minlength=len(places)).double()
        sums = torch.zeros(len(places), *differences.shape[1:], dtype=torch.float64)
        sums.index_add_(0, index, differences.double())
        return cls((sums / counts[:, None, None]).float(), counts.float())


@dataclass(frozen=True, eq=False)
class KeptTrait:
    """One trait's vector at one or more blocks, filed at block outputs and toward the trait.

    layer: its own block, the one at which `persona trait` found it best to write; of a file that
        names none, the middle of its blocks. verdict: "" where nobody proved it.
    differences: what the vector is the mean of, None where it was not kept.
    split_half: cosine of the vectors of two halves of the questions at its own block, NaN where it
        is not known.
    """

    name: str
    vectors: VectorSet
    layer: int
    verdict: str = ""
    differences: QuestionDifferences | None = None
    split_half: float = math.nan
    source: str = ""
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.layer not in self.vectors.vectors:
            raise DataError(
                f"{self.name} has no vector at block {self.layer}; it has "
                f"{listed(self.vectors.layers)}"
            )

    @property
    def revision(self) -> str:
        """Of the model it was made in, "" where the file does not say."""
        return str(self.vectors.facts.get("revision") or "")

    def at(self, layer: int) -> Float[Tensor, " d_model"]:
        """The vector at a block, float64. Raises: DataError where there is none, or it is zero."""
        if layer not in self.vectors.vectors:
            raise DataError(
                f"{self.name} has no vector at block {layer}; it has {listed(self.vectors.layers)}"
            )
        vector = self.vectors.vectors[layer].double()
        if not vector.any():
            raise DataError(f"the vector of {self.name} is zero at block {layer}")
        return vector

    def direction(self) -> Direction:
        """At its own block, in the space that its file names."""
        model = self.vectors.model or self.name
        made = self.vectors.select([self.layer]).to_directions(
            revision=self.revision,
            model=model,
            chat_template_hash=str(self.vectors.facts.get("chat_template_hash") or ""),
        )
        return replace(made[self.layer], method=f"trait {self.name}")

    def in_space(self, space: ActivationSpace) -> Direction:
        """The same as a direction of a model's own space at that block.

        A file that names a revision, or a chat template, must name this model's.
        Raises: SpaceMismatchError for another width, revision or chat template.
        """
        own = self.direction()
        said = {
            name: getattr(own.space, name) or getattr(space, name)
            for name in ("revision", "chat_template_hash")
        }
        replace(own.space, model=space.model, **said).require_same(space)
        return replace(own, space=space)


def open_trait(
    path: str | Path, *, name: str = "", kind: VectorFormat | str | None = None
) -> KeptTrait:
    """A folder that `persona trait` left, or a file of vectors: ours, GGUF, Neuronpedia, .pt.

    name: default the folder's, or the file's without its ending. kind: format of a file, default
        the one it shows; a .pt is taken for one of persona_vectors.
    Raises: DataError for what is not there, unfinished, damaged, or holds no vector.
    """
    path = Path(path)
    if path.is_dir():
        return _of_folder(path, name)
    if not path.exists():
        raise DataError(f"there is no trait {path}; name a folder of `persona trait`, or a file")
    if kind is None and path.suffix == ".pt":
        kind = VectorFormat.persona_vectors
    vectors = read_vectors(path, kind).at_resid_post().pointing(TOWARD_TRAIT)
    return KeptTrait(
        name or _file_name(path),
        vectors,
        _own_block(vectors),
        str(vectors.facts.get("verdict") or ""),
        source=str(path),
    )


def open_traits(
    paths: Sequence[str | Path], *, kind: VectorFormat | str | None = None
) -> list[KeptTrait]:
    """Several, in their order. Raises: DataError as `open_trait`, and for two of one name."""
    found: dict[str, KeptTrait] = {}
    for path in paths:
        trait = open_trait(path, kind=kind)
        if (other := found.get(trait.name)) is not None:
            raise DataError(
                f"{other.source} and {trait.source} are both called {trait.name}; rename a folder"
            )
        found[trait.name] = trait
    return list(found.values())


def _of_folder(folder: Path, name: str) -> KeptTrait:
    vector, result = folder / VECTOR_FILE, folder / RESULT
    if not vector.exists():
        why = (
            "that run made no vector, since too few answers showed the trait"
            if result.exists()
            else "name a folder of a finished run of `persona trait`"
        )
        raise DataError(f"{folder} holds no {VECTOR_FILE}; {why}")
    vectors = read_vectors(vector).at_resid_post().pointing(TOWARD_TRAIT)
    kept = None
    if (there := folder / DIFFERENCES).exists():
        kept = QuestionDifferences.load(there)
        _, n_layers, width = kept.rows.shape
        if n_layers <= vectors.layers[-1] or width != vectors.d_model:
            raise DataError(
                f"{there} has {n_layers} blocks of d_model {width}, which does not fit the vector "
                f"of d_model {vectors.d_model} up to block {vectors.layers[-1]} beside it"
            )
    halves = _result(result).get("split_half_cosine") or {}
    cosine = halves.get("cosine") if isinstance(halves, dict) else None
    return KeptTrait(
        name or folder.resolve().name,
        vectors,
        _own_block(vectors),
        str(vectors.facts.get("verdict") or ""),
        kept,
        float(cosine) if isinstance(cosine, int | float) else math.nan,
        str(folder),
    )


def _result(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is no result of `persona trait`: {error}") from error
    if not isinstance(found, dict):
        raise DataError(f"{path} is no result of `persona trait`: it must be one JSON object")
    return found


def _own_block(vectors: VectorSet) -> int:
    said = vectors.facts.get("layer")
    if isinstance(said, int) and not isinstance(said, bool) and said in vectors.vectors:
        return said
    return vectors.layers[len(vectors.layers) // 2]


def _file_name(path: Path) -> str:
    """The file's name as a trait's: a published `evil_response_avg_diff.pt` is evil."""
    return path.stem.removesuffix("_response_avg_diff") or path.stem
