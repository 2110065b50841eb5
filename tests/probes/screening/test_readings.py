"""What a projection is compared with, and which block each reading is of."""

from __future__ import annotations

import numpy as np
import pytest
import screening_cases as cases

import probes
from persona.data.types import Dialogue, Turn
from persona.intervals import Estimate
from probes.estimators import LogisticProbe
from probes.screening.chance import RandomDirections
from probes.screening.compared_with import Encoded, read_answers_and_baselines
from probes.screening.reference import ScoreScale


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "shouting"
    return cases.shouting_pair(cases.save_shouting_model(folder))


def test_an_answer_on_the_line_of_ordinary_answers_differs_by_nothing():
    chance = Estimate(0.5, 0.4, 0.6, 3)
    scale = ScoreScale(1.0, 0.5, 0.0, 1.0, 1.0, chance, chance, 2.0, 2.0, 3, np.zeros(3))
    raw = np.array([-2.0, 0.0, 4.0])
    ordinary = 1.0 + 0.5 * raw
    assert scale.difference(ordinary, raw) == pytest.approx(0)
    assert scale.difference(ordinary + 3, raw) == pytest.approx(3)


def test_random_directions_hold_samples_against_their_own_line():
    """Answers on each direction's line are no shift and no flag; one beyond it is both."""
    units = np.eye(2)
    slope, intercept = np.array([0.5, -1.0]), np.array([1.0, 2.0])
    random = RandomDirections(units, intercept, slope, np.array([2.0, 4.0]), np.array([0.5, 0.5]))
    raw = np.array([[2.0, 3.0], [4.0, -1.0]])
    ordinary = intercept + slope * raw
    assert random.mean_shifts(np.stack([ordinary.mean(0), raw.mean(0)])) == pytest.approx(0)
    assert random.count_above(ordinary, raw).tolist() == [0, 0]
    beyond = ordinary + np.array([[1.0, 0.0], [1.0, 4.0]])
    shifts = random.mean_shifts(np.stack([beyond.mean(0), raw.mean(0)]))
    assert shifts == pytest.approx([0.5, 0.5])
    assert random.count_above(beyond, raw).tolist() == [2, 1]


def test_each_sample_is_held_against_the_own_answer_to_its_own_prompt(pair, monkeypatch):
    own = {"one": "so", "two": "so!!", "three": "so...."}
    monkeypatch.setattr(
        "probes.screening.compared_with.sample_answers",
        lambda bridge, chat, prompts, **_: [own[prompt.turns[-1].content] for prompt in prompts],
    )
    asked = ["two", "one", "two", "three"]
    samples = [Dialogue((Turn("user", each), Turn("assistant", "x"))) for each in asked]
    encoded = [Encoded(sample, pair.chat.encode(sample)) for sample in samples]
    with pair.active("aligned") as bridge:
        _, raw = read_answers_and_baselines(
            bridge, pair.chat, encoded, [cases.LAYER], "own", 8, 512
        )
    found = raw[:, 0] @ cases.planted_direction(pair).unit
    expected = [cases.answer_projection(own[each]) for each in asked]
    assert found.tolist() == pytest.approx(expected, abs=1e-5)


def test_a_probe_reads_its_own_block_beside_a_direction_at_another(pair):
    reference = cases.reference_pairs(120)
    texts = [d for p in reference for d in (p.good_dialogue, p.bad_dialogue)]
    fitted = probes.fit(
        pair,
        texts,
        [0, 1] * len(reference),
        [p.id for p in reference for _ in range(2)],
        layer=cases.LAYER,
        probe=LogisticProbe(),
        side="aligned",
        cache=False,
        scheme=None,
    )
    samples, _ = cases.samples(40)
    direction = cases.planted_direction(pair, layer=0)
    found = probes.screen(pair, samples, direction, probe=fitted, reference=reference, n_draws=20)
    assert (found.summary["direction"]["layer"], found.summary["probe"]["layer"]) == (
        0,
        cases.LAYER,
    )
    expected = fitted.scores(pair, samples, cache=False)
    assert found.table["probe_score"].to_numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)
