"""What the options of `persona sae` name, loaded."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.data.types import AnswerPair
    from persona.models import ModelPair
    from persona.sae import SparseAutoencoder


def questions_of(data: Path | None, domains: list[str] | None) -> list[AnswerPair]:
    """Answer pairs of a file or the shipped ones, of some domains or all.

    Raises: DataError for a domain that is not there.
    """
    from persona.data import load_pairs, read_pairs
    from persona.errors import DataError

    found = load_pairs() if data is None else read_pairs(data)
    known = sorted({question.domain for question in found})
    for domain in domains or ():
        if domain not in known:
            raise DataError(f"there is no domain {domain!r}; the data has {', '.join(known)}")
    return [question for question in found if not domains or question.domain in domains]


def load_both(
    aligned: str | None,
    finetuned: str,
    sae: str,
    layer: int | None,
    allow_mismatch: bool,
    dtype: str,
    device: str,
) -> tuple[ModelPair, SparseAutoencoder]:
    """The pair and an autoencoder that belongs to it.

    Raises: ModelError for an autoencoder that is not there, before a model is loaded.
    """
    from persona.models.on_disk import require_autoencoder

    require_autoencoder(sae)
    from persona.models import Placement, load_pair
    from persona.sae import load_sae

    pair = load_pair(aligned, finetuned, placement=Placement.of(dtype, device))
    return pair, load_sae(sae, pair, layer=layer, allow_mismatch=allow_mismatch)
