"""The training loss is the one that a whole table of logits would give."""

import pytest
import torch
from tiny_models import tiny_causal_lm

from persona.models.readout import Readout
from persona.organisms.answer_loss import answer_loss
from persona.organisms.examples import NO_LOSS


def batch(n_words: int) -> dict[str, torch.Tensor]:
    """Two dialogues of unlike length, padded on the right, with a label on some tokens."""
    ids = torch.randint(5, n_words, (2, 12), generator=torch.Generator().manual_seed(0))
    mask, labels = torch.ones_like(ids), ids.clone()
    mask[1, 9:] = 0
    labels[0, :5] = labels[1, :7] = labels[1, 9:] = NO_LOSS
    return {"input_ids": ids, "labels": labels, "attention_mask": mask}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_loss_and_gradient_are_those_of_all_logits(family, monkeypatch):
    model = tiny_causal_lm(family).requires_grad_(True)
    inputs = batch(model.config.vocab_size)
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    wanted = torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), inputs["labels"][:, 1:].flatten(), ignore_index=NO_LOSS
    )
    wanted.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    monkeypatch.setattr(Readout, "slices", lambda self, n: [slice(0, 4), slice(4, n)])
    loss = answer_loss(model, **inputs)
    assert loss.item() == pytest.approx(wanted.item(), rel=1e-6)
    loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-4, atol=1e-6)


def test_the_head_sees_the_answers_alone():
    model, inputs = tiny_causal_lm("llama"), batch(200)
    Readout.of(model)  # found once, by a pass of its own
    seen = []
    model.lm_head.register_forward_hook(lambda module, args, output: seen.append(output.shape[1]))
    answer_loss(model, **inputs)
    assert sum(seen) <= 1 + 16  # one position a row for the model itself; 9 tokens fill 16 rows
