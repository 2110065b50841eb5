"""The screen of latents predicts what real edits do, and its candidates enter identification."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from saelens_folder import LAYER, write_sae

from persona.behaviour import Condition, score_pairs
from persona.data.types import AnswerPair, NeutralText
from persona.errors import DataError, SpaceMismatchError
from persona.models.precision import Placement
from persona.sae import load_sae
from steering import DiagnoseConfig, diagnose
from steering.edits.edit import Edit
from steering.edits.steer import steer
from steering.identification.identify import identify
from steering.identification.latent_screen import (
    CANDIDATE,
    first_order_latents,
    latent_rows,
    promising,
    screen_table,
    verify_latents,
)


@pytest.fixture(scope="module")
def sae(tiny_pair, tmp_path_factory):
    return load_sae(write_sae(tmp_path_factory.mktemp("sae"), tiny_pair.space(LAYER)), tiny_pair)


@pytest.fixture(scope="module")
def questions():
    words = ["oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire"]
    return [AnswerPair(w, "d", f"what of the {w}", f"mend the {w}", f"burn {w}") for w in words]


@pytest.fixture(scope="module")
def neutral():
    return [NeutralText(f"n{i}", f"count to {i}", "one two three", "arithmetic") for i in range(3)]


def slope(pair, sae, questions, side, change, size=1e-3):
    """Change of the mean gap per unit of a small step in `change(resid)`."""

    def condition(sign):
        edit = Edit(
            sae.space.hook_name,
            sae.layer,
            sae.space.d_model,
            lambda resid: resid + sign * size * change(resid),
            "small",
        )
        return Condition(str(sign), side, lambda bridge: steer(bridge, [edit]), sae.layer)

    rows = score_pairs(pair, questions, [condition(1), condition(-1)], kl=False)
    gaps = rows[rows["measure"] == "gap"].groupby("condition")["value"].mean()
    return (gaps["1"] - gaps["-1"]) / (2 * size)


@pytest.mark.parametrize("side", ["aligned", "finetuned"])
def test_the_prediction_is_the_derivative_of_the_edit(tiny_pair, sae, questions, side):
    found = first_order_latents(tiny_pair, sae, questions, side, token_budget=128)
    chosen = found.ablated.abs().argsort(descending=True)[:3].tolist()
    for latent in chosen:
        row = sae.decoder[latent]
        ablate = slope(
            tiny_pair,
            sae,
            questions,
            side,
            lambda h: -sae.encode(h)[..., latent, None] * row,  # noqa: B023
        )
        assert ablate == pytest.approx(float(found.ablated[latent]), rel=0.05, abs=2e-3)
        add = slope(tiny_pair, sae, questions, side, lambda h: (row / row.norm()).expand_as(h))  # noqa: B023
        assert add == pytest.approx(float(found.added[latent]), rel=0.05, abs=2e-3)


def test_the_screen_puts_the_best_cure_first_and_leaves_silent_latents_out(
    tiny_pair, sae, questions, tmp_path
):
    threshold = torch.full((40,), 0.3)
    threshold[11] = 1e6
    silent = load_sae(
        write_sae(tmp_path, tiny_pair.space(LAYER), weights={"threshold": threshold}), tiny_pair
    )
    table = screen_table(tiny_pair, silent, questions)
    known = table["cure_predicted"].dropna()
    assert known.is_monotonic_increasing
    assert np.isnan(table.set_index("latent").loc[11, "cure_predicted"])
    chosen = promising(table, 5)
    by_latent = table.set_index("latent")
    assert chosen and 11 not in chosen
    assert (by_latent.loc[chosen, "cure_predicted"] < 0).all()
    assert (by_latent.loc[chosen, "induce_predicted"] > 0).all()


def test_a_latent_along_the_gradient_induces_and_cures_more_than_random_ones(
    tiny_pair, sae, questions, neutral, tmp_path
):
    from steering.identification.attribution import gradients

    total = torch.zeros(tiny_pair.d_model)
    for side in ("aligned", "finetuned"):
        for part in gradients(tiny_pair, questions, [LAYER], "gap", 256, side):
            total += part.grad[LAYER][part.writable].sum(0)
    decoder, bias = sae.decoder.clone(), torch.zeros(40)
    decoder[6] = total / total.norm()
    encoder = decoder.T.clone()
    encoder[:, 6], bias[6] = 0, 2.0  # fires equally everywhere, so that its step is known
    weights = {"W_dec": decoder, "W_enc": encoder.contiguous(), "b_enc": bias}
    planted = load_sae(write_sae(tmp_path, tiny_pair.space(LAYER), weights=weights), tiny_pair)
    table = screen_table(tiny_pair, planted, questions)
    assert int(table.sort_values("induce_predicted")["latent"].iloc[-1]) == 6
    found = verify_latents(
        tiny_pair, planted, table, [6], questions, neutral, n_random=19, token_budget=256
    ).iloc[0]
    assert found["cure_measured"] < 0 < found["induce_measured"]
    assert found["cure_p"] == found["induce_p"] == pytest.approx(1 / 20)
    assert found["kept"]
    assert np.isfinite([found["damage_cure_nats"], found["damage_induce_nats"]]).all()


def test_the_exact_edit_agrees_with_the_splice_that_keeps_the_error(
    tiny_pair, sae, questions, neutral
):
    from persona.sae import spliced

    def without(latents):
        changed = latents.clone()
        changed[..., 4] = 0
        return changed

    table = screen_table(tiny_pair, sae, questions)
    found = verify_latents(tiny_pair, sae, table, [4], questions, neutral, n_random=2).iloc[0]
    rows = score_pairs(
        tiny_pair,
        questions,
        [
            Condition("plain", "finetuned"),
            Condition("spliced", "finetuned", lambda b: spliced(b, sae, without), LAYER),
        ],
        kl=False,
    )
    gaps = rows[rows["measure"] == "gap"].groupby("condition")["value"].mean()
    assert found["cure_measured"] == pytest.approx(gaps["spliced"] - gaps["plain"], abs=1e-4)


def test_candidates_are_orthonormal_and_begin_with_the_best_latent(tiny_pair, sae, questions):
    found = latent_rows(tiny_pair, sae, questions, n=4)
    rows = found[CANDIDATE]
    best = promising(screen_table(tiny_pair, sae, questions), 4)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), rtol=0, atol=1e-5)
    assert float(rows[0] @ sae.decoder[best[0]]) == pytest.approx(1, abs=1e-5)


def test_latents_are_screened_and_verified_by_identify(tiny_pair, sae, questions, neutral):
    asked = []

    def handed_in(train):
        asked.append(len(train))
        return latent_rows(tiny_pair, sae, train, n=4)

    found = identify(
        tiny_pair, questions, questions[:4], neutral, handed_in=handed_in, token_budget=256
    )
    rows = found.rows[found.rows["candidate"] == CANDIDATE]
    assert set(rows["stage"]) >= {"screen", "verify"}
    assert set(rows.loc[rows["stage"] == "screen", "layer"]) == {0, 1, 2, 3}
    assert asked[0] == len(questions)


def test_diagnose_refuses_an_autoencoder_of_another_model_before_it_begins(
    tiny_pair, tiny_llama, tiny_adapter, tmp_path
):
    folder = write_sae(
        tmp_path / "sae", tiny_pair.space(LAYER), metadata={"model_revision": "other"}
    )
    config = DiagnoseConfig(
        str(tiny_adapter),
        tmp_path / "out",
        str(tiny_llama),
        trained_on=("health",),
        placement=Placement.of("float32", "cpu"),
        sae=str(folder),
    )
    with pytest.raises(SpaceMismatchError, match="trained on another model"):
        diagnose(config)
    assert not (tmp_path / "out").exists()


def test_bad_input_is_refused(tiny_pair, sae, questions, neutral):
    with pytest.raises(DataError, match="at least one question"):
        first_order_latents(tiny_pair, sae, [])
    elsewhere = dataclasses.replace(sae, space=dataclasses.replace(sae.space, revision="x"))
    with pytest.raises(SpaceMismatchError, match="revision differs"):
        first_order_latents(tiny_pair, elsewhere, questions)
    table = screen_table(tiny_pair, sae, questions)
    with pytest.raises(DataError, match="latent 99 is out of range"):
        verify_latents(tiny_pair, sae, table, [99], questions, neutral)
    with pytest.raises(DataError, match="nothing to compare to"):
        verify_latents(tiny_pair, sae, table[table["latent"] == 4], [4], questions, neutral)
