"""`steer`: interventions at the hooks of a model, for as long as a `with` block lasts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from persona.behaviour.scoring import Condition
from persona.errors import SteeringError
from persona.models.hooks import (
    Hook,
    hf_model,
    hook_points,
    hooked,
    is_compiled,
    model_width,
    n_layers,
)
from persona.models.pair import ModelPair, Side
from persona.models.space import ActivationSpace
from steering.edits.edit import Edit, require_no_conflict, require_one_model
from steering.edits.places import hook_names, layer_of
from steering.edits.position_tracker import PositionTracker
from steering.edits.token_choice import Positions, TokenChoice


@dataclass
class Steering:
    """What happened while steering.

    edits: in their order; one that was made for every block stands here once for each.
    passes, n_tokens: how often each edit fired, and how many tokens it wrote in all.
    written: how many tokens every pass of the model wrote, by each edit that fired.
    """

    edits: list[Edit]
    passes: list[int]
    n_tokens: list[int]
    written: list[int] = field(default_factory=list)


@contextlib.contextmanager
def steer(
    model: Any,
    edits: Edit | Sequence[Edit],
    *,
    positions: Positions = "all",
    response_start: Sequence[int] | None = None,
    first_token: bool = False,
    space: ActivationSpace | None = None,
) -> Iterator[Steering]:
    """Apply one edit or several, in order, to every forward pass of `model` inside the block.

    model: a TransformerBridge, or a plain Hugging Face causal LM; the meaning is the same.
    Works under forward, cached and uncached generation, left or right padding, for every row;
    pad tokens are never written. See `PositionTracker` for `positions`, `response_start` and
    `first_token`. space: a space of this model (`pair.space(0)`), against which edits that know
    their own are checked; without it their width alone is.
    Raises: SteeringError before any pass for an unknown hook, a wrong width, two models or two
    edits that undo each other; in a pass of which it cannot be known where it stands in its text,
    or that leaves an edit out; and at the end when an edit never fired or never met a token to
    write. Hooks are removed on any exit.

    Examples:
        >>> import torch
        >>> from persona import load_pair
        >>> from persona.directions import Direction
        >>> from steering import add, steer
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> direction = Direction(torch.ones(pair.d_model), pair.space(2), "made up")
        >>> with pair.active("finetuned") as model:
        ...     with steer(model, add(direction)) as steering:
        ...         _ = model(torch.tensor([[0, 7, 8, 9]]), return_type=None)
        >>> steering.passes, steering.n_tokens  # the first token is left alone
        ([1], [3])
    """
    if isinstance(model, ModelPair):
        raise SteeringError(
            "one side of a pair is steered at a time: open it, with pair.active('finetuned') as "
            "model: with steer(model, edits): ..., or pair.ask(question, 'finetuned', "
            "intervene=edits)"
        )
    edits = _placed([edits] if isinstance(edits, Edit) else edits, n_layers(model))
    _check(model, edits, space)
    tracker = PositionTracker(positions, response_start, first_token, _rows_of(edits))
    record = Steering(edits, [0] * len(edits), [0] * len(edits))

    last_fired = [0] * len(edits)

    def after_pass() -> None:
        """Not one edit may have been left out of a pass that its positions ask for."""
        for edit, fired in zip(edits, last_fired, strict=True):
            if tracker.n_tokens and fired != tracker.n_passes:
                raise SteeringError(
                    f"the edit '{edit.label}' at {edit.hook_name} did not fire in pass "
                    f"{tracker.n_passes}, which has {tracker.n_tokens} tokens to write"
                )
        record.written.append(tracker.n_tokens)

    def hook_for(place: int) -> Hook:
        edit = edits[place]

        def hook(resid: Tensor) -> Tensor:
            mask = tracker.mask
            if mask is None or mask.shape != resid.shape[:2]:
                raise SteeringError(
                    f"{edit.hook_name} fired outside a pass of the model, or with shape "
                    f"{tuple(resid.shape)}; positions are not known there"
                )
            record.passes[place] += 1
            record.n_tokens[place] += tracker.n_tokens
            last_fired[place] = tracker.n_passes
            if tracker.n_tokens == mask.numel():
                return edit.apply(resid)  # as good as every decoding step
            if tracker.n_tokens == 0:
                return resid
            return torch.where(mask[..., None], edit.apply(resid), resid)

        return hook

    hooks = [(edit.hook_name, hook_for(place)) for place, edit in enumerate(edits)]
    with tracker.watching(hf_model(model), after_pass), hooked(model, hooks):
        yield record
    for edit, passes, tokens in zip(edits, record.passes, record.n_tokens, strict=True):
        if passes == 0 or tokens == 0:
            what = "never fired" if passes == 0 else "fired but met no token to write"
            raise SteeringError(
                f"the edit '{edit.label}' at {edit.hook_name} {what}: nothing was steered there. "
                "Run the model inside the with block, and check positions"
            )


class Edits(list[Edit]):
    """Edits in their order, as `add`, `ablate`, `restore` and `induce` make them.

    Called with a model, they steer it: they are an `intervene` themselves, for `pair.ask(question,
    "finetuned", intervene=restore(vector))`. Put together with `+` they stay so.
    """

    def __call__(self, model: Any) -> contextlib.AbstractContextManager[Any]:
        return steer(model, self)

    def __add__(self, others: Sequence[Edit]) -> Edits:  # type: ignore[override]
        return Edits([*self, *others])

    @property
    def edits(self) -> Sequence[Edit]:
        """As those of `SteeredBy`: what an engine that runs the model elsewhere is given."""
        return self

    def require_fitting(self, n_layers: int) -> None:
        """As that of `SteeredBy`."""
        SteeredBy(self).require_fitting(n_layers)

    @property
    def token_by_token(self) -> bool:
        """As that of `SteeredBy`."""
        return SteeredBy(self).token_by_token


@dataclass(frozen=True)
class SteeredBy:
    """The edits as the `intervene` of a condition, at the tokens of `positions`: default all.

    The first token of the text is left alone.
    """

    edits: Sequence[Edit]
    positions: Positions = "all"

    def __call__(self, bridge: Any) -> contextlib.AbstractContextManager[Any]:
        return steer(bridge, self.edits, positions=self.positions)

    @property
    def written(self) -> TokenChoice:
        """Which tokens are written, for an engine that runs the model elsewhere."""
        return TokenChoice(self.positions)

    def require_fitting(self, n_layers: int) -> None:
        """Raises: SteeringError for two edits that undo each other, or are of two models."""
        require_one_model(self.edits, None)
        require_no_conflict(_placed(self.edits, n_layers))

    @property
    def token_by_token(self) -> bool:
        """Whether rows may be put together otherwise: no edit has a coefficient for each row, and
        all tokens are written."""
        return self.positions == "all" and all(edit.rows is None for edit in self.edits)


def edited(
    name: str,
    side: Side,
    edits: Sequence[Edit],
    seed: int = 0,
    facts: Mapping[str, str | float | None] | None = None,
) -> Condition:
    """One side of the pair under edits, as a condition to score; blocks below them are shared."""
    first = min((edit.layer for edit in edits), default=0)
    return Condition(name, side, SteeredBy(edits), first, seed, facts or {})


def steered_by(edits: Sequence[Edit]) -> SteeredBy:
    """The edits as the `intervene` of a condition: bridge -> context manager that steers it."""
    return SteeredBy(edits)


def _placed(edits: Sequence[Edit], n_blocks: int) -> list[Edit]:
    """The edits, those for every block (`*`) at each block of a model."""
    if not any("*" in edit.hook_name for edit in edits):
        return list(edits)
    layers = range(n_blocks)
    return [
        replace(edit, hook_name=name, layer=layer_of(name))
        for edit in edits
        for name in hook_names(edit.hook_name, layers)
    ]


def _check(model: Any, edits: Sequence[Edit], space: ActivationSpace | None) -> None:
    if not edits:
        raise SteeringError("there is nothing to steer with: the list of edits is empty")
    if is_compiled(hf_model(model)):
        raise SteeringError(
            "the model is compiled (torch.compile): what was compiled before runs without hooks, "
            "and what is compiled now would keep them. Steer the model that is not compiled"
        )
    known, width = hook_points(model), model_width(model)
    for edit in edits:
        if edit.hook_name not in known:
            raise SteeringError(
                f"the model has no hook {edit.hook_name!r} (it has {n_layers(model)} blocks, "
                f"the last is blocks.{n_layers(model) - 1}.hook_resid_post)"
            )
        if edit.d_model != width:
            raise SteeringError(
                f"the edit at {edit.hook_name} has d_model={edit.d_model} but the model has "
                f"d_model={width}. Extract a direction from this model"
            )
    require_one_model(edits, space)
    require_no_conflict(edits)


def _rows_of(edits: Sequence[Edit]) -> int | None:
    """How many rows the batch must have, where edits have a coefficient for each row."""
    counts = {edit.rows for edit in edits if edit.rows is not None}
    if len(counts) > 1:
        raise SteeringError(
            f"the edits have coefficients for different numbers of rows: {sorted(counts)}"
        )
    return counts.pop() if counts else None
