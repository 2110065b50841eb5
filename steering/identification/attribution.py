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
from typing import Literal

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import DEFAULT_TOKEN_BUDGET, Batch, model_batches
from persona.behaviour.scoring import Reference, kl_nats, predictions, response_targets
from persona.data.types import AnswerPair, Dialogue
from persona.directions.direction import Subspace
from persona.directions.methods.eigen import eigendirections as eigendirections
from persona.models.chat.chat_format import TokenizedDialogue, shortened
from persona.models.hooks import Hook, hooked, resid_post
from persona.models.pair import ModelPair, Side
from persona.models.readout import Readout
from persona.progress import progress

Objective = Literal["gap", "kl"]


@dataclass(frozen=True)
class Gradients:
    """One batch: residuals, dJ_q/dh of every token, which tokens an edit may write to.

    resid, grad: layer -> [B P D]. writable: [B P]. question: row -> index of its question.
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
    d_model = pair.d_model
    total = {layer: torch.zeros(d_model, d_model, dtype=torch.float64) for layer in centres}
    for part in gradients(pair, questions, list(centres), objective, token_budget):
        for layer, centre in centres.items():
            offset = (part.resid[layer].float() - centre.to(part.writable.device))[part.writable]
            slope = part.grad[layer].float()[part.writable]
            outer = einsum(offset, slope, "token row, token column -> row column")
            total[layer] += outer.double().cpu()
    return {
        layer: ((matrix + matrix.T) / 2 / len(questions)).float() for layer, matrix in total.items()
    }


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
            layer, device = subspace.space.layer, part.writable.device
            basis, reading = subspace.basis.to(device), subspace.reading.to(device)
            at = "batch pos d_model, rank d_model -> batch pos rank"
            move_BPK = subspace.aligned_mean.to(device) - einsum(
                part.resid[layer].float(), reading, at
            )
            slope_BPK = einsum(part.grad[layer].float(), basis, at)
            change_B = ((move_BPK * slope_BPK).sum(-1) * part.writable).sum(-1)
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
    with pair.active("aligned" if objective == "kl" else side) as bridge:
        batches = model_batches(bridge, dialogues, token_budget, per_question)
    reference = _reference(pair, batches, dialogues) if objective == "kl" else None
    for batch in progress(batches, f"Attributing the {objective} to directions"):
        resid = _differentiate(pair, side, batch, dialogues, sorted(layers), reference)
        writable = batch.attention_mask.bool().clone()
        writable[:, 0] = False
        if answer_tokens is not None:
            for row, i in enumerate(batch.indices):
                writable[row, : dialogues[i].response[0] - 1] = False
        yield Gradients(
            {layer: h.detach() for layer, h in resid.items()},
            {layer: h.grad for layer, h in resid.items() if h.grad is not None},
            writable,
            [i // per_question for i in batch.indices],
        )


@torch.no_grad()
def _reference(
    pair: ModelPair, batches: Sequence[Batch], dialogues: Sequence[TokenizedDialogue]
) -> Reference:
    """What the aligned model predicts of every answer."""
    reference = Reference(pair)
    for batch in batches:
        with pair.active("aligned") as bridge:
            hidden = predictions(bridge, batch, dialogues).hidden
        parts = hidden.split(_answer_lengths(batch, dialogues))
        reference.hidden.update(
            (i, part.clone()) for i, part in zip(batch.indices, parts, strict=True)
        )
    reference.keep_head()
    return reference


def _answer_lengths(batch: Batch, dialogues: Sequence[TokenizedDialogue]) -> list[int]:
    return [dialogues[i].response[1] - dialogues[i].response[0] for i in batch.indices]


def _differentiate(
    pair: ModelPair,
    side: Side,
    batch: Batch,
    dialogues: Sequence[TokenizedDialogue],
    layers: list[int],
    reference: Reference | None,
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
    with pair.active(side) as bridge:
        Readout.of(bridge)  # found before a hook is there to be fired
        with torch.enable_grad(), hooked(bridge, hooks):
            hidden_ND = predictions(bridge, batch, dialogues).hidden
    slope_ND = _slope_at_head(pair, side, hidden_ND, batch, dialogues, reference)
    with pair.active(side):
        hidden_ND.backward(slope_ND)
    return resid


def _slope_at_head(
    pair: ModelPair,
    side: Side,
    hidden_ND: Tensor,
    batch: Batch,
    dialogues: Sequence[TokenizedDialogue],
    reference: Reference | None,
) -> Tensor:
    """dJ/dh [N D] of what the LM head is given at the tokens that predict the answers."""
    counts = _answer_lengths(batch, dialogues)
    # Rows alternate good, bad: the gap is bad minus good. A KL counts as it is.
    signs = [1.0 if reference is not None or i % 2 else -1.0 for i in batch.indices]
    weights_N = torch.tensor(
        [sign / n for sign, n in zip(signs, counts, strict=True) for _ in range(n)]
    )
    targets_N = response_targets(batch, dialogues)
    aligned_ND = None if reference is None else reference.of(batch.indices, counts)[0]
    leaf_ND = hidden_ND.detach().requires_grad_()
    with pair.active(side) as bridge:
        readout = Readout.of(bridge)
    for part in readout.slices(len(leaf_ND)):
        aligned = None
        if reference is not None and aligned_ND is not None:
            with torch.no_grad():
                aligned = reference.log_probs(aligned_ND[part])
        with pair.active(side), torch.enable_grad():
            log_probs = readout.logits(leaf_ND[part]).log_softmax(-1)
            if aligned is None:
                targets = targets_N[part, None].to(log_probs.device)
                values = log_probs.gather(1, targets)[:, 0]
            else:
                values = kl_nats(aligned, log_probs)
            (weights_N[part].to(values.device) * values).sum().backward()
    assert leaf_ND.grad is not None
    return leaf_ND.grad
