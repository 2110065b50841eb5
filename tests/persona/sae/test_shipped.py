"""The autoencoder that comes along: small, of the default pair, and as good as its card says."""

from __future__ import annotations

import pytest

from persona.data import load_neutral, load_pairs
from persona.models import load_pair
from persona.models.precision import Placement
from persona.sae import load_sae, measure_fidelity
from persona.sae.opening import SHIPPED
from persona.sae.texts import pair_texts

pytestmark = pytest.mark.real_model


def test_it_is_small_and_covers_both_models_as_its_card_says():
    pair = load_pair("default", "car_maintenance_bad", placement=Placement.of("float32", "cpu"))
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 12e6
    sae = load_sae("default", pair)
    questions = [
        load_pairs([domain])[-1] for domain in ("health", "car_maintenance", "food_safety")
    ]
    fidelity = measure_fidelity(pair, sae, pair_texts(pair.chat, questions, load_neutral()[:2]))
    for side in ("aligned", "finetuned"):
        stated = sae.card["fidelity"][side]
        assert stated["explained_variance"] > 0.8 and stated["ce_recovered"] > 0.95
        measured = fidelity.value(side, "explained_variance")
        assert abs(measured - stated["explained_variance"]) < 0.08
        assert fidelity.value(side, "ce_recovered") > 0.9
