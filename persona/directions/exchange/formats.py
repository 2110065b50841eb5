"""Every file of vectors by the name of its format: reading, writing, what its layers mean."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from persona.choices import LayersAre
from persona.choices import VectorFormat as Format
from persona.directions.exchange.assistant_axis import read_assistant_axis, write_assistant_axis
from persona.directions.exchange.cast import read_cast, write_cast
from persona.directions.exchange.control_vector import read_control_vector, write_control_vector
from persona.directions.exchange.neuronpedia import read_neuronpedia, write_neuronpedia
from persona.directions.exchange.persona_vectors import read_persona_vectors, write_persona_vectors
from persona.directions.exchange.refusal_direction import (
    read_refusal_direction,
    write_refusal_direction,
)
from persona.directions.exchange.steering_vectors import (
    read_steering_vectors,
    write_steering_vectors,
)
from persona.directions.exchange.vector_set_file import FORMAT as VECTOR_SET
from persona.directions.exchange.vector_set_file import load_vector_set, save_vector_set
from persona.directions.exchange.vectors import VectorSet
from persona.directions.storage import FORMAT as PERSONA_VECTOR
from persona.directions.storage import load_vector, read_format
from persona.errors import DataError

_BY_SUFFIX = {".gguf": Format.control_vector, ".svec": Format.cast, ".json": Format.neuronpedia}


def read_vectors(
    path: str | Path, kind: Format | str | None = None, *, layers_are: LayersAre | None = None
) -> VectorSet:
    """The vectors of a file of the given kind, or of the one that the file shows it is.

    Of a persona vector, the shift from the aligned to the fine-tuned mean at each block.
    Raises: DataError where that is not clear, or the file cannot be read.
    """
    path = Path(path)
    if kind is not None and kind not in set(Format):
        raise DataError(f"there is no format {kind!r} of vectors; there are {_NAMES}")
    match _guess_source(path) if kind is None else Format(kind):
        case Format.persona_vector:
            return VectorSet.from_persona_vector(load_vector(path))
        case Format.vector_set:
            return load_vector_set(path)
        case Format.control_vector:
            return read_control_vector(path)
        case Format.persona_vectors:
            return read_persona_vectors(path)
        case Format.refusal_direction:
            return read_refusal_direction(path)
        case Format.assistant_axis:
            return read_assistant_axis(path)
        case Format.steering_vectors:
            return read_steering_vectors(path)
        case Format.cast:
            return read_cast(path, layers_are=_meaning(layers_are))
        case Format.neuronpedia:
            return read_neuronpedia(path)


def write_vectors(
    vectors: VectorSet,
    path: Path,
    kind: Format,
    *,
    layers_are: LayersAre | None = None,
    n_layers: int | None = None,
    label: str = "",
    coefficient: float | None = None,
    position: int | None = None,
) -> Path:
    """Writes the vectors as a file of the given kind; returns its path.

    Raises: DataError where the kind cannot hold them, or needs an option that was not given.
    """
    match kind:
        case Format.persona_vector:
            raise DataError(
                "a persona-vector holds both models' means, which no single vector has; write a "
                "vector-set"
            )
        case Format.vector_set:
            return save_vector_set(vectors, path)
        case Format.control_vector:
            return write_control_vector(vectors, path)
        case Format.persona_vectors:
            return write_persona_vectors(vectors, path, n_layers=_number(n_layers))
        case Format.refusal_direction:
            return write_refusal_direction(vectors, path, position=position)
        case Format.assistant_axis:
            return write_assistant_axis(vectors, path, n_layers=_number(n_layers))
        case Format.steering_vectors:
            return write_steering_vectors(vectors, path)
        case Format.cast:
            return write_cast(vectors, path, layers_are=_meaning(layers_are))
        case Format.neuronpedia:
            return write_neuronpedia(vectors, path, coefficient=coefficient, label=label)


_NAMES = ", ".join(Format)


def _guess_source(path: Path) -> Format:
    if path.suffix.lower() == ".safetensors":
        ours = {PERSONA_VECTOR: Format.persona_vector, VECTOR_SET: Format.vector_set}
        if (found := ours.get(read_format(path))) is not None:
            return found
        raise DataError(f"{path} is a safetensors file without a card of personascope")
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()]
    raise DataError(f"the name {path.name} leaves its format open; say it with --from: {_NAMES}")


def as_written(vectors: VectorSet, kind: Format) -> VectorSet:
    """The vectors filed at the hook that the kind files them at; the embedding has no output.

    Raises: DataError for resid_pre of block 0 where the kind holds block outputs.
    """
    match kind:
        case Format.vector_set | Format.neuronpedia:
            return vectors
        case Format.refusal_direction:
            return vectors.at_resid_pre()
        case _:
            return vectors.at_resid_post()


def convention(kind: Format, layers_are: LayersAre | None) -> str:
    """What a layer number in a file of this kind means, in words."""
    match kind:
        case Format.persona_vector | Format.vector_set:
            return "<k> belongs to 0-based block k"
        case Format.control_vector:
            return "direction.<k> is added to the output of 0-based block k"
        case Format.persona_vectors:
            return "row l is the output of block l - 1"
        case Format.refusal_direction:
            return "the layer is the block whose input it is"
        case Format.assistant_axis:
            return "row k is the output of block k, pointing away from the trait"
        case Format.steering_vectors:
            return "layer k is the output of block k (decoder_block)"
        case Format.cast if layers_are is LayersAre.blocks_plus_1:
            return "key k is the output of block k - 1"
        case Format.cast:
            return "key k is the output of block k"
        case Format.neuronpedia:
            return "the layer number is the block on whose side hookType says it is"


def guess_target(path: Path) -> Format:
    if path.suffix.lower() == ".safetensors":
        return Format.vector_set
    if path.suffix.lower() in _BY_SUFFIX:
        return _BY_SUFFIX[path.suffix.lower()]
    raise DataError(f"the name {path.name} leaves its format open; say it with --to: {_NAMES}")


def _meaning(layers_are: LayersAre | None) -> Literal["blocks", "blocks+1"]:
    if layers_are is None:
        raise DataError(
            "a .svec file does not say what its layer numbers mean; say it with --layers-are "
            "blocks (0-based block k's output) or blocks+1 (entry k of hidden_states)"
        )
    return "blocks" if layers_are is LayersAre.blocks else "blocks+1"


def _number(n_layers: int | None) -> int:
    if n_layers is None:
        raise DataError("this format has a row for each block of the model; give --n-layers")
    return n_layers
