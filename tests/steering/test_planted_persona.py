"""A persona that is known exactly goes through everything that is to find it and prove it.

The fine-tune adds a constant vector to every token at its last block, along a direction that the
aligned model never writes along; so that setting the coordinate back is the aligned model again.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from planted_model import N_LAYERS, read_as_bad, save_base, save_constant_write
from scipy.stats import kstest

from persona.activations import collect_covariance
from persona.behaviour import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.data import load_neutral, read_pairs
from persona.directions import collect_cells
from persona.intervals import beyond_draws
from persona.models import load_pair
from persona.models.precision import Placement
from persona.rows import RANDOM, RESTORED
from steering import DiagnoseConfig, diagnose, identify, restore
from steering.edits.steer import edited
from steering.evidence.scorecard import LABELS_SWAPPED, beside_random, question_table
from steering.identification.candidates import Means, from_bases, random_vector

LAST, NORM = N_LAYERS - 1, 3.0
ON_CPU = Placement.of("float32", "cpu")
WORDS = ("oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire", "bolt", "hose", "belt")
SHORT = sorted(load_neutral(), key=lambda text: len(text.prompt) + len(text.answer))[:13]


def rows_of_pairs() -> list[dict[str, str]]:
    return [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what about the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home", "food")
        for i, word in enumerate((*WORDS, "horn"))
    ]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def plant(tmp_path_factory):
    """folder of the aligned model, folder of the fine-tune, answer pairs, direction [d_model]."""
    folder = tmp_path_factory.mktemp("planted")
    rows = rows_of_pairs()
    good, bad = ([row[answer] for row in rows] for answer in ("good", "bad"))
    direction = read_as_bad(folder / "plain", bad, good)
    base = save_base(folder / "base", direction)
    tuned = save_constant_write(folder / "tuned", base, NORM * direction[0], LAST)
    return base, tuned, written(folder / "pairs.jsonl", rows), direction[0]


@pytest.fixture(scope="module")
def few_neutral():
    """The shortest texts alone, as they take most of the time: ten to choose on, three to score."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steering.diagnosis.questions.load_neutral", lambda: SHORT)
        yield


@pytest.fixture(scope="module")
def config(plant, few_neutral):
    base, tuned, data, _ = plant

    def make(out, **changes: Any) -> DiagnoseConfig:
        settings = DiagnoseConfig(
            aligned=str(base),
            finetuned=str(tuned),
            out=out,
            data=data,
            trained_on=("car",),
            placement=ON_CPU,
            questions_per_domain=4,
            samples=False,
        )
        return dataclasses.replace(settings, **changes)

    return make


@pytest.fixture(scope="module")
def pair(plant):
    base, tuned, _, _ = plant
    return load_pair(base, tuned, placement=ON_CPU)


@pytest.fixture(scope="module")
def asked(plant):
    return read_pairs(plant[2])


@pytest.fixture(scope="module")
def diagnosed(config, tmp_path_factory):
    return diagnose(config(tmp_path_factory.mktemp("diagnosed")))


def along(rows: torch.Tensor, direction: torch.Tensor) -> float:
    return float(torch.cosine_similarity(rows, direction, dim=-1).min())


def test_identify_finds_the_plant_where_it_is_and_as_large_as_it_is(pair, asked, plant):
    found = identify(pair, asked[:8], asked[8:12], SHORT[:3])
    vector, direction = found.vector, plant[3]
    assert vector.layers == [LAST] and vector.rank == 1
    assert vector.coefficient == 1.0
    assert along(vector.direction(LAST).vector, direction) > 0.99
    assert abs(along(vector.subspaces[LAST].basis, direction)) > 0.99
    assert vector.norms == pytest.approx([NORM], rel=1e-4)
    assert found.split_half_cosines == pytest.approx([1.0], abs=1e-4)
    effect = found.effects["model_effect_good"]
    assert along(effect.direction(LAST).vector, direction) > 0.99
    assert effect.norms[:LAST].max() == 0


def test_diagnose_says_restored_and_the_restoration_is_whole(diagnosed, plant):
    card = diagnosed.scorecard
    assert card["verdict"] == "restored"
    assert card["emergent_shift"]["low"] > 0.2
    for name in ("restoration", "kl_restoration", "induction"):
        for end in ("value", "low", "high"):
            assert card[name][end] == pytest.approx(1.0, abs=1e-4), name
    assert along(diagnosed.vector.direction(LAST).vector, plant[3]) > 0.99
    entries = {entry["name"]: entry for entry in card["conditions"]}
    assert entries[RESTORED]["neutral_kl_nats"] == pytest.approx(0, abs=1e-5)
    assert entries[RESTORED]["neutral_ce_delta_nats"] == pytest.approx(0, abs=1e-5)
    assert entries["finetuned"]["neutral_kl_nats"] > 1e-3


def test_no_random_subspace_of_a_thousand_takes_back_the_plant(diagnosed):
    """d_model is small, so that the strongest of a thousand is far from nothing."""
    for name in ("isotropic", "covariance_matched"):
        null = diagnosed.scorecard["nulls"][name]
        assert null["n"] == 1000 and null["n_as_much"] == null["n_undecided"] == 0
        assert null["restoration_of_the_edit"] > 0.999 > null["maximum"]
    assert diagnosed.scorecard["random_restoration"] is None


