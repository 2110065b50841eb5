"""The edits of a request: what is written at which hooks, and to which tokens of its text.

This room knows no kind of edit. One is any object with a hook name and a function of activations;
`steering.edits.Edit` is such.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Bool, Int
from torch import Tensor

from persona.errors import SteeringError

Written = Callable[
    [Int[Tensor, "row token"], Int[Tensor, "row 1"], Int[Tensor, "row 1"]],
    Bool[Tensor, "row token"],
]
"""(places in the text, where its answer begins, how long its prompt is) -> which are written."""


@runtime_checkable
class CarriedEdit(Protocol):
    """An edit as the engine sees it.

    apply: activations [row token d_model] -> the same shape; rows: so many rows it must be given
    at once, None for any number.
    """

    @property
    def hook_name(self) -> str: ...
    @property
    def d_model(self) -> int: ...
    @property
    def label(self) -> str: ...
    @property
    def rows(self) -> int | None: ...
    @property
    def apply(self) -> Callable[[Tensor], Tensor]: ...


def after_the_first(index: Tensor, answer_begins: Tensor, n_prompt: Tensor) -> Tensor:
    """Every token but the first of a text, whose residual is a massive activation."""
    return index > 0


@dataclass(frozen=True)
class EditSet:
    """Edits that are applied together, in their order, to the tokens that `written` chooses.

    fitting: told how many blocks the model has, raises where the edits do not go together.
    """

    edits: tuple[CarriedEdit, ...]
    written: Written = after_the_first
    fitting: Callable[[int], None] | None = None

    @property
    def rows(self) -> int | None:
        """How many rows must be edited at once, where an edit has a coefficient for each."""
        counts = {edit.rows for edit in self.edits if edit.rows is not None}
        if len(counts) > 1:
            raise SteeringError(
                f"the edits have coefficients for different numbers of rows: {sorted(counts)}"
            )
        return counts.pop() if counts else None

    @classmethod
    def of(cls, intervene: Any) -> EditSet:
        """What the `intervene` of a condition does, which must say so in its `edits`.

        Its `written` chooses the tokens, and its `require_fitting` holds the edits against each
        other, where it has them.
        Raises: SteeringError for a function of a model alone: it cannot cross to a worker.
        """
        edits = getattr(intervene, "edits", None)
        if edits is None:
            raise SteeringError(
                f"vLLM takes edits that say what they write, such as steering.edits.steered_by("
                f"edits); got a {type(intervene).__name__}, which edits a model in this process"
            )
        if not len(edits):
            raise SteeringError("there is nothing to steer with: the list of edits is empty")
        return cls(
            tuple(edits),
            getattr(intervene, "written", after_the_first),
            getattr(intervene, "require_fitting", None),
        )


@dataclass(frozen=True)
class PlacedEdit:
    """One edit at one hook of the model, as it crosses to a worker."""

    hook_name: str
    label: str
    apply: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PlacedSet:
    """A set of edits as it crosses: those for every block (`*`) stand once for each."""

    edits: tuple[PlacedEdit, ...]
    written: Written
    rows: int | None


def require_rows(chosen: EditSet, rows: Sequence[int]) -> None:
    """Raises: SteeringError unless `rows` are all those that the edits have coefficients for."""
    if chosen.rows is not None and sorted(rows) != list(range(chosen.rows)):
        raise SteeringError(
            f"the edits have {chosen.rows} coefficients, one for each row, but the batch has "
            f"{len(rows)} rows"
        )


def placed(chosen: EditSet, sites: Collection[str], n_layers: int, d_model: int) -> PlacedSet:
    """The edits hook by hook.

    sites: hook names that the model has.
    Raises: SteeringError for another name, or another width.
    """
    if chosen.fitting is not None:
        chosen.fitting(n_layers)
    found = []
    for edit in chosen.edits:
        name = edit.hook_name
        names = [name.replace("*", str(layer)) for layer in range(n_layers)]
        for one in names if "*" in name else [name]:
            if one not in sites:
                raise SteeringError(
                    f"the model in vLLM has no hook {one!r} (it has {n_layers} blocks, the last "
                    f"is blocks.{n_layers - 1}.hook_resid_post)"
                )
            if edit.d_model != d_model:
                raise SteeringError(
                    f"the edit at {one} has d_model={edit.d_model} but the model has "
                    f"d_model={d_model}. Extract a direction from this model"
                )
            found.append(PlacedEdit(one, edit.label, edit.apply))
    return PlacedSet(tuple(found), chosen.written, chosen.rows)
