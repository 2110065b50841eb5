"""Token by token along a conversation, and while a model is writing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import pandas as pd
from torch import Tensor

from persona.activations import collect_at
from persona.data.types import Dialogue
from persona.errors import DataError, ModelError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue
from persona.models.hooks import hooked, resid_post
from persona.models.pair import ModelPair, Side
from probes.monitor.reader import Reader, reader_of

TEMPLATE_ROLE = "template"


def score_tokens(
    pair: ModelPair,
    conversation: Dialogue,
    monitored: Any,
    *,
    layer: int | None = None,
    side: Side = "finetuned",
) -> pd.DataFrame:
    """Projection and probe score of every token of a conversation.

    monitored: a FittedProbe, a Direction, or a fitted linear or token probe with its `layer`; or
        several by their names, such as a set of traits, which one pass reads: the table then has a
        row for each of them and token, and the column trait first.
    Columns: token (its text), position (from 0), turn (from 0, -1 for the template's own tokens),
    role ("template" for those), projection (residual-stream units), score (see `Reader`). The first
    token has neither: its residual is a massive activation that says nothing.
    Raises: SpaceMismatchError for another model than the probe's; DataError where the template
    does not show a turn as it stands, or activations are not finite.

    Examples:
        >>> import torch
        >>> from persona import load_pair
        >>> from persona.data import Dialogue, Turn
        >>> from persona.directions import Direction
        >>> from probes.monitor import score_tokens
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> direction = Direction(torch.ones(pair.d_model), pair.space(2), "made up")
        >>> said = Dialogue((Turn("user", "Brakes?"), Turn("assistant", "Check them.")))
        >>> table = score_tokens(pair, said, direction)
        >>> "".join(table.loc[table["role"] == "assistant", "token"])
        'Check them.'
        >>> int(table["score"].isna().sum())  # the first token alone
        1
    """
    readers = _readers(monitored, layer)
    for reader in readers.values():
        if reader.space is not None:
            reader.space.require_same(pair.space(min(reader.layer, pair.n_layers - 1)))
    table, encoded = _token_table(pair.chat, conversation)
    layers = sorted({reader.layer for reader in readers.values()})
    with pair.active(side) as bridge:
        places = [list(range(len(encoded)))]
        resid = collect_at(bridge, [encoded], places, layers)[0]
    parts = []
    for name, reader in readers.items():
        projection, score = reader.read(resid[:, layers.index(reader.layer)])
        part = table.assign(projection=projection.numpy(), score=score.numpy())
        part.loc[0, ["projection", "score"]] = np.nan
        parts.append(part)
        if isinstance(monitored, Mapping):
            part.insert(0, "trait", name)
    return pd.concat(parts, ignore_index=True)


def _readers(monitored: Any, layer: int | None) -> dict[str, Reader]:
    """By name; of one alone its name is empty. Raises: DataError without any, or as `reader_of`."""
    if not isinstance(monitored, Mapping):
        return {"": reader_of(monitored, layer)}
    if not monitored:
        raise DataError("there is nothing to monitor; give a direction or a probe by its name")
    return {str(name): reader_of(one, layer) for name, one in monitored.items()}


def _token_table(
    chat: ChatFormat, conversation: Dialogue
) -> tuple[pd.DataFrame, TokenizedDialogue]:
    """Text, position, turn and role of every token, and the ids that were given these."""
    encoded = chat.encode(conversation)
    text = chat.render(conversation, open_answer=conversation.answer is None)
    offsets = chat.offsets(conversation)
    spans = chat.turn_places(conversation)
    lines, shown = [], 0
    for position, (start, end) in enumerate(offsets):
        turn_number = next((n for n, (a, b) in enumerate(spans) if start < b and end > a), -1)
        role = conversation.turns[turn_number].role if turn_number >= 0 else TEMPLATE_ROLE
        # Tokens of one character's bytes have the same offsets: its text is shown once.
        lines.append((text[max(start, shown) : end], position, turn_number, role))
        shown = max(shown, end)
    return pd.DataFrame(lines, columns=["token", "position", "turn", "role"]), encoded


@dataclass
class Recording:
    """What `monitoring` saw: one entry a decoded token, in order.

    projections, scores: a list of one value for each row of the batch, step by step; those of
        step t belong to the position that token t was predicted from.
    """

    projections: list[list[float]] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)


@overload
def monitoring(
    bridge: Any, monitored: Mapping[str, Any], layer: int | None = None
) -> contextlib.AbstractContextManager[dict[str, Recording]]: ...


@overload
def monitoring(
    bridge: Any, monitored: Any, layer: int | None = None
) -> contextlib.AbstractContextManager[Recording]: ...


@contextlib.contextmanager  # type: ignore[misc]
def monitoring(
    bridge: Any, monitored: Any, layer: int | None = None
) -> Iterator[Recording | dict[str, Recording]]:
    """Records a score for each token that `bridge` decodes while the block is open.

    monitored: as `score_tokens` takes it; of several by their names, such as a set of traits, there
        is one recording by each name, of the same passes.
    Reads the last position of every forward pass, so a batch must be padded on the left; the model
    is not changed. Every row of the batch has an entry until the whole batch ends: cut off what
    comes after a row's own end.
    Raises: ModelError for a layer the model does not have, or where nothing was run;
    SpaceMismatchError for another width; DataError as `reader_of`.

    Examples:
        >>> import torch
        >>> from persona import load_pair
        >>> from persona.directions import Direction
        >>> from probes import monitoring
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> direction = Direction(torch.ones(pair.d_model), pair.space(2), "made up")
        >>> with pair.active("finetuned") as model, monitoring(model, direction) as recording:
        ...     _ = model.generate(torch.tensor([[0, 7, 8]]), max_new_tokens=5, eos_token_id=-1,
        ...                        verbose=False)
        >>> len(recording.scores)  # one list a decoded token, one score a row of the batch
        5
    """
    readers = _readers(monitored, layer)
    recordings = {name: Recording() for name in readers}

    def recorder(layer: int) -> Any:
        def record(resid_BPD: Tensor) -> None:
            for name, reader in readers.items():
                if reader.layer == layer:
                    projection, score = reader.read(resid_BPD[:, -1])
                    recordings[name].projections.append(projection.tolist())
                    recordings[name].scores.append(score.tolist())

        return record

    layers = sorted({reader.layer for reader in readers.values()})
    with hooked(bridge, [(resid_post(one), recorder(one)) for one in layers]):
        yield recordings if isinstance(monitored, Mapping) else recordings[""]
    for name, reader in readers.items():
        if not recordings[name].scores:
            raise ModelError(
                f"nothing was recorded at {resid_post(reader.layer)}: the model was not run while "
                "monitoring"
            )
