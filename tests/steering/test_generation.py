"""Beams, samples, padded batches and half precision are steered like one plain forward pass."""

from __future__ import annotations

import pytest
import torch
from tiny_models import tiny_bridge, tiny_causal_lm

from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.space import ActivationSpace
from steering.edits.from_directions import ablate, add
from steering.edits.places import EVERY_WRITE
from steering.edits.steer import steer

PROMPTS = torch.tensor([[1, 1, 40, 41, 42, 43], [50, 51, 52, 53, 54, 55]])  # 1 is the pad token
MASK = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
FAMILIES = ("llama", "gemma2", "gpt2")


def direction():
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    return Direction(vector, ActivationSpace("tiny", "1", "blocks.1.hook_resid_post", 1, 16), "d")


def positions(mask):
    return (mask.cumsum(-1) - 1).clamp(min=0)


@torch.no_grad()
def log_probs(model, ids, mask):
    return model(ids, attention_mask=mask, position_ids=positions(mask)).logits.log_softmax(-1)


@pytest.fixture(scope="module", params=FAMILIES)
def model(request):
    lm = tiny_causal_lm(request.param)
    lm.generation_config.eos_token_id = None
    lm.generation_config.pad_token_id = 1
    return lm


def generate(model, ids, mask, **options):
    return model.generate(
        ids,
        attention_mask=mask,
        max_new_tokens=4,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def likelihood(model, sequences, mask, edits):
    """Sum of the steered log-probabilities of what follows the prompts, one forced pass."""
    whole = torch.cat([mask, torch.ones(len(sequences), 4, dtype=mask.dtype)], dim=1)
    with steer(model, edits):
        steered = log_probs(model, sequences, whole)[:, 5:-1]
    return steered.gather(-1, sequences[:, 6:, None])[..., 0].sum(-1)


@pytest.mark.parametrize("n_beams", [2, 3])
def test_a_beam_is_scored_by_the_steered_model(model, n_beams):
    edits = add(direction(), 4.0)
    options = dict(num_beams=n_beams, num_return_sequences=n_beams, length_penalty=0.0)
    with steer(model, edits):
        beams = generate(model, PROMPTS, MASK, do_sample=False, **options)
    mask = MASK.repeat_interleave(n_beams, 0)
    seen = likelihood(model, beams.sequences, mask, edits)
    torch.testing.assert_close(beams.sequences_scores, seen, atol=1e-3, rtol=0)
    plain = generate(model, PROMPTS, MASK, do_sample=False, **options)
    assert not torch.equal(plain.sequences, beams.sequences)


def test_beams_of_a_row_have_the_coefficient_of_that_row(model):
    d, factors = direction(), torch.tensor([4.0, -4.0])
    repeated = add(d, factors.repeat_interleave(2))
    with steer(model, repeated):
        together = generate(model, PROMPTS, MASK, do_sample=False, num_beams=2)
    for row, factor in enumerate(factors.tolist()):
        with steer(model, add(d, factor)):
            alone = generate(
                model, PROMPTS[row : row + 1], MASK[row : row + 1], do_sample=False, num_beams=2
            )
        assert torch.equal(together.sequences[row], alone.sequences[0])
    with pytest.raises(SteeringError, match=r"2 beams a row, repeat each: repeat_interleave\(2\)"):
        with steer(model, add(d, factors)):
            generate(model, PROMPTS, MASK, do_sample=False, num_beams=2)
    with pytest.raises(SteeringError, match=r"response_start has 2 .* repeat_interleave\(2\)"):
        with steer(model, add(d), positions="answering", response_start=[2, 2]):
            generate(model, PROMPTS, MASK, do_sample=False, num_beams=2)


def test_a_sample_is_drawn_from_the_steered_distribution(model):
    edits = add(direction(), torch.tensor([4.0, -4.0]))
    torch.manual_seed(0)
    with steer(model, edits):
        drawn = generate(model, PROMPTS, MASK, do_sample=True, top_k=0, top_p=1.0)
    whole = torch.cat([MASK, torch.ones(2, 4, dtype=MASK.dtype)], dim=1)
    with steer(model, edits):
        forced = log_probs(model, drawn.sequences, whole)[:, 5:-1]
    seen = torch.stack(drawn.scores, dim=1).log_softmax(-1)
    torch.testing.assert_close(seen, forced, atol=1e-3, rtol=0)


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("where", ["all", "answering", "last"])
def test_a_padded_batch_is_steered_alike_on_bridge_and_plain_model(tiny_chat, side, dtype, where):
    ids = PROMPTS if side == "left" else torch.stack([PROMPTS[0].roll(-2), PROMPTS[1]])
    mask = MASK if side == "left" else torch.stack([MASK[0].roll(-2), MASK[1]])
    plain = tiny_causal_lm("llama").to(dtype)
    bridge = tiny_bridge("llama", tiny_chat.tokenizer).to(dtype)
    edits = [
        *add(direction(), torch.tensor([2.0, -2.0])),
        *ablate(direction(), at=EVERY_WRITE),
    ]
    seen = []
    for model in (bridge, plain):
        options = {} if model is bridge else {"position_ids": positions(mask)}
        with torch.no_grad(), steer(model, edits, positions=where, response_start=[2, 3]) as record:
            output = model(ids, attention_mask=mask, **options)
        logits = output if isinstance(output, torch.Tensor) else output.logits
        seen.append((logits.float().log_softmax(-1)[mask.bool()], record.n_tokens))
    bound = 1e-4 if dtype is torch.float32 else 0.1
    torch.testing.assert_close(seen[0][0], seen[1][0], atol=bound, rtol=0)
    assert seen[0][1] == seen[1][1]
