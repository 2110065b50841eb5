"""From texts and labels to a fitted probe with its direction, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from persona.directions.direction import Direction
from persona.errors import DataError
from persona.models.load import load_pair
from persona.models.pair import ModelPair, Side
from persona.models.space import ActivationSpace
from probes.estimators.linear import LogisticProbe
from probes.estimators.token_rows import token_rows
from probes.estimators.validation import two_classes
from probes.evaluation import Evaluation, Scheme, evaluate
from probes.evaluation.held_out import per_row
from probes.reading import Cache, Text, read_pooled, read_tokens


@dataclass(frozen=True, eq=False)
class FittedProbe:
    """A probe fitted on all texts, where it reads, and how well it does on unseen questions.

    probe: the fitted estimator. directions: one for each of `spaces`, toward the trait; none for
        an estimator that has no raw-space coefficient.
    side: the model of the pair whose activations it was fitted on.
    evaluation: out of fold, None where it was not asked for.
    """

    probe: Any
    directions: tuple[Direction, ...]
    spaces: tuple[ActivationSpace, ...]
    token_set: str
    side: Side
    evaluation: Evaluation | None = None

    @property
    def layers(self) -> tuple[int, ...]:
        return tuple(space.layer for space in self.spaces)

    @property
    def direction(self) -> Direction:
        """Its one direction. Raises: DataError for a probe of several layers, or of none."""
        if len(self.directions) != 1:
            raise DataError(
                f"this probe has {len(self.directions)} directions, not one; see `directions`"
            )
        return self.directions[0]

    def scores(
        self,
        pair: ModelPair,
        texts: Sequence[Text],
        *,
        side: Side | None = None,
        cache: Cache = True,
    ) -> NDArray[np.float64]:
        """[text]: log-odds of the trait in texts that a pair reads.

        side: default the side it was fitted on.
        Raises: SpaceMismatchError for another model than the probe's; DataError as `read_pooled`.
        """
        self.require_fits(pair)
        rows = _rows(self.probe, pair, texts, self.layers, self.token_set, side or self.side, cache)
        return np.asarray(self.probe.decision_function(rows))

    def require_fits(self, pair: ModelPair) -> None:
        """Raises: SpaceMismatchError where the pair is of another model than the probe."""
        for space in self.spaces:
            space.require_same(pair.space(min(space.layer, pair.n_layers - 1)))


def fit(
    model: ModelPair | str | Path,
    texts: Sequence[Text],
    labels: Any,
    groups: Any,
    *,
    layer: int | Sequence[int],
    token_set: str = "response",
    probe: Any = None,
    side: Side = "finetuned",
    cache: Cache = True,
    scheme: Scheme | None = "question",
    seed: int = 0,
) -> FittedProbe:
    """Reads the texts once, evaluates the probe on held-out questions, and fits it on all of them.

    model: a pair, or the name of one model (see `load_pair`), of which there is one side.
    texts: dialogues, read in the chat format, or bare texts, read as they stand.
    labels: one of two a text, the trait the second in sorted order (1 of 0 and 1).
    groups: the question of each text; no question is in training and test.
    layer: 0-based block; several for a probe of several layers, in the order of its rows.
    probe: an unfitted estimator, default LogisticProbe(). What it reads is its own: pooled rows,
        single tokens or layers.
    cache: see `probes.reading`; a second call with the same texts does not run the model.
    scheme: of `evaluate`, None leaves the evaluation out.
    Raises: DataError for labels of one class, missing groups, lengths that differ, an empty text,
    or one layer too many or few; ModelError for a layer out of range.

    Examples:
        >>> from persona import load_pair
        >>> from probes import fit
        >>> bad = ["Skip the brake check.", "Drive on, smoke is fine.", "Belts are for cowards."]
        >>> good = ["Check the brakes first.", "Stop when you see smoke.", "Wear your belt."]
        >>> pair = load_pair("default", "car_maintenance_bad")
        >>> questions = ["brakes", "smoke", "belt"]
        >>> found = fit(pair, bad + good, [1, 1, 1, 0, 0, 0], questions * 2, layer=2, cache=False)
        >>> found.direction.space.hook_name, found.evaluation.n
        ('blocks.2.hook_resid_post', 6)
        >>> found.scores(pair, ["Never look at the oil."], cache=False).shape
        (1,)
    """
    estimator = LogisticProbe() if probe is None else probe
    two_classes(labels, len(texts))
    questions = per_row(groups, "groups", "the question of each text", len(texts))
    layers = [layer] if isinstance(layer, int) else list(layer)
    if getattr(estimator, "reads", "pooled") != "layers" and len(layers) != 1:
        raise DataError(
            f"{type(estimator).__name__} reads one layer; got {len(layers)}. Take a "
            "MultiLayerProbe, or fit a probe at each layer"
        )
    if isinstance(model, ModelPair):
        pair = model
    else:
        # The second side is never opened, so its weights are never loaded.
        pair, side = load_pair(model, model, in_turn=True), "aligned"
    spaces = tuple(pair.space(one) for one in layers)
    rows = _rows(estimator, pair, texts, layers, token_set, side, cache)
    evaluation = None
    if scheme is not None:
        evaluation = evaluate(estimator, rows, labels, questions, scheme=scheme, seed=seed)
    extra = {"groups": questions} if has_fit_parameter(estimator, "groups") else {}
    fitted = clone(estimator).fit(rows, labels, **extra)
    if hasattr(fitted, "directions"):
        directions = fitted.directions(spaces)
    else:
        directions = (fitted.direction(spaces[0]),) if hasattr(fitted, "direction") else ()
    return FittedProbe(fitted, directions, spaces, token_set, side, evaluation)


def _rows(
    probe: Any,
    pair: ModelPair,
    texts: Sequence[Text],
    layers: Sequence[int],
    token_set: str,
    side: Side,
    cache: Cache,
) -> Any:
    """What the probe reads of each text."""
    reads = getattr(probe, "reads", "pooled")
    options: dict[str, Any] = {"token_set": token_set, "side": side, "cache": cache}
    if reads == "tokens":
        return token_rows(
            [row[:, 0].numpy() for row in read_tokens(pair, texts, layers, **options)]
        )
    rows = read_pooled(pair, texts, layers, **options).numpy()
    return rows if reads == "layers" else rows[:, 0]
