"""Examples, logit lens, decomposition and the page: what is shown is what the latent does."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from tiny_models import tiny_bridge

from persona.data.types import AnswerPair
from persona.directions.direction import Direction
from persona.errors import DataError, SpaceMismatchError
from persona.sae import decompose, explain_latents, logit_lens, nearest_directions, nearest_latents
from persona.sae.explain import _Decoded
from persona.sae.latent_page import render_page, write_page
from persona.sae.texts import pair_texts


@pytest.fixture(scope="module")
def texts(tiny_pair):
    pairs = [
        AnswerPair(f"q{i}", "d", f"what of <{i}>", f"count & <b>{i}</b>", f"forget {i}")
        for i in range(8)
    ]
    return pair_texts(tiny_pair.chat, pairs)


@pytest.fixture
def pages(tiny_pair, sae, texts):
    return explain_latents(tiny_pair, sae, [5, 9], texts, n_examples=4, token_budget=96)


def test_examples_are_the_texts_with_the_highest_peaks(tiny_pair, sae, texts, pages):
    from persona.activations import collect_tokens

    best = {}
    for side in ("aligned", "finetuned"):
        with tiny_pair.active(side) as bridge:
            read = collect_tokens(bridge, [t.tokens for t in texts], [sae.layer], token_set="all")
        for i, (text, rows) in enumerate(zip(texts, read, strict=True)):
            at = slice(text.span[0] - 1, text.span[1] - 1)
            best[side, i] = float(sae.encode(rows[at, 0])[:, 5].max())
    tops = sorted(max(best["aligned", i], best["finetuned", i]) for i in range(len(texts)))
    found = [example.activation for example in pages[0].examples]
    np.testing.assert_allclose(found, tops[::-1][:4], rtol=1e-4)
    for example in pages[0].examples:
        assert example.activation == max(example.values)
        assert len(example.tokens) == len(example.values)


def test_the_histogram_and_frequency_count_every_token(texts, pages):
    n = sum(text.n_tokens for text in texts)
    for page in pages:
        assert page.n_tokens == n
        for side in ("aligned", "finetuned"):
            assert sum(page.counts[side]) == round(page.frequency[side] * n)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
def test_the_logit_lens_orders_tokens_as_a_long_step_along_the_latent_does(
    family, tiny_chat, tiny_pair, sae
):
    """A step so long that nothing else is left, into the final norm, has the lens' logits."""
    import contextlib
    import dataclasses

    bridge = tiny_bridge(family, tiny_chat.tokenizer)
    d = 16
    row = torch.randn(1, d, generator=torch.Generator().manual_seed(3))

    class Narrow(type(sae)):
        decoder = row
        n_latents = 1

    pair = dataclasses.replace(tiny_pair, open_side=lambda side: contextlib.nullcontext(bridge))
    lens = logit_lens(pair, Narrow(sae.module, sae.space, "narrow"), [0])[0]
    from persona.models.hooks import hooked

    ids = torch.tensor([[5, 6, 7]])

    def long_step(resid):
        return torch.zeros_like(resid) + 1e4 * row

    with torch.no_grad(), hooked(bridge, [("blocks.2.hook_resid_post", long_step)]):
        stepped = bridge(ids, return_type="logits")[0, -1]
    with (
        torch.no_grad(),
        hooked(bridge, [("blocks.2.hook_resid_post", lambda resid: torch.zeros_like(resid))]),
    ):
        silent = bridge(ids, return_type="logits")[0, -1]
    change = stepped - silent
    correlation = torch.corrcoef(torch.stack([lens, change]))[0, 1]
    assert float(correlation) > 0.99


def test_a_sum_of_latents_is_taken_apart_into_them(tiny_pair, sae):
    space = tiny_pair.space(sae.layer)
    made = Direction(3 * sae.decoder[4] - 2 * sae.decoder[17], space, "made")
    found = decompose(made, sae, 2)
    assert found.table["latent"].tolist() == [4, 17]
    np.testing.assert_allclose(found.table["coefficient"], [3, -2], atol=1e-4)
    assert found.residue < 1e-6
    other = Direction(torch.randn(32, generator=torch.Generator().manual_seed(0)), space, "other")
    residues = [decompose(other, sae, n).residue for n in (1, 3, 8)]
    assert 1 > residues[0] > residues[1] > residues[2] > 0
    one = decompose(other, sae, 1)
    assert one.residue == pytest.approx(1 - one.table["cosine"][0] ** 2)
    assert nearest_latents(sae, other, 1)["latent"][0] == one.table["latent"][0]


def test_directions_of_another_model_are_refused(tiny_pair, sae):
    import dataclasses

    space = dataclasses.replace(tiny_pair.space(sae.layer), revision="other")
    direction = Direction(torch.ones(32), space, "x")
    with pytest.raises(SpaceMismatchError, match="revision differs"):
        decompose(direction, sae)
    with pytest.raises(SpaceMismatchError, match="revision differs"):
        nearest_directions(sae, 0, {"x": direction})
    with pytest.raises(DataError, match="1 to 32 latents; got 0"):
        decompose(sae.direction(0), sae, 0)


def test_the_nearest_direction_of_a_latent_is_itself(sae):
    near = nearest_directions(sae, 3, {"other": sae.direction(8), "self": sae.direction(3)})
    assert near["direction"].tolist() == ["self", "other"]
    assert near["cosine"][0] == pytest.approx(1)


def test_pieces_of_text_join_to_the_text(tiny_chat):
    ids = tiny_chat.tokenizer("naïve ☂ text", add_special_tokens=False)["input_ids"]
    pieces = _Decoded(tiny_chat.tokenizer).pieces(ids)
    assert "".join(pieces) == "naïve ☂ text"
    assert len(pieces) == len(ids)


def test_the_page_asks_nothing_of_the_network_and_escapes_what_it_shows(sae, pages, tmp_path):
    near = nearest_directions(sae, 5, {"<script>": sae.direction(8)})
    path = write_page(tmp_path, sae, pages[0], near)
    page = path.read_text()
    assert path.name == "latent_5.html"
    assert page == render_page(sae, pages[0], near)
    assert "&lt;script&gt;" in page
    assert not re.search(r"<(script|link|img|iframe)|https?://|url\(", page)
    assert "default-src 'none'" in page
    assert len(page) < 100_000
    assert page.count('class="tok') == sum(len(e.tokens) for e in pages[0].examples)


def test_a_latent_that_never_fires_has_a_page_that_says_so(tiny_pair, sae, texts):
    with torch.no_grad():
        sae.module.threshold[7] = 1e9
    [page] = explain_latents(tiny_pair, sae, [7], texts)
    assert page.examples == ()
    assert "It fires on none of these tokens" in render_page(sae, page)


def test_bad_input_is_refused(tiny_pair, sae, texts):
    with pytest.raises(DataError, match="latent 40 is out of range"):
        explain_latents(tiny_pair, sae, [40], texts)
    with pytest.raises(DataError, match="no text to look for examples"):
        explain_latents(tiny_pair, sae, [1], [])
