"""Activations of texts, read once: a cache on disk named by what they depend on."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from persona.activations import collect_rows, collect_tokens
from persona.data.types import Dialogue
from persona.errors import DataError
from persona.files import atomic_write_bytes
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.kept_folder import cache_folder
from persona.models.pair import ModelPair, Side

logger = logging.getLogger("persona")

Text = str | Dialogue
Cache = bool | str | Path
"""True: the cache folder of the toolkit. False: nothing is kept. Else a folder."""

CACHE_VERSION = 1


def read_pooled(
    pair: ModelPair,
    texts: Sequence[Text],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    side: Side = "finetuned",
    cache: Cache = True,
) -> Tensor:
    """[text layer d_model]: mean over each text's tokens, from the cache where it is there.

    Raises: DataError for an empty text or one without such tokens; ModelError for a layer out of
    range.
    """
    found = _read(pair, texts, layers, token_set, side, cache, "pooled")
    return found["rows"]


def read_tokens(
    pair: ModelPair,
    texts: Sequence[Text],
    layers: Sequence[int],
    *,
    token_set: str = "response",
    side: Side = "finetuned",
    cache: Cache = True,
) -> list[Tensor]:
    """[tokens layer d_model] for each text. Raises: as `read_pooled`."""
    found = _read(pair, texts, layers, token_set, side, cache, "tokens")
    return list(found["rows"].split(found["lengths"].tolist()))


def encode_texts(chat: ChatFormat, texts: Sequence[Text]) -> list[TokenizedDialogue]:
    """Tokens of dialogues in the model's chat format, and of bare texts as they stand.

    The response of a bare text is all of it, less the first token, which no token set holds.
    Raises: DataError for no texts, an empty one, or one longer than the model's context.
    """
    if not len(texts):
        raise DataError("there are no texts to read activations from")
    for place, text in enumerate(texts):
        content = text if isinstance(text, str) else "".join(turn.content for turn in text.turns)
        if not content.strip():
            raise DataError(f"text {place} is empty; leave it out with its label and its group")
    dialogues = iter(chat.encode_all([text for text in texts if isinstance(text, Dialogue)]))
    return [
        _bare(chat, text, place) if isinstance(text, str) else next(dialogues)
        for place, text in enumerate(texts)
    ]


def _bare(chat: ChatFormat, text: str, place: int) -> TokenizedDialogue:
    ids = tuple(chat.tokenizer(text)["input_ids"])
    if chat.max_length is not None and len(ids) > chat.max_length:
        raise DataError(
            f"text {place} has {len(ids)} tokens but the model reads {chat.max_length}; shorten "
            "it or leave it out"
        )
    return TokenizedDialogue(ids, (min(1, len(ids)), len(ids)), f"text {place}")


def _read(
    pair: ModelPair,
    texts: Sequence[Text],
    layers: Sequence[int],
    token_set: str,
    side: Side,
    cache: Cache,
    kind: Literal["pooled", "tokens"],
) -> dict[str, Tensor]:
    encoded = encode_texts(pair.chat, texts)
    path = None
    if cache is not False:
        folder = cache_folder() / "activations" if cache is True else Path(cache)
        path = folder / f"{_key(pair, encoded, layers, token_set, side, kind)}.safetensors"
        found = _cached(path)
        if found is not None:
            return found
    with pair.active(side) as bridge:
        if kind == "pooled":
            found = {"rows": collect_rows(bridge, encoded, layers, token_set=token_set)}
        else:
            tokens = collect_tokens(bridge, encoded, layers, token_set=token_set)
            lengths = torch.tensor([len(row) for row in tokens])
            found = {"rows": torch.cat(tokens), "lengths": lengths}
    if path is not None:
        _keep(path, found)
    return found


def _key(
    pair: ModelPair,
    encoded: Sequence[TokenizedDialogue],
    layers: Sequence[int],
    token_set: str,
    side: Side,
    kind: str,
) -> str:
    """SHA-256 of all that the activations depend on; token ids stand for the texts."""
    # A LoRA fine-tune is its adapter on the aligned model, so both revisions matter there.
    sides: tuple[Side, ...] = ("aligned",) if side == "aligned" else ("aligned", "finetuned")
    facts: dict[str, Any] = {
        "version": CACHE_VERSION,
        "kind": kind,
        "side": side,
        "revisions": [pair.revisions[one] for one in sides],
        "dtype": pair.precision,
        "template": pair.chat.fingerprint,
        "layers": list(layers),
        "token_set": token_set,
        "texts": [[text.ids, text.response] for text in encoded],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _cached(path: Path) -> dict[str, Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not path.is_file():
        return None
    try:
        return dict(load_file(path))
    except (OSError, SafetensorError, ValueError) as error:
        logger.warning("cached activations in %s are damaged (%s): read anew", path.name, error)
        return None


def _keep(path: Path, tensors: dict[str, Tensor]) -> None:
    from safetensors.torch import save

    try:
        atomic_write_bytes(path, save({k: v.contiguous() for k, v in tensors.items()}))
    except OSError as error:
        logger.warning("activations are not kept in %s: %s", path.parent, error.strerror or error)
