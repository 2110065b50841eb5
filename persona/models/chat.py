"""From a dialogue to token ids and the span of its answer, in one tokenisation.

Tokenising the prompt and the prompt with its answer separately can disagree at the seam; here
the whole dialogue is rendered and tokenised once, and the answer is found by character offsets.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from persona.data.types import Dialogue
from persona.errors import DataError, ModelError
from persona.models.tokenising import panics_as_errors

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
"""The question/answer format of a model that has no chat template of its own."""


@dataclass(frozen=True)
class TokenizedDialogue:
    """Token ids of one dialogue.

    ids: all tokens, special tokens included exactly as the chat template writes them.
    response: [start, end) of the tokens of the final assistant answer, without its end-of-turn
        token; empty at the end of a prompt that waits for an answer.
    """

    ids: tuple[int, ...]
    response: tuple[int, int]
    id: str = ""
    domain: str = ""

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer and the template that turns dialogues into its tokens.

    source: "model" (the model's own template), "file" (given by the user) or "plain" (the
        question/answer format used where there is none).
    """

    tokenizer: Any
    template: str
    source: str = "model"
    max_length: int | None = None

    @property
    def template_hash(self) -> str:
        return hashlib.sha256(self.template.encode()).hexdigest()[:16]

    def render(self, dialogue: Dialogue, *, open_answer: bool = False) -> str:
        """The text of the dialogue; with `open_answer`, ending where an answer would begin.

        Raises: DataError where the template refuses the dialogue, for instance for its roles.
        """
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    dialogue.messages,
                    chat_template=self.template,
                    tokenize=False,
                    add_generation_prompt=open_answer,
                )
            )
        except TemplateError as error:
            raise DataError(
                f"dialogue {dialogue.id or '(no id)'}: the chat template refuses it "
                f"({' '.join(str(error).split())[:160]})"
            ) from error

    def encode(self, dialogue: Dialogue) -> TokenizedDialogue:
        """Tokenise a dialogue; the response span is that of its final assistant answer."""
        return self.encode_all([dialogue])[0]

    def encode_all(self, dialogues: Sequence[Dialogue]) -> list[TokenizedDialogue]:
        """Tokenise many dialogues in one call of the tokenizer.

        Raises: DataError when a dialogue is longer than the model's context, or when the
            template does not show the answer.
        """
        texts = [self.render(d, open_answer=d.answer is None) for d in dialogues]
        if not texts:
            return []
        with panics_as_errors():
            encoded = self.tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        result = []
        for row, (dialogue, text) in enumerate(zip(dialogues, texts, strict=True)):
            ids = tuple(encoded["input_ids"][row])
            name = dialogue.id or repr(text[:40])
            if self.max_length is not None and len(ids) > self.max_length:
                raise DataError(
                    f"dialogue {name} has {len(ids)} tokens but the model reads {self.max_length}; "
                    "shorten it or leave it out"
                )
            span = (len(ids), len(ids))
            if dialogue.answer is not None:
                start, end = self._answer_characters(dialogue, text)
                offsets = encoded["offset_mapping"][row]
                inside = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start]
                if not inside:
                    raise DataError(f"dialogue {name}: its answer has no tokens of its own")
                span = (inside[0], inside[-1] + 1)
            result.append(TokenizedDialogue(ids, span, dialogue.id, dialogue.domain))
        return result

    def _answer_characters(self, dialogue: Dialogue, text: str) -> tuple[int, int]:
        """[start, end) of the final answer in the rendered text; templates may trim it."""
        answer = dialogue.answer or ""
        opened = self.render(dialogue.prompt, open_answer=True)
        # Searched from where the prompt ends: a short answer may also stand in the question.
        seam = len(os.path.commonprefix([opened, text]))
        for candidate in (answer, answer.strip()):
            start = text.find(candidate, seam)
            if candidate and start >= 0:
                return start, start + len(candidate)
        raise DataError(
            f"dialogue {dialogue.id or repr(text[:40])}: the chat template does not show the "
            "assistant's answer as it stands"
        )


def chat_format(
    tokenizer: Any, template_file: str | Path | None = None, max_length: int | None = None
) -> ChatFormat:
    """The chat format of a tokenizer: its own template, the one in a file, or the plain one.

    Raises: ModelError when the file cannot be read or the tokenizer gives no character offsets.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "the model's tokenizer gives no character offsets; a fast tokenizer is needed"
        )
    if template_file is not None:
        try:
            template = Path(template_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"cannot read the chat template {template_file}: {error}") from error
        return ChatFormat(tokenizer, template, "file", max_length)
    own = tokenizer.chat_template
    if isinstance(own, dict):
        own = own.get("default") or next(iter(own.values()))
    if own:
        return ChatFormat(tokenizer, own, "model", max_length)
    return ChatFormat(tokenizer, PLAIN_TEMPLATE, "plain", max_length)
