"""Fitted linear probes as safetensors with a JSON card; nothing is ever unpickled."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from persona.directions.storage import read_tensors_and_card, tool_version
from persona.errors import DataError, shown
from persona.files import atomic_write_bytes
from persona.models.pair import SIDES, ModelPair
from persona.models.space import ActivationSpace
from probes.estimators.linear import (
    DifferenceOfMeansProbe,
    LdaProbe,
    LinearProbe,
    LogisticProbe,
    RidgeProbe,
)
from probes.evaluation import Evaluation
from probes.fitting import FittedProbe

FORMAT = "personascope/linear-probe"
SCHEMA_VERSION = 1
KINDS: dict[str, type[LinearProbe]] = {
    kind.__name__: kind for kind in (DifferenceOfMeansProbe, LdaProbe, LogisticProbe, RidgeProbe)
}
_MEASURES = ("auroc", "average_precision", "tpr_at_1_fpr", "tpr_at_5_fpr", "ece", "selectivity")


def save_probe(fitted: FittedProbe, path: str | Path) -> Path:
    """Write a fitted linear probe of one layer; returns the path.

    Tensors, float64: "coef" and "mean_difference" [d_model] in raw space and "intercept" [1], so
    that a probe read back gives the same log-odds to the bit.
    Raises: DataError for a probe that is not linear over one layer's pooled rows, or whose
    parameters or labels have no place in JSON.
    """
    from safetensors.torch import save

    probe = fitted.probe
    name = type(probe).__name__
    if KINDS.get(name) is not type(probe) or len(fitted.spaces) != 1:
        raise DataError(
            f"only a linear probe of one layer can be stored ({', '.join(KINDS)}); this is a {name}"
        )
    tensors = {
        "coef": torch.from_numpy(np.array(probe.coef_, dtype=np.float64)),
        "mean_difference": torch.from_numpy(np.array(probe.mean_difference_, dtype=np.float64)),
        "intercept": torch.tensor([float(probe.intercept_)], dtype=torch.float64),
    }
    card = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "tool_version": tool_version(),
        "estimator": name,
        "parameters": probe.get_params(deep=False),
        "classes": probe.classes_.tolist(),
        "positive_class": probe.classes_.tolist()[1],
        "space": dataclasses.asdict(fitted.spaces[0]),
        "token_set": fitted.token_set,
        "side": fitted.side,
        "reading": "x . coef + intercept: log-odds of the positive class, x a raw activation",
        "standardisation": "folded into coef and intercept",
        "layer_convention": "0-based block; hook_resid_post is that block's output",
        "evaluation": None if fitted.evaluation is None else _measures(fitted.evaluation),
    }
    try:
        text = json.dumps(card, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"parameters or labels of this {name} are not plain values ({error})"
        ) from error
    atomic_write_bytes(path, save(tensors, metadata={"card": text}))
    return Path(path)


def load_probe(
    path: str | Path, pair: ModelPair | None = None, *, allow_mismatch: bool = False
) -> FittedProbe:
    """Read what `save_probe` wrote; the numbers of its evaluation stay in the file's card.

    pair: the models it is meant for. A probe of another model, revision, chat template or width is
    refused, and the difference named.
    allow_mismatch: take it all the same, as a probe of this pair; width and block must fit.
    Raises: DataError when the file is missing, damaged, or of another kind; SpaceMismatchError
    when it does not belong to the pair.
    """
    tensors, card = read_tensors_and_card(path, FORMAT, SCHEMA_VERSION, torch.float64)
    try:
        space = ActivationSpace(**card["space"])
        if card["side"] not in SIDES:
            raise ValueError(f"unknown side {shown(card['side'])}")
        probe = KINDS[card["estimator"]](**card["parameters"])
        probe.coef_ = tensors["coef"].numpy()
        probe.mean_difference_ = tensors["mean_difference"].numpy()
        (intercept,) = tensors["intercept"].tolist()
        probe.intercept_ = float(intercept)
        probe.classes_ = np.array(card["classes"])
        probe.n_features_in_ = len(probe.coef_)
        fitted = FittedProbe(
            probe, (probe.direction(space),), (space,), str(card["token_set"]), card["side"]
        )
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            f"{path} is a safetensors file but no linear probe ({type(error).__name__}: "
            f"{str(error)[:200]})"
        ) from error
    numbers = (probe.coef_, probe.mean_difference_, np.array(probe.intercept_))
    if probe.classes_.shape != (2,) or not all(np.isfinite(part).all() for part in numbers):
        raise DataError(f"{path} holds a linear probe that is damaged ({shown(card['classes'])})")
    return fitted if pair is None else _for_pair(fitted, pair, allow_mismatch)


def _for_pair(fitted: FittedProbe, pair: ModelPair, allow_mismatch: bool) -> FittedProbe:
    (theirs,) = fitted.spaces
    ours = pair.space(theirs.layer)
    if not allow_mismatch or theirs.d_model != ours.d_model:
        theirs.require_same(ours)
    directions = (dataclasses.replace(fitted.direction, space=ours),)
    return dataclasses.replace(fitted, spaces=(ours,), directions=directions)


def _measures(evaluation: Evaluation) -> dict[str, Any]:
    """The numbers of an evaluation; those that are not finite are left out, as JSON has none."""
    found: dict[str, Any] = {"scheme": evaluation.scheme, "n_rows": evaluation.n}
    for name in _MEASURES:
        facts = dataclasses.asdict(getattr(evaluation, name))
        if np.isfinite([facts["value"], facts["low"], facts["high"]]).all():
            found[name] = facts
    return found
