"""Whose folder it is: a training may go on in its own, and in no other's."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from persona.data.jsonl import read_json
from persona.errors import DataError
from persona.models.pair import ModelPair
from persona.sae.opening import CARD, CONFIG
from persona.sae.texts import Text
from persona.sae.trainer import TrainingConfig

WORK = ".work"


def fingerprint(
    pair: ModelPair,
    layers: Sequence[int],
    config: TrainingConfig,
    n_tokens: int,
    texts: Sequence[Text],
    sample: bool,
) -> str:
    """16 hex digits over everything that decides the result."""
    digest = hashlib.sha256()
    facts = {
        "config": dataclasses.asdict(config),
        "layers": list(layers),
        "n_tokens": n_tokens,
        "sample": sample,
        "revisions": pair.revisions,
        "template": pair.chat.fingerprint,
        "dtype": pair.precision,
    }
    digest.update(json.dumps(facts, sort_keys=True).encode())
    for text in texts:
        digest.update(repr((text.tokens.ids, text.span, text.kind)).encode())
    return digest.hexdigest()[:16]


def require_free(folders: Iterable[Path], mark: str) -> None:
    """A folder may hold what this very run has made so far, and no other autoencoder."""
    for folder in folders:
        if not (folder / CARD).exists() and not (folder / CONFIG).exists():
            continue
        unfinished = any((parent / WORK / mark).exists() for parent in (folder, folder.parent))
        card = read_json(folder / CARD) if (folder / CARD).exists() else {}
        if unfinished or card.get("fingerprint") == mark:
            continue
        raise DataError(
            f"{folder} holds another autoencoder; choose another --out, or remove it first"
        )


def work_folder(out: Path, mark: str) -> Path:
    """Where unfinished stages are kept; those of another run are dropped."""
    work = out / WORK / mark
    if not work.exists():
        shutil.rmtree(out / WORK, ignore_errors=True)
        work.mkdir(parents=True)
    return work
