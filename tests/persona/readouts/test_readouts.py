"""Readouts: what is planted in a model's change is what is read."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from tiny_models import tiny_bridge

from persona import pair_of
from persona.data.types import AnswerPair, Dialogue, Turn
from persona.errors import DataError
from persona.models.hooks import hooked, resid_post
from persona.readouts import (
    JacobianLens,
    LogitLens,
    amplified_answers,
    answer_changes,
    changes_by_domain,
    fit_jacobian_lens,
    read_fine_tune,
    tokens_of_differences,
    tokens_of_direction,
    written_directions,
)
from persona.readouts.amplified import amplified
from persona.readouts.fine_tune_reading import _notes
from persona.readouts.jacobian import SKIPPED, jacobians
from persona.readouts.lens import token_directions
from persona.readouts.weight_change import written_map
from persona.stages import StageCache

N_WORDS, D = 200, 16


class Words:
    """A tokenizer that names tokens by their number."""

    def __len__(self) -> int:
        return N_WORDS

    def decode(self, ids: list[int]) -> str:
        return f"t{ids[0]}"


@pytest.fixture
def lens() -> LogitLens:
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(N_WORDS, D, generator=generator)
    return LogitLens(directions - directions.mean(0))


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_the_logit_lens_is_the_models_own_norm_and_head(family, tiny_chat):
    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    rows = torch.randn(3, 32, generator=torch.Generator().manual_seed(1))
    rows = torch.nn.functional.pad(rows, (0, bridge.cfg.d_model - 32))
    raised = LogitLens.of(bridge).logits(rows, 0)
    model = bridge.original_model
    from persona.models.sites import residual_readers

    norm, head = residual_readers(bridge)[-1], model.get_output_embeddings()
    with torch.no_grad():
        zero = torch.zeros_like(rows[None])
        own = (head(norm(1e4 * rows[None])) - head(norm(zero)))[0]
    own = own - own.mean(-1, keepdim=True)
    ratio = own / raised
    # Up to one positive factor a row: what the norm divides by.
    for row in ratio:
        inner = row[row.isfinite() & (row.abs() > 0)]
        assert inner.median() > 0
        assert torch.allclose(inner, inner.median().expand_as(inner), rtol=2e-2)


def test_a_lens_is_linear(tiny_pair):
    with tiny_pair.active("aligned") as model:
        lens = LogitLens.of(model)
    a, b = torch.randn(2, 1, tiny_pair.d_model, generator=torch.Generator().manual_seed(2))
    both = lens.logits(2 * a - 3 * b, 0)
    torch.testing.assert_close(both, 2 * lens.logits(a, 0) - 3 * lens.logits(b, 0))


def test_the_jacobian_is_what_a_small_step_does(tiny_pair):
    ids = list(range(5, 17))
    with tiny_pair.active("aligned") as model:
        found = jacobians(model, ids, [0, tiny_pair.n_layers - 1])
        last = resid_post(tiny_pair.n_layers - 1)
        torch.testing.assert_close(found[tiny_pair.n_layers - 1], torch.eye(tiny_pair.d_model))
        step = torch.randn(tiny_pair.d_model, generator=torch.Generator().manual_seed(3))
        step = step / step.norm()

        def end_after(place: int, size: float) -> torch.Tensor:
            kept: list[torch.Tensor] = []

            def push(resid: torch.Tensor) -> torch.Tensor:
                resid = resid.clone()
                resid[:, place] += size * step
                return resid

            hooks = [(resid_post(0), push), (last, lambda resid: kept.append(resid.clone()))]
            with torch.no_grad(), hooked(model, hooks):
                model(torch.tensor([ids]), return_type=None)
            return kept[0][0, SKIPPED:].sum(0)

        size = 1e-2
        slopes = [
            (end_after(place, size) - end_after(place, -size)) / (2 * size)
            for place in range(SKIPPED, len(ids))
        ]
    expected = torch.stack(slopes).mean(0)
    torch.testing.assert_close(found[0] @ step, expected, rtol=2e-2, atol=2e-3)


def test_a_fitted_lens_goes_on_where_it_was_stopped(tiny_pair, monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))
    texts = [
        Dialogue((Turn("user", "what of this"), Turn("assistant", f"all of {i}"))) for i in range(3)
    ]
    encoded = tiny_pair.chat.encode_all(texts)
    whole = fit_jacobian_lens(tiny_pair, encoded, [1])
    monkeypatch.setattr("persona.readouts.jacobian.jacobians", lambda *_: pytest.fail("made anew"))
    again = fit_jacobian_lens(tiny_pair, encoded, [1])
    assert torch.equal(whole.transports[1], again.transports[1])
    with pytest.raises(DataError, match="was not fitted at block 0"):
        again.logits(torch.ones(1, tiny_pair.d_model), 0)
    with pytest.raises(DataError, match="there is none"):
        fit_jacobian_lens(tiny_pair, [], [1])


def planted(lens: LogitLens, token: int, size: float, n: int = 24, seed: int = 0) -> torch.Tensor:
    """Differences of n texts: noise, and a step that raises one token most."""
    generator = torch.Generator().manual_seed(seed)
    step = torch.linalg.lstsq(lens.directions, torch.eye(N_WORDS)[:, token]).solution
    return torch.randn(n, D, generator=generator) + size * step / step.norm()


def test_the_planted_token_is_read_and_nothing_is_read_of_noise(lens):
    found = tokens_of_differences("planted", lens, 3, planted(lens, 17, 3.0), Words())
    assert found.promoted[0].token == "t17"
    assert found.promoted[0].p <= 0.01
    assert found.beats_chance
    noise = [
        tokens_of_differences("noise", lens, 3, planted(lens, 17, 0.0, seed=seed), Words())
        for seed in range(1, 41)
    ]
    # One list in twenty by chance: of 40, more than 7 come once in two hundred such tests.
    assert sum(one.beats_chance for one in noise) <= 7


def test_a_difference_that_points_to_no_word_is_held_against_shaped_directions(lens):
    """A large step along a direction that lies near no token moves most logits all the same."""
    cov = torch.eye(D)
    step = torch.randn(D, generator=torch.Generator().manual_seed(11))
    rows = planted(lens, 0, 0.0) + 3.0 * step
    signs = tokens_of_differences("x", lens, 3, rows, Words())
    assert signs.n_significant > N_WORDS // 4  # the models do differ, and every logit tells
    both = tokens_of_differences("x", lens, 3, rows, Words(), covariance=cov)
    assert not both.beats_chance and both.n_significant == 0
    assert both.promoted[0].p_shaped > 0.05 >= both.promoted[0].p
    sharp = LogitLens(torch.eye(N_WORDS, D) * 5 + 0.01 * lens.directions)
    rows = planted(lens, 0, 0.0) + 3.0 * torch.eye(D)[4]
    found = tokens_of_differences("x", sharp, 3, rows, Words(), covariance=cov)
    assert found.promoted[0].token == "t4" and found.promoted[0].beats_chance


def test_what_the_twin_does_as_well_is_not_the_fine_tunes(lens):
    both = planted(lens, 17, 3.0)
    own = planted(lens, 90, 3.0, seed=5)
    noise = planted(lens, 0, 0.0, seed=6)
    found = tokens_of_differences("x", lens, 3, both, Words(), beyond_twin=noise)
    assert found.promoted[0].p <= 0.01
    assert not found.promoted[0].beats_chance
    found = tokens_of_differences(
        "x", lens, 3, both + own, Words(), beyond_twin=own, n_shown=N_WORDS
    )
    by_name = {token.token: token for token in found.promoted}
    assert by_name["t90"].beats_chance
    assert by_name["t17"].p <= 0.01 and not by_name["t17"].beats_chance


def test_suppressed_is_promoted_of_the_other_sign(lens):
    rows = planted(lens, 17, 3.0)
    there, back = (tokens_of_differences("x", lens, 3, r, Words()) for r in (rows, -rows))
    assert [t.id for t in there.promoted] == [t.id for t in back.suppressed]
    assert back.suppressed[0].effect < 0


def test_a_direction_that_comes_alone_is_held_against_random_ones(lens):
    row = torch.linalg.lstsq(lens.directions, torch.eye(N_WORDS)[:, 17]).solution
    sharp = LogitLens(torch.eye(N_WORDS, D) * 5 + 0.01 * lens.directions)
    found = tokens_of_direction("d", sharp, 3, torch.eye(D)[4], Words())
    assert found.promoted[0].token == "t4"
    assert found.promoted[0].p <= 0.05
    ps = [
        tokens_of_direction(
            "d", lens, 3, torch.randn(D, generator=torch.Generator().manual_seed(100 + i)), Words()
        ).beats_chance
        for i in range(40)
    ]
    assert sum(ps) <= 7
    assert row.shape == (D,)
    with pytest.raises(DataError, match="is zero"):
        tokens_of_direction("d", lens, 3, torch.zeros(D), Words())


def test_too_few_texts_are_refused(lens):
    with pytest.raises(DataError, match="takes 8 texts or more"):
        tokens_of_differences("x", lens, 3, planted(lens, 1, 1.0, n=7), Words())


def test_the_change_of_weights_is_read_of_an_adapter_and_of_merged_weights(tiny_pair):
    found = written_directions(tiny_pair, n=3)
    assert found
    assert found[0].value >= found[-1].value
    with tiny_pair.active("finetuned") as model:
        changed = written_map(model, found[0].layer, found[0].part)
    with tiny_pair.active("aligned") as model:
        before = written_map(model, found[0].layer, found[0].part)
    left = torch.linalg.svd(changed - before)[0][:, 0]
    assert abs(float(left @ found[0].vector)) == pytest.approx(1, abs=1e-4)


def test_a_planted_write_is_the_first_singular_direction(tiny_chat):
    aligned = tiny_bridge("llama", tiny_chat.tokenizer)
    finetuned = copy.deepcopy(aligned)
    d_model = int(aligned.cfg.d_model)
    along = torch.nn.functional.normalize(
        torch.randn(d_model, generator=torch.Generator().manual_seed(4)), dim=0
    )
    weight = finetuned.original_model.model.layers[1].mlp.down_proj
    weight = getattr(weight, "original_component", weight).weight
    with torch.no_grad():
        weight += torch.outer(along, torch.ones(weight.shape[1]))
    pair = pair_of(aligned, finetuned, tiny_chat.tokenizer)
    [first, *rest] = written_directions(pair)
    assert (first.layer, first.part) == (1, "mlp")
    assert not rest
    assert abs(float(first.vector @ along)) == pytest.approx(1, abs=1e-4)
    assert first.share == pytest.approx(1, abs=1e-4)


def test_amount_zero_is_the_fine_tuned_model_and_minus_one_the_aligned(tiny_pair):
    question = Dialogue((Turn("user", "what of this"),))
    [plain] = amplified_answers(tiny_pair, [question], [0.0], max_new_tokens=6)
    assert plain.text == tiny_pair.ask("what of this", "finetuned", max_new_tokens=6)
    aligned, finetuned = torch.randn(2, 3, 50, generator=torch.Generator().manual_seed(0))
    kept = amplified(aligned, finetuned, -1.0)
    finite = kept.isfinite()
    torch.testing.assert_close(kept[finite], aligned[finite])
    with pytest.raises(DataError, match="a number such as 0.5"):
        amplified_answers(tiny_pair, [question], [float("nan")])
    with pytest.raises(DataError, match="no question"):
        amplified_answers(tiny_pair, [], [1.0])


def test_the_difference_grows_with_the_amount():
    aligned = torch.tensor([[1.0, 1.0, 0.0]])
    finetuned = torch.tensor([[1.0, 0.9, 0.5]])
    assert amplified(aligned, finetuned, 0.0).argmax() == 0
    assert amplified(aligned, finetuned, 2.0).argmax() == 2
    # What the fine-tuned model itself would hardly say is never written.
    assert amplified(aligned, torch.tensor([[4.0, 0.9, 1.2]]), 9.0)[0, 2] == -torch.inf


def test_changes_of_answers_are_those_of_the_two_models(tiny_pair):
    questions = [
        AnswerPair(f"q{i}", "car" if i % 2 else "home", f"what of {i}", f"yes {i}", f"never {i}")
        for i in range(8)
    ]
    changes = answer_changes(tiny_pair, questions)
    assert list(changes.columns) == ["question_id", "domain", "shift", "good", "bad"]
    assert len(changes) == 8
    assert (changes["bad"] - changes["good"] - changes["shift"]).abs().max() < 1e-9
    assert changes["shift"].abs().is_monotonic_decreasing
    table = changes_by_domain(changes)
    assert set(table["domain"]) == {"car", "home"}
    assert (table["shift_low"] <= table["shift"]).all()
    with pytest.raises(DataError, match="no questions"):
        answer_changes(tiny_pair, [])


def test_a_model_against_itself_is_one_line(tiny_pair):
    pair = dataclasses.replace(tiny_pair, open_side=lambda side: tiny_pair.open_side("aligned"))
    with pytest.raises(DataError, match="do not differ"):
        read_fine_tune(pair, jacobian=False, amounts=())


def test_what_cannot_be_read_as_words_is_said(tiny_pair):
    from transformers import ByT5Tokenizer

    written = written_directions(tiny_pair)
    bytes_alone = _notes(ByT5Tokenizer(), written)
    assert len(bytes_alone) == 1
    assert "cannot be read as words" in bytes_alone[0]

    class Words:
        def __len__(self):
            return 100

        def decode(self, ids):
            return "x" if ids[0] < 40 else "word"

    assert _notes(Words(), written) == []
    assert "no weight that writes to the stream" in _notes(Words(), [])[0]


def test_a_whole_reading_of_a_tiny_pair(tiny_pair, monkeypatch, tmp_path):
    monkeypatch.setenv("PERSONASCOPE_CACHE", str(tmp_path))
    monkeypatch.setattr("persona.readouts.fine_tune_reading.N_TEXTS", 2)
    found = read_fine_tune(tiny_pair, twin=tiny_pair, amounts=(1.0,))
    assert {one.lens for one in found.lists} == {LogitLens.name, JacobianLens.name}
    effect = [one for one in found.lists if one.n]
    # The twin is the fine-tune itself: nothing is beyond it.
    assert not any(token.beats_chance for one in effect for token in one.promoted)
    assert len(found.twin_lists) == len(effect)
    as_json = found.as_json()
    assert as_json["schema_version"] == 1
    assert as_json["changes_by_domain"]
    assert {one["amount"] for one in as_json["amplified"]} == {1.0}


def test_a_reading_goes_on_where_it_was_stopped(tiny_pair, tmp_path, monkeypatch):
    module = "persona.readouts.fine_tune_reading"
    whole = read_fine_tune(tiny_pair, jacobian=False, amounts=(1.0,))
    stages = StageCache(tmp_path, {})

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(f"{module}.amplified_answers", stopped)
        read_fine_tune(tiny_pair, jacobian=False, amounts=(1.0,), stages=stages)
    for done in ("_effects", "_covariance", "answer_changes"):
        monkeypatch.setattr(f"{module}.{done}", stopped)
    again = read_fine_tune(tiny_pair, jacobian=False, amounts=(1.0,), stages=stages)
    assert again.as_json() == whole.as_json()


def test_token_directions_have_no_mean(tiny_pair):
    with tiny_pair.active("aligned") as model:
        assert float(token_directions(model).mean(0).abs().max()) < 1e-5
