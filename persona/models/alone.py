"""One model where a pair is asked for: both of its sides are the same."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persona.models.chat.chat_format import chat_format
from persona.models.load import PairRecipe, load_bridge
from persona.models.pair import SIDES, ModelPair
from persona.models.precision import Placement
from persona.models.sources import resolve


def load_alone(
    ref: str | Path,
    *,
    placement: Placement | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> ModelPair:
    """A full checkpoint as a pair whose sides are both that one model, loaded once.

    For what asks and steers one model and checks directions against it; nothing is compared.
    Raises: ModelError as `load_pair`, and for an adapter.
    """
    placement = placement or Placement.of()
    source = resolve(ref)
    bridge, known = load_bridge(ref, placement=placement)
    chat = chat_format(known.tokenizer, None, known.max_length, template_arguments)
    return ModelPair(
        open_side=lambda side: contextlib.nullcontext(bridge),
        n_layers=int(bridge.cfg.n_layers),
        d_model=int(bridge.cfg.d_model),
        one_copy_of_weights=True,
        chat=chat,
        names=dict.fromkeys(SIDES, source.name),
        revisions=dict.fromkeys(SIDES, source.revision),
        fingerprints=dict.fromkeys(SIDES, source.fingerprint),
        dtype=placement.dtype,
        device=placement.device,
        weights=placement.weights,
        notes=[*placement.notes(), *chat.notes()],
        reload=PairRecipe.of_one(ref, placement, chat),
    )
