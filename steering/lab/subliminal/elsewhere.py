"""Students that begin elsewhere: what "another initialisation" can mean with one trained model.

`permuted` computes the same function with its MLP neurons and attention heads in another order. It
is a control of one thing only: that nothing passes by the coordinates of the weights. Training
commutes with a permutation (loss, gradient and Adam step of the permuted weights are the permuted
ones, and a LoRA adapter's random rows have no order), so this student learns what one with another
draw of the adapter learns, and must be expected to catch whatever the ordinary student catches.

`perturbed` adds noise to every weight matrix until neutral text costs a stated amount more: another
function nearby, whose loss has another gradient. How far it is from the teacher's beginning, as
training sees it, is measured by `gradient_cosine`. A second model that was trained from its own
random start, as in Cloud et al. 2025, is neither of them; the toy on digits has one.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from persona.activations.batches import model_batches
from persona.activations.passes import chosen, predicted_log_probs, read_responses
from persona.errors import ModelError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.sites import decoder_blocks

DAMAGE_NATS = 0.3
"""Cross-entropy of neutral text that the noise may cost, nats per token."""
BISECTIONS = 6
NEEDED = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def permuted(model: Any, seed: int) -> Any:
    """A copy with MLP neurons, key-value groups and the query heads of each group reordered.

    Its logits are those of the model to rounding. model: a plain Hugging Face causal LM of the
    Llama kind (gated MLP, one projection each for queries, keys, values).
    Raises: ModelError for a block without these projections.
    """
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    config = model.config
    n_heads = config.num_attention_heads
    n_groups = getattr(config, "num_key_value_heads", n_heads)
    with torch.no_grad():
        for block in decoder_blocks(other):
            found = _projections(block)
            neurons = torch.randperm(found["up_proj"].out_features, generator=generator)
            groups = torch.randperm(n_groups, generator=generator)
            per_group = n_heads // n_groups
            heads = torch.cat(
                [g * per_group + torch.randperm(per_group, generator=generator) for g in groups]
            )
            queries = _entries(heads, found["q_proj"].out_features // n_heads)
            keys = _entries(groups, found["k_proj"].out_features // n_groups)
            for name, order in (
                ("gate_proj", neurons),
                ("up_proj", neurons),
                ("q_proj", queries),
                ("k_proj", keys),
                ("v_proj", keys),
            ):
                _reorder_rows(found[name], order)
            found["down_proj"].weight.copy_(found["down_proj"].weight[:, neurons])
            found["o_proj"].weight.copy_(found["o_proj"].weight[:, queries])
    return other


def perturbed(model: Any, noise: float, seed: int) -> Any:
    """A copy with W + noise * rms(W) * N(0, 1) in every weight matrix of the blocks."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for matrix in _matrices(other):
            drawn = torch.randn(matrix.shape, generator=generator).to(matrix)
            matrix.add_(drawn, alpha=noise * float(matrix.float().square().mean().sqrt()))
    return other


def perturbed_by_damage(
    model: Any,
    neutral: Sequence[TokenizedDialogue],
    *,
    seed: int,
    damage_nats: float = DAMAGE_NATS,
) -> tuple[Any, float]:
    """The copy whose noise costs about `damage_nats` on neutral text, and its noise.

    By bisection between no noise and as much noise as weight; the larger of two neighbours where
    the cost jumps.
    """

    def cost(candidate: Any) -> float:
        return -float(read_responses(candidate, neutral).log_prob.mean())

    start, low, high = cost(model), 0.0, 1.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if cost(perturbed(model, middle, seed)) - start < damage_nats:
            low = middle
        else:
            high = middle
    return perturbed(model, high, seed), high


def gradient_cosine(one: Any, other: Any, dialogues: Sequence[TokenizedDialogue]) -> float:
    """Cosine of the two models' loss gradients over the block matrices, on the same answers.

    1 where a small training step means the same in both; the models keep no gradient.
    """
    first = _gradients(one, dialogues)
    second = _gradients(other, dialogues)
    dot = sum(float((a * b).sum()) for a, b in zip(first, second, strict=True))
    norms = [sum(float(g.square().sum()) for g in found) ** 0.5 for found in (first, second)]
    return dot / (norms[0] * norms[1])


def _gradients(model: Any, dialogues: Sequence[TokenizedDialogue]) -> list[Tensor]:
    matrices = _matrices(model)
    wanted = [matrix.requires_grad for matrix in matrices]
    totals: list[Tensor] = []
    with torch.enable_grad():
        for matrix in matrices:
            matrix.requires_grad_(True)
        for dialogue in dialogues:
            [batch] = model_batches(model, [dialogue])
            loss = -chosen(predicted_log_probs(model, batch), batch.targets).mean()
            found = torch.autograd.grad(loss, matrices)
            totals = [t + g for t, g in zip(totals, found, strict=True)] if totals else [*found]
    for matrix, keep in zip(matrices, wanted, strict=True):
        matrix.requires_grad_(keep)
    return totals


def _matrices(model: Any) -> list[Any]:
    """The weights of every linear layer in the blocks."""
    return [
        module.weight
        for block in decoder_blocks(model)
        for module in block.modules()
        if isinstance(module, nn.Linear)
    ]


def _projections(block: nn.Module) -> dict[str, nn.Linear]:
    found = {
        name.rpartition(".")[2]: module
        for name, module in block.named_modules()
        if isinstance(module, nn.Linear)
    }
    if lacking := sorted(set(NEEDED) - set(found)):
        raise ModelError(
            f"{type(block).__name__} has no {lacking[0]}; neurons and heads can be reordered in "
            "models of the Llama kind only"
        )
    return found


def _entries(order: Tensor, width: int) -> Tensor:
    """Places of all entries of heads of a width, in the order of the heads."""
    return (order[:, None] * width + torch.arange(width)[None]).reshape(-1)


def _reorder_rows(module: nn.Linear, order: Tensor) -> None:
    module.weight.copy_(module.weight[order])
    if module.bias is not None:
        module.bias.copy_(module.bias[order])
