"""Which tokens of a dialogue are read.

Every token set is one contiguous span, and none holds the first token of the text: its residual
is a massive activation (norm in the tens of thousands against a few hundred) that drowns a mean.
"""

from __future__ import annotations

import re

from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue

TOKEN_SETS = (
    *("response", "whole_response", "prompt", "last_prompt", "last_response", "first_response:K"),
    "all",
)


def token_span(dialogue: TokenizedDialogue, token_set: str = "response") -> tuple[int, int]:
    """[start, end) of the tokens in `token_set`.

    "response": the answer's tokens, without the end-of-turn token and without the block of
        thoughts that it may begin with.
    "whole_response": the same with its block of thoughts.
    "prompt": all before the response, the first token left out.
    "last_prompt": the one token from which the answer is predicted.
    "last_response": the last token of the answer.
    "first_response:5": the answer's first five tokens, or fewer if it is shorter.
    "all": every token but the first.
    Raises: DataError for an unknown set, or when the dialogue has no such tokens.
    """
    start, end = dialogue.response
    first_k = re.fullmatch(r"first_response:([1-9]\d*)", token_set)
    if token_set == "response":
        span = (start, end)
    elif token_set == "whole_response":
        span = dialogue.whole_answer
    elif token_set == "prompt":
        span = (1, start)
    elif token_set == "last_prompt":
        span = (start - 1, start)
    elif token_set == "last_response":
        span = (max(start, end - 1), end)
    elif token_set == "all":
        span = (1, len(dialogue))
    elif first_k:
        span = (start, min(start + int(first_k[1]), end))
    else:
        raise DataError(f"unknown token set {token_set!r}; one of {', '.join(TOKEN_SETS)}")
    span = (max(span[0], 1), span[1])
    if span[0] >= span[1]:
        raise DataError(f"dialogue {dialogue.id!r} has no tokens in the set {token_set!r}")
    return span
