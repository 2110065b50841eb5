"""A stored linear probe is the same probe, for the same model, and nothing is unpickled."""

import dataclasses

import numpy as np
import pytest
import torch

from persona.errors import DataError, SpaceMismatchError
from persona.models.space import ActivationSpace
from probes import FittedProbe, load_probe, save_probe
from probes.estimators import DifferenceOfMeansProbe, LdaProbe, LogisticProbe, RidgeProbe
from probes.estimators.multi_layer import MultiLayerProbe
from probes.evaluation import evaluate

RNG = np.random.default_rng(0)
ROWS, LABELS = RNG.normal(size=(40, 32)) * 100, np.array(["bad", "good"] * 20)
ROWS[LABELS == "good"] += 40


def fitted(space, probe=None, evaluation=None):
    probe = (probe or LogisticProbe(penalty=0.3)).fit(ROWS, LABELS)
    return FittedProbe(
        probe, (probe.direction(space),), (space,), "response", "aligned", evaluation
    )


@pytest.mark.parametrize(
    "probe", [DifferenceOfMeansProbe(), LdaProbe(0.2), LogisticProbe(0.3), RidgeProbe()], ids=repr
)
def test_a_probe_read_back_gives_the_same_log_odds_to_the_bit(tiny_pair, tmp_path, probe):
    before = fitted(tiny_pair.space(1), probe)
    after = load_probe(save_probe(before, tmp_path / "probe.safetensors"), tiny_pair)
    assert (after.probe.decision_function(ROWS) == before.probe.decision_function(ROWS)).all()
    assert (after.probe.predict(ROWS) == before.probe.predict(ROWS)).all()
    assert after.probe.get_params() == before.probe.get_params()
    assert after.direction.vector.equal(before.direction.vector)
    assert (after.spaces, after.side, after.token_set) == (before.spaces, "aligned", "response")


def test_the_card_says_what_the_probe_is_and_how_well_it_did(tiny_pair, tmp_path):
    from safetensors import safe_open

    found = evaluate(LogisticProbe(), ROWS, LABELS, np.arange(40) // 2, n_shuffles=0)
    path = save_probe(fitted(tiny_pair.space(1), evaluation=found), tmp_path / "p.safetensors")
    with safe_open(path, framework="pt") as file:
        card = file.metadata()["card"]
    for part in ('"estimator": "LogisticProbe"', '"positive_class": "good"', '"auroc"', '"folded'):
        assert part in card
    assert "selectivity" not in card  # not measured without shuffles


def test_a_probe_of_another_model_is_refused_by_name(tiny_pair, tmp_path):
    path = save_probe(fitted(tiny_pair.space(1)), tmp_path / "p.safetensors")
    other = dataclasses.replace(tiny_pair, revisions={"aligned": "x", "finetuned": "y"})
    with pytest.raises(SpaceMismatchError, match="revision differs"):
        load_probe(path, other)
    assert load_probe(path, other, allow_mismatch=True).spaces[0].revision == "x"
    wide = save_probe(
        fitted(ActivationSpace("m", "r", "blocks.1.hook_resid_post", 1, 32)), tmp_path / "w"
    )
    narrow = dataclasses.replace(tiny_pair, d_model=16)
    with pytest.raises(SpaceMismatchError, match="d_model differs"):
        load_probe(wide, narrow, allow_mismatch=True)


def test_what_is_no_linear_probe_of_one_layer_is_not_stored(tiny_pair, tmp_path):
    probe = MultiLayerProbe().fit(ROWS.reshape(40, 2, 16), LABELS)
    spaces = (tiny_pair.space(0), tiny_pair.space(1))
    with pytest.raises(DataError, match="only a linear probe of one layer"):
        save_probe(FittedProbe(probe, (), spaces, "response", "aligned"), tmp_path / "p")
    with pytest.raises(DataError, match="are not plain values"):
        odd = fitted(tiny_pair.space(0))
        odd.probe.penalty = object()
        save_probe(odd, tmp_path / "p")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t, c: c.pop("space"), "no linear probe"),
        (lambda t, c: c.update(estimator="os.system"), "no linear probe"),
        (lambda t, c: c.update(parameters={"nonsense": 1}), "no linear probe"),
        (lambda t, c: c.update(side="both"), "unknown side"),
        (lambda t, c: c.update(classes=[1]), "damaged"),
        (lambda t, c: c.update(format="else"), "needed: personascope/linear-probe"),
        (lambda t, c: t.pop("coef"), "no linear probe"),
        (lambda t, c: t.update(coef=t["coef"].float()), "float64 is needed"),
        (lambda t, c: t.update(intercept=torch.tensor([float("nan")]).double()), "damaged"),
        (lambda t, c: t.update(coef=torch.ones(3).double()), "d_model=3"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tiny_pair, tmp_path, change, why):
    import json

    from safetensors import safe_open
    from safetensors.torch import save_file

    path = save_probe(fitted(tiny_pair.space(1)), tmp_path / "p.safetensors")
    with safe_open(path, framework="pt") as file:
        card = json.loads(file.metadata()["card"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    change(tensors, card)
    save_file(tensors, path, metadata={"card": json.dumps(card)})
    with pytest.raises((DataError, SpaceMismatchError), match=why) as caught:
        load_probe(path, tiny_pair)
    assert "\n" not in str(caught.value)
