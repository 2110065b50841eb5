"""Prompts that begin alike: the beginning is run once and nothing that is read of them changes."""

from __future__ import annotations

import pytest
import torch

from persona.models.next_token import next_logits, run_beginning, shared_start


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tiny_models import save_tiny_llama
    from transformers import AutoModelForCausalLM

    folder = save_tiny_llama(tmp_path_factory.mktemp("tiny"), max_length=64)
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def prompts(n=11, seed=0):
    """A shared beginning, then own tokens of many lengths."""
    g = torch.Generator().manual_seed(seed)
    start = torch.randint(5, 261, (9,), generator=g).tolist()
    lengths = [1 + (7 * i) % 20 for i in range(n)]
    return [start + torch.randint(5, 261, (k,), generator=g).tolist() for k in lengths]


def alone(model, prompt):
    with torch.no_grad():
        return model(input_ids=torch.tensor([prompt])).logits[0, -1]


@pytest.mark.parametrize("run_before", [0, 4, 9])
def test_each_prompt_is_followed_by_what_follows_it_alone(model, run_before):
    texts = prompts()
    beginning = run_beginning(model, texts[0][:run_before]) if run_before else None
    for _ in range(2):  # a beginning that was used can be used again
        found = next_logits(model, texts, beginning)
        for row, text in zip(found, texts, strict=True):
            torch.testing.assert_close(row, alone(model, text), atol=1e-4, rtol=1e-4)


def test_the_shared_tokens_are_run_once(model):
    texts = prompts()
    n_seen = []
    handle = model.model.embed_tokens.register_forward_hook(
        lambda module, args, output: n_seen.append(args[0].numel())
    )
    try:
        next_logits(model, texts)
    finally:
        handle.remove()
    assert n_seen[0] == 9
    assert sum(n_seen[1:]) <= 16 * 8 + 32 * 3  # own tokens, filled up to 16


def test_a_beginning_goes_on_from_another(model):
    text = prompts()[3]
    first = run_beginning(model, text[:5])
    second = run_beginning(model, text[:8], first)
    assert first.ids == tuple(text[:5])
    torch.testing.assert_close(
        next_logits(model, [text], second)[0], alone(model, text), atol=1e-4, rtol=1e-4
    )


def test_padding_does_not_go_beyond_the_context(model):
    text = (prompts()[0] * 10)[:60]
    found = next_logits(model, [text], longest_allowed=64)
    torch.testing.assert_close(found[0], alone(model, text), atol=1e-4, rtol=1e-4)


def test_every_prompt_keeps_a_token_of_its_own():
    assert shared_start([[1, 2, 3], [1, 2, 3]]) == (1, 2)
    assert shared_start([[1, 2], [1, 2, 3], [1, 5, 9]]) == (1,)
    assert shared_start([[4]]) == ()


def test_prompts_that_do_not_go_on_from_the_beginning_are_refused(model):
    beginning = run_beginning(model, [9, 8, 7])
    with pytest.raises(ValueError, match="does not go on"):
        next_logits(model, [[9, 8, 6, 5]], beginning)
    with pytest.raises(ValueError, match="does not go on"):
        next_logits(model, [[9, 8, 7]], beginning)
    with pytest.raises(ValueError, match="no tokens"):
        next_logits(model, [[]])
    with pytest.raises(ValueError, match="do not begin"):
        run_beginning(model, [1, 2, 3, 4], beginning)
