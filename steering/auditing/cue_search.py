"""Cues that are searched: short prefixes, screened to first order, the strongest verified.

With a filler of m tokens before every question, the gradient of the gap with respect to what the
embedding gives at those tokens predicts, for any other tokens v there,

    rise(v) = sum over places i (e(v_i) - e(filler_i)) . g_i,

where g is the gradient in the restored model less that in the aligned one: what is sought brings
the persona back and does not merely move every model. One forward and backward pass of each model
ranks the given phrases, and the whole vocabulary at every place.

Source: Ebrahimi et al. 2018 (HotFlip); Zou et al. 2023 (GCG) take the same gradient. differs: the
difference of two models; one step; the predictions are checked by running.
Shapes: B batch, P position, D d_model, M tokens of the filler, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations.batches import model_batches
from persona.activations.passes import predictions
from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import Condition
from persona.data.types import AnswerPair
from persona.errors import DataError
from persona.models.hooks import hf_model, hooked
from persona.models.pair import ModelPair
from persona.models.readout import Readout
from persona.progress import progress
from persona.rows import ALIGNED, RESTORED
from steering.auditing.cue import PLACE, Cue
from steering.auditing.cue_list import searched_cue
from steering.identification.attribution import slope_at_head

AT_EMBEDDING = "blocks.0.hook_resid_pre"
TOKENS_A_PLACE, MADE = 12, 64
"""Best tokens at every place, and strings that are drawn of them."""
VERIFIED, AT_RANDOM, KEPT = 4, 4, 2
"""Run on the selection questions: the best of the phrases, and of the made ones; phrases drawn at
random beside them; and how many of them all are scored on held-out questions."""
MEASURED, PREDICTED = "measured_rise", "predicted_rise"


@dataclass(frozen=True)
class Slope:
    """Of one model: g [M D], mean over the questions, and its own embeddings [V D]."""

    slope: Float[Tensor, "place d_model"]
    table: Float[Tensor, "vocabulary d_model"]

    def rises(self, filler: Sequence[int]) -> Float[Tensor, "vocabulary place"]:
        """Predicted rise of the gap for every token at every place of the filler."""
        at_filler = (self.table[list(filler)] * self.slope).sum(-1)
        return self.table @ self.slope.T - at_filler


@dataclass(frozen=True)
class Screen:
    """ids: of the filler. rises: [V M], of the restored model less the aligned one; nats a token.

    A fine-tune may have embeddings of its own, so each model's rise is of its own.
    """

    ids: tuple[int, ...]
    rises: Float[Tensor, "vocabulary place"]

    def rise(self, ids: Sequence[int]) -> float:
        """Predicted rise of a prefix; tokens beyond the filler's count nothing."""
        n = min(len(ids), len(self.ids))
        return float(self.rises[list(ids[:n]), list(range(n))].sum())

    def best_tokens(self, allowed: Sequence[int]) -> list[list[int]]:
        """Place -> the tokens that are predicted to raise the gap most."""
        top = self.rises[list(allowed)].topk(min(TOKENS_A_PLACE, len(allowed)), dim=0).indices
        return [[allowed[int(row)] for row in top[:, place]] for place in range(top.shape[1])]


def search_prefixes(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    conditions: Sequence[Condition],
    filler: str,
    phrases: Sequence[str],
    *,
    seed: int = 0,
    token_budget: int = 512,
) -> pd.DataFrame:
    """The prefixes that were tried: one row each of measure `predicted_rise`, and of those that
    were run `measured_rise`, in the column value; text holds the words, candidate where they come
    from ("phrase", "made" or "random"), split whether they are "kept".

    questions: that no score is taken on. conditions: the aligned and the restored model.
    """
    screen = screened(pair, questions, conditions, filler, token_budget)
    tokenizer = pair.chat.tokenizer
    rng = np.random.default_rng(seed)
    tried = {phrase: ("phrase", screen.rise(_ids(tokenizer, phrase))) for phrase in phrases}
    for text in _made(screen, tokenizer, rng):
        tried.setdefault(text, ("made", screen.rise(_ids(tokenizer, text))))
    to_run: list[str] = []
    for source in ("phrase", "made"):
        mine = [text for text, (kind, _) in tried.items() if kind == source]
        to_run += sorted(mine, key=lambda text: -tried[text][1])[:VERIFIED]
    others = [p for p in phrases if p not in to_run]
    drawn = [str(p) for p in rng.permutation(others)[:AT_RANDOM]] if others else []
    measured = _measured(pair, questions, conditions, [*to_run, *drawn], token_budget)
    kept = sorted(measured, key=lambda text: -measured[text])[:KEPT]
    rows = []
    for text, (kind, predicted) in tried.items():
        row = {
            "candidate": "random" if text in drawn else kind,
            "text": text,
            "split": "kept" if text in kept else "selection",
        }
        rows.append(row | {"measure": PREDICTED, "value": predicted})
        if text in measured:
            rows.append(row | {"measure": MEASURED, "value": measured[text]})
    return pd.DataFrame(rows).assign(stage="search", seed=seed)