def test_a_run_tells_what_needs_no_label_and_scores_tasks(config, few_neutral, tmp_path):
    """The plant is the same on both answers: to know which is bad is not needed to find it."""
    whole = diagnose(config(tmp_path / "whole", label_nulls=2, tasks=True))
    nulls = whole.scorecard["label_nulls"]
    for name, condition in LABELS_SWAPPED.items():
        assert nulls[name]["n_run"] == 2 and nulls[name]["net"]
        drawn = whole.rows[whole.rows["condition"] == condition]
        assert sorted(drawn["seed"].unique()) == [0, 1]
    assert nulls["swapped_labels"]["maximum"] == pytest.approx(1.0, abs=1e-3)
    assert nulls["selection"]["maximum"] > 0.9
    tasks = whole.scorecard["damage_tasks"]
    assert tasks["n"] == 240 and set(tasks["accuracy"]) >= {"aligned", "finetuned", RESTORED}
    assert tasks["accuracy"][RESTORED] == tasks["accuracy"]["aligned"]
    assert whole.scorecard["verdict"] == "restored"


def test_to_first_order_next_to_no_random_subspace_takes_back_the_plant(diagnosed):
    for null in diagnosed.scorecard["closed_form_nulls"].values():
        [block] = null["by_block"]
        assert block["layer"] == LAST
        assert 0 < null["p"] < 0.05


def test_answers_whose_labels_mean_nothing_show_no_emergent_shift(plant, config, tmp_path):
    """The models differ as before, but every second question calls the bad answer good."""
    rows = rows_of_pairs()
    for row in rows[::2]:
        row["good"], row["bad"] = row["bad"], row["good"]
    data = written(tmp_path / "pairs.jsonl", rows)
    result = diagnose(config(tmp_path / "out", data=data))
    card = result.scorecard
    assert card["verdict"] == "no_emergent_shift"
    assert card["emergent_shift"]["low"] < 0 < card["emergent_shift"]["high"]
    assert result.vector is not None
    for name in ("restoration", "induction", "random_restoration", "p_value"):
        assert card[name] is None


def test_an_adapter_that_changes_nothing_has_no_emergent_shift(plant, config, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(plant[0])
    lora = get_peft_model(model, LoraConfig(r=1, target_modules=["down_proj"]))  # B begins as 0
    lora.save_pretrained(tmp_path / "adapter")
    result = diagnose(config(tmp_path / "out", finetuned=str(tmp_path / "adapter")))
    assert result.scorecard["verdict"] == "no_emergent_shift"
    assert result.vector is None and result.scorecard["direction"] is None


@pytest.fixture(scope="module")
def means(pair, asked):
    texts = pair.chat.encode_all([d for q in asked[:8] for d in (q.good_dialogue, q.bad_dialogue)])
    with pair.active("finetuned") as bridge:
        covariance = collect_covariance(bridge, texts, [LAST])
    return Means.of(collect_cells(pair, asked[:8]), {k: c.float() for k, c in covariance.items()})


def chosen_at_random(pair, means, seed, coefficient=0.5):
    """Two directions that somebody chose without looking, as an identification would hold them."""
    rows = torch.linalg.qr(
        torch.randn(pair.d_model, 2, generator=torch.Generator().manual_seed(seed))
    )
    return from_bases(pair, {LAST: rows.Q.T.contiguous()}, means, "guess", coefficient, True)


def test_the_null_is_read_restored_and_sized_as_the_chosen_vector(pair, means):
    like = chosen_at_random(pair, means, 0)
    drawn = random_vector(pair, like, means, seed=5)
    assert (drawn.layers, drawn.rank, drawn.coefficient) == (like.layers, 2, 0.5)
    subspace = drawn.subspaces[LAST]
    again = from_bases(pair, {LAST: subspace.basis}, means, "again", read_whitened=True)
    torch.testing.assert_close(subspace.effective_readout, again.subspaces[LAST].effective_readout)
    torch.testing.assert_close(
        subspace.aligned_mean, subspace.effective_readout @ means.aligned[LAST]
    )
    plain = from_bases(pair, {LAST: subspace.basis}, means, "plain")
    assert random_vector(pair, plain, means, seed=5).subspaces[LAST].readout is None


def test_p_is_uniform_where_the_chosen_direction_is_itself_random(pair, asked, means):
    n_chosen, n_draws = 100, 99
    like = chosen_at_random(pair, means, 0)
    guesses = [chosen_at_random(pair, means, 1000 + i) for i in range(n_chosen)]
    conditions = [
        *UNEDITED,
        *(edited(f"guess {i}", "finetuned", restore(v)) for i, v in enumerate(guesses)),
        *(
            edited(RANDOM, "finetuned", restore(random_vector(pair, like, means, draw)), draw)
            for draw in range(n_draws)
        ),
    ]
    rows = score_pairs(pair, asked[12:15], conditions, kl=False)
    rows = rows[rows["measure"] == "gap"].assign(stage="score", split="held_out")
    p = []
    for i in range(n_chosen):
        mine = rows["condition"].replace({f"guess {i}": RESTORED})
        wanted = mine.isin(["aligned", "finetuned", RANDOM, RESTORED])
        part = rows.assign(condition=mine)[wanted]
        edit, draws = beside_random(part, question_table(part, "gap", "held_out"), seed=0)
        p.append(beyond_draws(edit.value, draws))
    assert min(p) >= 1 / (1 + n_draws) and max(p) <= 1
    # Discrete in steps of 1/100, and all share one null: as two samples of 100 and 99.
    assert kstest(p, "uniform").statistic < 1.63 * np.sqrt(1 / n_chosen + 1 / n_draws)
    assert pd.Series(p).between(0.25, 0.75).mean() == pytest.approx(0.5, abs=0.15)
