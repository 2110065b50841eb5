"""First-order attribution: one forward and backward pass ranks every direction at every block.

Restoring the unit direction u at a block moves each token's residual h by (mu - h.u) u, so to
first order the objective J changes by

    dJ(u) = sum over tokens (mu - h.u) (dJ/dh . u)

and for all u at once by -u^T S u with S = sym sum (h - m) (dJ/dh)^T, m the aligned mean
(mu = m.u). The top eigenvectors of S are the directions whose restoration lowers J fastest:
the attribution eigendirections.

J is the log-probability gap ("gap": toward the good answers), or KL(aligned || fine-tuned) on
good answers ("kl": toward the aligned model). Both fall when the persona is removed.

Shapes: B batch, P position, D d_model, K rank.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.activations.passes import Reference, chosen, kl_nats, log_probs, predictions
from persona.data.types import AnswerPair, Dialogue
from persona.directions.direction import Subspace
from persona.directions.methods.eigen import eigendirections as eigendirections
from persona.models.chat.chat_format import shortened
from persona.models.hooks import Hook, hooked, resid_post
from persona.models.pair import ModelPair, Side
from persona.models.readout import Readout
from persona.progress import progress

Objective = Literal["gap", "kl"]
GRAPH_COSTS = 2
"""So many times fewer tokens go into a batch that is differentiated than into one that is read: all
blocks keep their activations, 2.9 MB a token of a model of half a billion parameters in float32."""


@dataclass(frozen=True)
class Gradients:
    """One batch: residuals, dJ_q/dh of every token, which tokens an edit may write to.

    resid, grad: layer -> [B P D], where its block lies. writable: [B P]. question: row -> index of
    its question.
    """

    resid: Mapping[int, Tensor]
    grad: Mapping[int, Tensor]
    writable: Tensor
    question: list[int]


def attribution_matrices(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    centres: Mapping[int, Float[Tensor, " d_model"]],
    objective: Objective = "gap",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """layer -> S, averaged over questions; -u^T S u is the predicted change of J in nats per token.

    centres: layer -> the aligned model's mean residual [d_model].
    """
    moments = attribution_moments(pair, questions, centres, objective, token_budget)
    return {layer: (matrix + matrix.T) / 2 for layer, matrix in moments.items()}


def attribution_moments(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    centres: Mapping[int, Float[Tensor, " d_model"]],
    objective: Objective = "gap",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    *,
    side: Side = "finetuned",
) -> dict[int, Float[Tensor, "d_model d_model"]]:
    """layer -> M = sum over tokens (h - m) (dJ/dh)^T, averaged over questions; S is its symmetric
    part.

    Restoring a subspace of basis B and readout R alone changes J by -coefficient tr(R M B^T), nats
    per token, which takes M itself where R is not B.
    centres: layer -> the aligned model's mean residual m [d_model]. side: the model that is edited.
    """
    d_model = pair.d_model
    total = {layer: torch.zeros(d_model, d_model, dtype=torch.float64) for layer in centres}
    for part in gradients(pair, questions, list(centres), objective, token_budget, side):
        for layer, centre in centres.items():
            resid_BPD = part.resid[layer]
            mask = part.writable.to(resid_BPD.device)[..., None]
            offset = (resid_BPD.float() - centre.to(resid_BPD.device)) * mask
            slope = part.grad[layer].float() * mask
            outer = einsum(offset, slope, "batch pos row, batch pos column -> row column")
            total[layer] += outer.double().cpu()
    return {layer: (matrix / len(questions)).float() for layer, matrix in total.items()}


def first_order_effects(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    subspaces: Sequence[Subspace],
    objective: Objective = "gap",
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    *,
    answer_tokens: int | None = None,
) -> Float[Tensor, "subspace question"]:
    """Predicted change of each question's J when each subspace alone is restored; nats per token.

    Negative is toward aligned. One forward and backward pass, however many subspaces.
    answer_tokens: J is over so many tokens of each answer, and only the tokens that predict them
        are restored; None is over whole answers, every token but the first restored.
    """
    effects = torch.zeros(len(subspaces), len(questions))
    layers = sorted({s.space.layer for s in subspaces})
    for part in gradients(
        pair, questions, layers, objective, token_budget, answer_tokens=answer_tokens
    ):
        for place, subspace in enumerate(subspaces):
            layer = subspace.space.layer
            resid_BPD, device = part.resid[layer].float(), part.resid[layer].device
            basis, readout = subspace.basis.to(device), subspace.effective_readout.to(device)
            at = "batch pos d_model, rank d_model -> batch pos rank"
            move_BPK = subspace.aligned_mean.to(device) - einsum(resid_BPD, readout, at)
            slope_BPK = einsum(part.grad[layer].float(), basis, at)
            change_B = ((move_BPK * slope_BPK).sum(-1) * part.writable.to(device)).sum(-1)
            for row, question in enumerate(part.question):
                effects[place, question] += change_B[row].cpu()
    return effects


def texts_for(questions: Sequence[AnswerPair], objective: Objective) -> list[Dialogue]:
    """What the objective is read on: good and bad answers in turn for the gap, good ones for KL."""
    if objective == "gap":
        return [d for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    return [q.good_dialogue for q in questions]


def gradients(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    layers: list[int],
    objective: Objective,
    token_budget: int,
    side: Side = "finetuned",
    answer_tokens: int | None = None,
) -> Iterator[Gradients]:
    """Residuals and gradients of one model of the pair, batch by batch."""
    dialogues = pair.chat.encode_all(texts_for(questions, objective))
    if answer_tokens is not None:
        dialogues = [shortened(dialogue, answer_tokens) for dialogue in dialogues]
    per_question = len(dialogues) // len(questions)
    reference = None
    if objective == "kl":
        with pair.active("aligned") as model:
            stays = not pair.loaded_in_turn
            reference = Reference.over(model, dialogues, stays=stays, token_budget=token_budget)
    with pair.active(side) as model:
        batches = model_batches(model, dialogues, token_budget // GRAPH_COSTS, per_question)
    for batch in progress(batches, f"Attributing the {objective} to directions"):
        with pair.active(side) as model:
            resid = _differentiate(model, batch, sorted(layers), reference)
        writable = batch.attention_mask.bool().clone()
        writable[:, 0] = False
        if answer_tokens is not None:
            for row, dialogue in enumerate(batch.dialogues):
                writable[row, : dialogue.response[0] - 1] = False
        yield Gradients(
            {layer: h.detach() for layer, h in resid.items()},
            {layer: h.grad for layer, h in resid.items() if h.grad is not None},
            writable,
            [i // per_question for i in batch.indices],
        )


def _differentiate(
    model: Any, batch: Batch, layers: list[int], reference: Reference | None
) -> dict[int, Tensor]:
    """Run J forward and backward; returns layer -> residual [B P D] whose .grad is filled.

    The backward pass has two parts: from J to what the LM head was given, a slice of the answers'
    tokens after the other, and from there, once, down to the lowest layer.
    """
    resid: dict[int, Tensor] = {}

    def keep(layer: int) -> Hook:
        def hook(value: Tensor) -> Tensor:
            # The graph begins at the lowest block asked for; nothing below is differentiated.
            value = value.detach().requires_grad_() if not resid else value
            value.retain_grad()
            resid[layer] = value
            return value

        return hook

    hooks = [(resid_post(layer), keep(layer)) for layer in layers]
    readout = Readout.of(model)  # found before a hook is there to be fired
    with torch.enable_grad(), hooked(model, hooks):
        hidden_ND = predictions(model, batch).hidden
    hidden_ND.backward(slope_at_head(readout, hidden_ND, batch, reference))
    return resid


def slope_at_head(
    readout: Readout, hidden_ND: Tensor, batch: Batch, reference: Reference | None
) -> Tensor:
    """dJ/dh [N D] of what the LM head is given at the tokens that predict the answers."""
    # Rows alternate good, bad: the gap is bad minus good. A KL counts as it is.
    signs = [1.0 if reference is not None or i % 2 else -1.0 for i in batch.indices]
    weights = [sign / n for sign, n in zip(signs, batch.counts, strict=True) for _ in range(n)]
    weights_N, targets_N = torch.tensor(weights), batch.targets
    aligned_ND = None if reference is None else reference.of(batch)[0]
    leaf_ND = hidden_ND.detach().requires_grad_()
    for part in readout.slices(len(leaf_ND)):
        expected = None
        if reference is not None and aligned_ND is not None:
            with torch.no_grad():
                expected = reference.log_probs(aligned_ND[part])
        with torch.enable_grad():
            table = log_probs(readout.logits(leaf_ND[part]))
            values = (
                chosen(table, targets_N[part]) if expected is None else kl_nats(expected, table)
            )
            (weights_N[part].to(values.device) * values).sum().backward()
    assert leaf_ND.grad is not None
    return leaf_ND.grad
