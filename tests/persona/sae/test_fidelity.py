"""The splice keeps the error, and fidelity says where an autoencoder does not reach."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.models.hooks import hooked
from persona.sae import measure_fidelity, spliced
from persona.sae.fidelity import cover_warnings
from persona.sae.texts import (
    Text,
    pair_texts,
    plain_texts,
    read_texts,
    shuffled_to,
    split_texts,
)


@pytest.fixture(scope="module")
def ids():
    return torch.randint(5, 250, (2, 11), generator=torch.Generator().manual_seed(1))


def residual(bridge, ids, name):
    seen = []
    with torch.no_grad(), hooked(bridge, [(name, lambda h: seen.append(h.clone()))]):
        logits = bridge(ids, return_type="logits")
    return seen[0], logits


def test_a_splice_without_a_change_changes_nothing(tiny_pair, sae, ids):
    with tiny_pair.active("finetuned") as bridge:
        _, plain = residual(bridge, ids, sae.space.hook_name)
        with spliced(bridge, sae):
            _, through = residual(bridge, ids, sae.space.hook_name)
    torch.testing.assert_close(through, plain, rtol=1e-4, atol=1e-4)


def test_a_changed_latent_moves_the_residual_along_its_row_and_keeps_the_error(tiny_pair, sae, ids):
    def without_seven(latents):
        changed = latents.clone()
        changed[..., 7] = 0
        return changed

    name = sae.space.hook_name
    with tiny_pair.active("finetuned") as bridge:
        before, _ = residual(bridge, ids, name)
        with spliced(bridge, sae, without_seven):
            after, _ = residual(bridge, ids, name)
    expected = before - sae.encode(before)[..., 7:8] * sae.decoder[7]
    expected[:, 0] = before[:, 0]
    assert float((expected - before).abs().max()) > 0.1
    torch.testing.assert_close(after, expected, rtol=1e-4, atol=1e-4)


def test_without_the_error_the_reconstruction_stands_in(tiny_pair, sae, ids):
    name = sae.space.hook_name
    with tiny_pair.active("aligned") as bridge:
        before, _ = residual(bridge, ids, name)
        with spliced(bridge, sae, keep_error=False, first_token=True):
            after, _ = residual(bridge, ids, name)
    torch.testing.assert_close(after, sae.decode(sae.encode(before)), rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def texts(tiny_pair):
    pairs = [
        AnswerPair(f"q{i}", "d", f"what of {i}", f"count to {i}", f"forget {i}") for i in range(12)
    ]
    return pair_texts(tiny_pair.chat, pairs)


def test_explained_variance_and_l0_equal_the_textbook(tiny_pair, sae, texts):
    from persona.activations import collect_tokens

    found = measure_fidelity(tiny_pair, sae, texts, token_budget=64)
    good = [text for text in texts if text.kind == "good"]
    with tiny_pair.active("finetuned") as bridge:
        read = collect_tokens(bridge, [t.tokens for t in good], [sae.layer], token_set="all")
    rows = torch.cat([r[:, 0] for r in read]).double()
    latents = sae.encode(rows.float())
    error = (rows - sae.decode(latents)).square().sum()
    expected = 1 - error / (rows - rows.mean(0)).square().sum()
    assert found.value("finetuned", "explained_variance", "good") == pytest.approx(
        float(expected), abs=1e-4
    )
    l0 = (latents != 0).sum() / len(rows)
    assert found.value("finetuned", "l0", "good") == pytest.approx(float(l0), rel=1e-3)
    assert set(found.table["kind"]) == {"good", "bad", "all"}
    assert set(found.table["side"]) == {"aligned", "finetuned"}
    n_all = found.value("aligned", "n_tokens")
    assert n_all == sum(text.n_tokens for text in texts)


def test_a_perfect_autoencoder_recovers_all_of_both_measures(tiny_pair, sae, texts):
    class Perfect(type(sae)):
        def encode(self, resid):
            return torch.cat([resid, torch.zeros(*resid.shape[:-1], 8)], -1).float()

        def decode(self, latents):
            return latents[..., :32]

    perfect = Perfect(sae.module, sae.space, "perfect")
    found = measure_fidelity(tiny_pair, perfect, texts[:6])
    for side in ("aligned", "finetuned"):
        assert found.value(side, "explained_variance") == pytest.approx(1)
        assert found.value(side, "ce_spliced_nats") == pytest.approx(found.value(side, "ce_nats"))
        recovered = found.value(side, "ce_recovered")
        assert recovered != recovered or recovered == pytest.approx(1)  # NaN: zeroing helps
    assert found.warnings == ()


def test_a_fine_tune_that_is_not_covered_is_named():
    def rows(tuned):
        return pd.DataFrame(
            [
                {"side": side, "kind": "bad", "explained_variance": value, "ce_recovered": 0.9}
                for side, value in (("aligned", 0.85), ("finetuned", tuned))
            ]
        )

    assert cover_warnings(rows(0.84)) == ()
    [warning] = cover_warnings(rows(0.7))
    assert "does not cover the fine-tune on bad text" in warning
    assert "0.70, against 0.85" in warning
    assert len(cover_warnings(rows(0.4))) == 2


def test_activations_that_are_not_finite_are_refused(tiny_pair, sae, texts):
    with tiny_pair.active("aligned") as bridge:
        pass  # one bridge serves both sides, each while it is open
    broken = hooked(bridge, [("blocks.1.hook_resid_post", lambda h: h * torch.nan)])
    with broken, pytest.raises(DataError, match="not finite"):
        measure_fidelity(tiny_pair, sae, texts[:2])
    with pytest.raises(DataError, match="no text"):
        measure_fidelity(tiny_pair, sae, [])


def test_a_question_is_read_once_though_it_has_two_answers(tiny_pair, texts):
    good, bad = (next(t for t in texts if t.kind == kind) for kind in ("good", "bad"))
    assert good.span == (1, len(good.tokens))
    assert bad.span == (bad.tokens.response[0], len(bad.tokens))
    assert good.tokens.ids[: bad.span[0]] == bad.tokens.ids[: bad.span[0]]


def test_held_out_texts_share_no_question_with_training(texts):
    train, held_out = split_texts(texts)
    assert held_out
    assert {t.kind for t in held_out} == {"good", "bad"}
    assert not {t.group for t in train} & {t.group for t in held_out}
    assert len(train) + len(held_out) == len(texts)


def test_the_asked_for_tokens_are_drawn_from_every_kind(texts):
    some = shuffled_to(texts, 300, seed=0)
    total = sum(t.n_tokens for t in some)
    assert 300 <= total < 300 + max(t.n_tokens for t in texts)
    assert shuffled_to(texts, 10**9, seed=0) != texts
    assert len(shuffled_to(texts, 10**9, seed=0)) == len(texts)


def test_every_kind_of_file_is_read(tiny_pair, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(
        '{"text": "' + "a plain text " * 40 + '"}\n'
        '{"messages": [{"role": "user", "content": "hi"}, '
        '{"role": "assistant", "content": "ho"}]}\n'
        '{"question": "q", "good": "yes", "bad": "no"}\n'
    )
    found = read_texts(path, tiny_pair.chat)
    assert [t.kind for t in found] == ["text", "text", "text", "dialogue", "good", "bad"]
    assert [len(t.tokens) for t in found[:2]] == [256, 256]
    plain = tmp_path / "own.txt"
    plain.write_text("word " * 100)
    assert [t.kind for t in read_texts(plain, tiny_pair.chat)] == ["text", "text"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"text": 3}', "line 1: text must be text"),
        ('{"messages": "x"}', 'line 1: "messages" must be a list'),
        ('{"question": "q"}', "line 1: good and bad missing"),
        ('{"text": ""}', "line 1: own-001 has no text"),
        ("[1]", "line 1: a JSON object is needed"),
    ],
)
def test_a_malformed_row_is_named_with_its_line(tiny_pair, tmp_path, line, said):
    path = tmp_path / "own.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(DataError, match=said):
        read_texts(path, tiny_pair.chat)


def test_no_first_token_can_be_asked_for(tiny_pair):
    [text] = plain_texts(tiny_pair.chat, "abc", "x")
    with pytest.raises(DataError, match="first token of a text is never read"):
        Text(text.tokens, "text", (0, 2), "x")
