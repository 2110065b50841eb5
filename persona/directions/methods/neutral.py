"""What a fine-tune leaves on text that has nothing to do with it: the first tokens of neutral text.

Source: Minder et al. 2025 ("Narrow Finetuning Leaves Clearly Readable Traces in Activation
Differences", the activation difference lens): first five tokens, at half depth.
"""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from persona.activations.collect import collect_at
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import SIDES, ModelPair

FIRST_TOKENS = 5


def first_tokens_difference(
    aligned: Float[Tensor, "text position layer d_model"],
    finetuned: Float[Tensor, "text position layer d_model"],
    *,
    skip_first: bool = True,
) -> Float[Tensor, "layer d_model"]:
    """mean(finetuned - aligned) over texts and positions; it points toward fine-tuned.

    In residual-stream units. The published place is half depth: row n_layers // 2.
    skip_first: leave position 0 out. Its residual is a massive activation, tens of thousands long
        against a few hundred, and would make up the mean by itself. The published method reads it;
        `skip_first=False` does so too. One position alone: pass a slice, `aligned[:, [j]]`.
    Raises: DataError when nothing is left to average or the two differ in shape.

    Source: Minder et al. 2025. differs: position 0 is left out by default.
    """
    if aligned.shape != finetuned.shape:
        raise DataError(
            "both models must have read the same tokens; got [text position layer d_model] = "
            f"{list(aligned.shape)} (aligned) and {list(finetuned.shape)} (fine-tuned)"
        )
    difference = finetuned.double() - aligned.double()
    if skip_first:
        difference = difference[:, 1:]
    if 0 in difference.shape:
        raise DataError(
            f"no tokens are left to average in {list(aligned.shape)}; read more positions, or "
            "pass skip_first=False"
        )
    return difference.mean(dim=(0, 1)).float()


def collect_first_tokens(
    pair: ModelPair,
    texts: Sequence[str],
    k: int = FIRST_TOKENS,
    layers: Sequence[int] | None = None,
) -> tuple[
    Float[Tensor, "text position layer d_model"], Float[Tensor, "text position layer d_model"]
]:
    """Residuals of the first `k` tokens of raw texts in the aligned and in the fine-tuned model.

    No chat template; special tokens that the tokenizer puts before a text count as its first.
    Only those k tokens are run. layers: default all.
    Raises: DataError for no texts, or one of fewer than k tokens.
    """
    if not texts:
        raise DataError("there are no neutral texts to read")
    if k < 1:
        raise DataError(f"at least 1 token of each text must be read; got k={k}")
    heads = []
    for place, ids in enumerate(pair.tokenizer(list(texts))["input_ids"]):
        if len(ids) < k:
            raise DataError(
                f"text {place} ({texts[place][:40]!r}) has {len(ids)} tokens; {k} are needed. "
                "Leave it out, or read fewer tokens"
            )
        heads.append(TokenizedDialogue(tuple(ids[:k]), (k, k), id=str(place)))
    read = []
    for side in SIDES:
        with pair.active(side) as bridge:
            read.append(
                collect_at(
                    bridge,
                    heads,
                    [range(k)] * len(heads),
                    layers,
                    description=f"Reading neutral text ({side})",
                )
            )
    aligned, finetuned = read
    return aligned, finetuned
