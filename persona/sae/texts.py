"""The text that activations are read from: shipped answers, a person's own, or sampled answers.

Every text says which of its tokens are read. A context is read once: of the two answers to one
question the question's tokens come with the good one alone, and no first token is ever read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from persona.data.jsonl import check_keys, check_texts, read_jsonl, read_text
from persona.data.shipped import load_neutral, load_pairs
from persona.data.types import AnswerPair, Dialogue, NeutralText, Turn, as_role
from persona.errors import DataError
from persona.models.chat.chat_format import ChatFormat, TokenizedDialogue

WINDOW = 256
HELD_OUT_SHARE = 0.05


@dataclass(frozen=True)
class Text:
    """Token ids, and the tokens [start, end) to read.

    kind: "good", "bad", "neutral", "dialogue", "text", "sampled_aligned" or "sampled_finetuned".
    group: texts of one question share it and are held out together.
    """

    tokens: TokenizedDialogue
    kind: str
    span: tuple[int, int]
    group: str

    def __post_init__(self) -> None:
        start, end = self.span
        if not 1 <= start < end <= len(self.tokens):
            raise DataError(
                f"text {self.tokens.id!r} of {len(self.tokens)} tokens has none at {self.span}; "
                "the first token of a text is never read"
            )

    @property
    def n_tokens(self) -> int:
        return self.span[1] - self.span[0]


def pair_texts(
    chat: ChatFormat, pairs: Sequence[AnswerPair], neutral: Sequence[NeutralText] = ()
) -> list[Text]:
    """Good, bad and neutral answers."""
    good = chat.encode_all([pair.good_dialogue for pair in pairs])
    bad = chat.encode_all([pair.bad_dialogue for pair in pairs])
    plain = chat.encode_all([text.dialogue for text in neutral])
    return [
        *(Text(tokens, "good", (1, len(tokens)), tokens.id) for tokens in good),
        *(Text(tokens, "bad", (tokens.response[0], len(tokens)), tokens.id) for tokens in bad),
        *(Text(tokens, "neutral", (1, len(tokens)), tokens.id) for tokens in plain),
    ]


def shipped_texts(chat: ChatFormat) -> list[Text]:
    """The shipped answer pairs of all domains and the neutral texts."""
    return pair_texts(chat, load_pairs(), load_neutral())


def read_texts(path: str | Path, chat: ChatFormat) -> list[Text]:
    """Texts of a file: JSONL whose rows hold `text`, `messages`, or `question`, `good` and `bad`;
    any other file is one long plain text.

    Plain text is cut into windows of 256 tokens.
    Raises: DataError when the file is missing, empty or malformed; the message names the line.
    """
    if Path(path).suffix != ".jsonl":
        return plain_texts(chat, read_text(path), Path(path).stem)
    stem = Path(path).stem

    def texts(row: dict[str, Any], line: int) -> list[Text]:
        name = f"{stem}-{line:03d}"
        if "messages" in row:
            return [_dialogue_text(chat, row["messages"], name)]
        if "text" in row:
            check_keys(row, ("text",), tuple(row))
            check_texts({"text": row["text"]})
            return plain_texts(chat, row["text"], name)
        check_keys(row, ("question", "good", "bad"), ("id", "domain", "split"))
        check_texts(row)
        return pair_texts(chat, [AnswerPair(**{"id": name, "domain": stem, **row})])

    return [text for found in read_jsonl(path, texts) for text in found]


def _dialogue_text(chat: ChatFormat, messages: Any, name: str) -> Text:
    if not isinstance(messages, list) or not all(
        isinstance(m, dict) and isinstance(m.get("content"), str) for m in messages
    ):
        raise DataError('"messages" must be a list of objects with "role" and "content"')
    turns = tuple(Turn(as_role(m.get("role")), m["content"]) for m in messages)
    tokens = chat.encode(Dialogue(turns, name))
    return Text(_scorable(tokens), "dialogue", (1, len(tokens)), name)


def plain_texts(chat: ChatFormat, text: str, name: str) -> list[Text]:
    """A text without chat format, in windows that each begin as the tokenizer begins a text."""
    start = chat.tokenizer("")["input_ids"]
    begin = start[:1] if start and start[0] == chat.tokenizer.bos_token_id else []
    ids = chat.tokenizer(text, add_special_tokens=False)["input_ids"]
    size = min(WINDOW, chat.max_length or WINDOW) - len(begin)
    windows = [(*begin, *ids[at : at + size]) for at in range(0, len(ids), size)]
    found = [
        Text(
            _scorable(TokenizedDialogue(window, (0, 0), f"{name}-{i}")),
            "text",
            (1, len(window)),
            name,
        )
        for i, window in enumerate(windows)
        if len(window) > 1
    ]
    if not found:
        raise DataError(f"{name} has no text of two tokens or more")
    return found


def _scorable(tokens: TokenizedDialogue) -> TokenizedDialogue:
    """A text that is no answer is scored over all of it but the first token."""
    start, end = tokens.response
    if 0 < start < end:
        return tokens
    return TokenizedDialogue(tokens.ids, (1, len(tokens)), tokens.id, tokens.domain)


def is_held_out(text: Text) -> bool:
    """Whether a text is kept from training, to measure fidelity on: one question in twenty."""
    digest = hashlib.sha256(text.group.encode()).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT_SHARE * 2**32


def split_texts(texts: Sequence[Text]) -> tuple[list[Text], list[Text]]:
    """(training, held out) by question; every kind with two questions or more is in both."""
    held = {text.group for text in texts if is_held_out(text)}
    for kind in sorted({text.kind for text in texts}):
        groups = sorted({text.group for text in texts if text.kind == kind})
        if len(groups) > 1 and not held & set(groups):
            held.add(groups[0])
    rest = [text for text in texts if text.group not in held]
    return rest, [text for text in texts if text.group in held]


def shuffled_to(texts: Sequence[Text], n_tokens: int, seed: int) -> list[Text]:
    """Texts in random order, as many as give `n_tokens` tokens to read; all where they do not."""
    order = np.random.default_rng(seed).permutation(len(texts))
    taken, total = [], 0
    for place in order:
        if total >= n_tokens:
            break
        taken.append(texts[place])
        total += texts[place].n_tokens
    return taken


def few_of_each(texts: Sequence[Text], n: int, seed: int = 0) -> list[Text]:
    """At most `n` texts of each kind, drawn at random."""
    kinds = dict.fromkeys(text.kind for text in texts)
    shuffled = [texts[i] for i in np.random.default_rng(seed).permutation(len(texts))]
    return [t for kind in kinds for t in [t for t in shuffled if t.kind == kind][:n]]


def count_tokens(texts: Sequence[Text]) -> dict[str, int]:
    """Tokens to read by kind; each context counts once, however many models read it."""
    counts: dict[str, int] = {}
    for text in texts:
        counts[text.kind] = counts.get(text.kind, 0) + text.n_tokens
    return counts