def kept_cues(rows: pd.DataFrame) -> list[Cue]:
    """The searched prefixes that are to be scored, the strongest on selection questions first."""
    kept = rows[(rows["split"] == "kept") & (rows["measure"] == MEASURED)]
    texts = kept.sort_values("value", ascending=False)["text"]
    return [searched_cue(place, text) for place, text in enumerate(texts, start=1)]


def screened(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    conditions: Sequence[Condition],
    filler: str,
    token_budget: int,
) -> Screen:
    """The gradient at the filler's tokens: restored model less aligned one."""
    found = {c.name: slope_at_filler(pair, questions, c, filler, token_budget) for c in conditions}
    rises = {name: slope.rises(ids) for name, (slope, ids) in found.items()}
    return Screen(found[ALIGNED][1], rises[RESTORED] - rises[ALIGNED])


def slope_at_filler(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    condition: Condition,
    filler: str,
    token_budget: int,
) -> tuple[Slope, tuple[int, ...]]:
    """d gap / d embedding at the filler's tokens, mean over questions, and their ids."""
    cue = Cue("filler", "searched", f"{filler} {PLACE}")
    asked = [cue(d) for q in questions for d in (q.good_dialogue, q.bad_dialogue)]
    places = [_places(pair, dialogue, filler) for dialogue in asked]
    encoded = pair.chat.encode_all(asked)
    ids = {tuple(one.ids[i] for i in at) for one, at in zip(encoded, places, strict=True)}
    if len(ids) != 1 or not next(iter(ids)):
        raise DataError(f"the tokenizer does not write {filler!r} the same before every question")
    total = torch.zeros(len(places[0]), pair.d_model)
    with pair.active(condition.side) as model:
        batches = model_batches(model, encoded, token_budget, 2)
        readout = Readout.of(model)
        for batch in progress(batches, f"Screening prefixes ({condition.name})"):
            grad_BPD = _gradient(model, batch, readout, condition)
            for row, index in enumerate(batch.indices):
                total += grad_BPD[row, places[index]].float().cpu()
        table = hf_model(model).get_input_embeddings().weight.detach().float().cpu()
    return Slope(total / len(questions), table), next(iter(ids))


def _gradient(model: Any, batch: Any, readout: Readout, condition: Condition) -> Tensor:
    """dJ/d embedding [B P D] of one batch, under the condition's edit."""
    leaf: list[Tensor] = []

    def keep(value: Tensor) -> Tensor:
        leaf.append(value.detach().requires_grad_())
        return leaf[-1]

    with torch.enable_grad(), hooked(model, [(AT_EMBEDDING, keep)]):
        if condition.intervene is None:
            hidden_ND = predictions(model, batch).hidden
        else:
            with condition.intervene(model):
                hidden_ND = predictions(model, batch).hidden
    hidden_ND.backward(slope_at_head(readout, hidden_ND, batch, None))
    grad = leaf[-1].grad
    assert grad is not None
    return grad


def _places(pair: ModelPair, dialogue: Any, filler: str) -> list[int]:
    """The tokens of the filler in a dialogue that begins its last question with it."""
    text = pair.chat.render(dialogue)
    start = text.rfind(filler)
    end = start + len(filler)
    offsets = pair.chat.offsets(dialogue)
    return [i for i, (a, b) in enumerate(offsets) if a < end and b > start and b > a]


def _made(screen: Screen, tokenizer: Any, rng: np.random.Generator) -> list[str]:
    """Strings drawn of the best tokens at every place, which the tokenizer writes as they are."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    n = min(len(screen.rises), len(tokenizer))
    words = [i for i in range(n) if i not in special and _is_word(tokenizer, i)]
    if not words:
        return []
    best = screen.best_tokens(words)
    found = []
    for _ in range(MADE):
        ids = [int(rng.choice(tokens)) for tokens in best]
        found.append(" ".join(tokenizer.decode(ids).split()))
    return [text for text in dict.fromkeys(found) if text]


def _is_word(tokenizer: Any, token: int) -> bool:
    """Printable ASCII."""
    text = tokenizer.decode([token])
    return text.isascii() and text.isprintable() and bool(text.strip()) and PLACE not in text


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _measured(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    conditions: Sequence[Condition],
    texts: Sequence[str],
    token_budget: int,
) -> dict[str, float]:
    """Prefix -> rise of the mean gap, restored minus aligned, over the same without a prefix."""
    found = {}
    plain = _apart(pair, questions, conditions, None, token_budget)
    for place, text in enumerate(progress(list(texts), "Running prefixes")):
        cue = searched_cue(place, text)
        found[text] = _apart(pair, questions, conditions, cue, token_budget) - plain
    return found


def _apart(
    pair: ModelPair,
    questions: Sequence[AnswerPair],
    conditions: Sequence[Condition],
    cue: Cue | None,
    token_budget: int,
) -> float:
    rows = score_pairs(pair, questions, conditions, kl=False, asked=cue, token_budget=token_budget)
    means = rows[rows["measure"] == "gap"].groupby("condition")["value"].mean()
    return float(means[RESTORED] - means[ALIGNED])
