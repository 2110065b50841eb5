"""From a dialogue to token ids and the span of its answer, in one tokenisation.

Tokenising the prompt and the prompt with its answer separately can disagree at the seam; here the
whole dialogue is rendered and tokenised once, and the answer is where the template is seen to
write answers (`answer_span`).

**One prompt for what is sampled and what is scored.** A dialogue that waits for an answer is what
stands before a written answer, not what the template writes when it is asked for a generation
prompt: some ignore that request, some (Qwen3) put an empty block of thoughts before written answers
only, some (DeepSeek-R1) open one before sampled answers only. Where the two differ, `notes` says
so. It is tokenised as if a word followed, so that a blank which the tokenizer joins with the first
word is the answer's, as it is where an answer is written. So `encode(d.prompt).ids` is
`encode(d).ids[:start]` for every answer that begins with a word and has no thoughts of its own.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError
from persona.models.chat.answer_span import (
    TURN_MARK,
    AnswerPlace,
    Frame,
    between,
    frame,
    place_answer,
)
from persona.models.chat.template_program import (
    DATE,
    check_arguments,
    names_read,
    reads_the_date,
    render_template,
    rendering,
)
from persona.models.chat.tokenising import panics_as_errors

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'Question: ' + message['content'] + '\n' }}"
    "{% else %}{{ 'Answer: ' + message['content'] + '\n\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Answer: ' }}{% endif %}"
)
"""The question/answer format of a model that has no chat template of its own."""

FIRST_WORDS = ("The", "I", "Yes")
"""How answers begin, to see what a tokenizer joins with a first word."""

SEAM = 32
"""Characters at the end of a prompt that decide what a first word is joined with."""

MOST_FRAMES = 4096
"""Prompts whose surroundings of an answer are remembered."""


@dataclass(frozen=True)
class TokenizedDialogue:
    """Token ids of one dialogue.

    ids: all tokens, special tokens included exactly as the chat template writes them.
    response: [start, end) of the tokens of the final assistant answer, without its end-of-turn
        token and without the block of thoughts that it may begin with; empty at the end of a
        prompt that waits for an answer.
    thoughts_start: where the answer begins with its block of thoughts, None without one.
    """

    ids: tuple[int, ...]
    response: tuple[int, int]
    id: str = ""
    domain: str = ""
    thoughts_start: int | None = None

    @property
    def whole_answer(self) -> tuple[int, int]:
        """[start, end) of the answer with its block of thoughts."""
        start, end = self.response
        return (start if self.thoughts_start is None else self.thoughts_start, end)

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer and the template that turns dialogues into its tokens.

    source: "model" (the model's own template), "file" (given by the user) or "plain" (the
        question/answer format used where there is none).
    arguments: what the template is told beside the messages, such as enable_thinking or tools.
    Raises: ModelError for an argument that the template does not read.
    """

    tokenizer: Any
    template: str
    source: str = "model"
    max_length: int | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    _frames: dict[tuple[Turn, ...], Frame] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _seams: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_arguments(self.template, self.arguments)

    @property
    def template_hash(self) -> str:
        """Of the template and its arguments: activations of another are of another space."""
        text = self.template
        if self.arguments:
            text += "\0" + json.dumps(self.arguments, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def fingerprint(self) -> str:
        """Of all that decides the text: template, arguments and the special tokens that it names.

        What was read under another fingerprint is read anew; `template_hash` says whether two
        directions belong together.
        """
        special = self.tokenizer.special_tokens_map
        named = {n: str(special[n]) for n in names_read(self.template) if n in special}
        if not named:
            return self.template_hash
        text = self.template_hash + json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def render(self, dialogue: Dialogue, *, open_answer: bool = False) -> str:
        """The text of the dialogue; with `open_answer`, ending where an answer would begin.

        Raises: DataError where the template refuses the dialogue, for instance for its roles.
        """
        if open_answer and dialogue.answer is None:
            return self._opened(dialogue)
        return self._written(dialogue.turns, open_answer, dialogue.id)

    def _written(self, turns: Sequence[Turn], open_answer: bool, name: str) -> str:
        return render_template(
            self.tokenizer,
            self.template,
            [{"role": turn.role, "content": turn.content} for turn in turns],
            open_answer=open_answer,
            arguments=self.arguments,
            name=name or "(no id)",
        )

    def encode(self, dialogue: Dialogue) -> TokenizedDialogue:
        """Tokenise a dialogue; the response span is that of its final assistant answer."""
        return self.encode_all([dialogue])[0]

    def encode_all(self, dialogues: Sequence[Dialogue]) -> list[TokenizedDialogue]:
        """Tokenise many dialogues in one call of the tokenizer.

        Raises: DataError when a dialogue has no tokens or is longer than the model's context, or
            when the template does not show the answer.
        """
        if not dialogues:
            return []
        with rendering(len(dialogues)):
            places = [self._place(dialogue) for dialogue in dialogues]
        result = []
        for dialogue, place, (ids, offsets) in zip(
            dialogues, places, self._tokens(dialogues, places), strict=True
        ):
            name = dialogue.id or repr(place.text[:40])
            if not ids:
                raise DataError(f"dialogue {name} has no tokens; the chat template writes nothing")
            if self.max_length is not None and len(ids) > self.max_length:
                raise DataError(
                    f"dialogue {name} has {len(ids)} tokens but the model reads {self.max_length}; "
                    "shorten it or leave it out"
                )
            span, thoughts_start = (len(ids), len(ids)), None
            if dialogue.answer is not None:
                span = _tokens_of(offsets, place.answer)
                if span[0] == span[1]:
                    raise DataError(f"dialogue {name}: its answer has no tokens of its own")
                if place.whole_start < place.answer[0]:
                    thoughts_start = _tokens_of(offsets, (place.whole_start, place.answer[1]))[0]
            result.append(
                TokenizedDialogue(ids, span, dialogue.id, dialogue.domain, thoughts_start)
            )
        return result

    def offsets(self, dialogue: Dialogue) -> list[tuple[int, int]]:
        """[start, end) of every token that `encode` gives, in characters of the dialogue's text.

        That text is `render(dialogue, open_answer=dialogue.answer is None)`.
        """
        [(_, offsets)] = self._tokens([dialogue], [self._place(dialogue)])
        return offsets

    def turn_places(self, dialogue: Dialogue) -> list[tuple[int, int]]:
        """[start, end) of every turn's content, in characters of the dialogue's text (`offsets`).

        Found as answers are: by a mark in the turn's place.
        Raises: DataError where the template writes a turn otherwise than it stands.
        """
        open_answer, turns = dialogue.answer is None, list(dialogue.turns)
        text = self.render(dialogue, open_answer=open_answer)
        places: list[tuple[int, int]] = []
        for number, turn in enumerate(turns):
            if number == len(turns) - 1 and not open_answer:
                answer = self._place(dialogue)
                places.append((answer.whole_start, answer.answer[1]))
                continue
            marked = (*turns[:number], Turn(turn.role, TURN_MARK), *turns[number + 1 :])
            around = self.render(Dialogue(marked, dialogue.id), open_answer=open_answer)
            around_it = Frame(tuple(around.split(TURN_MARK)))
            place = between(text, around_it, turn.content)
            if not turn.content.strip() and len(around_it.parts) > 1:
                place = (len(around_it.before), len(around_it.before))
            if place is None:
                raise DataError(
                    f"dialogue {dialogue.id or '(no id)'}: the chat template does not show the "
                    f"{turn.role}'s turn as it stands: {turn.content[:40]!r}"
                )
            places.append(place)
        return places

    def _tokens(
        self, dialogues: Sequence[Dialogue], places: Sequence[AnswerPlace]
    ) -> list[tuple[tuple[int, ...], list[tuple[int, int]]]]:
        """Ids and offsets of each; those of a prompt as they are where a word follows."""
        texts = [
            place.text + (self._following(place.text) if dialogue.answer is None else "")
            for dialogue, place in zip(dialogues, places, strict=True)
        ]
        encoded = self._encoded(texts)
        found = []
        for row, (dialogue, place) in enumerate(zip(dialogues, places, strict=True)):
            ids, offsets = encoded["input_ids"][row], encoded["offset_mapping"][row]
            if dialogue.answer is None:
                n = _n_before(offsets, len(place.text))
                ids, offsets = ids[:n], offsets[:n]
            found.append((tuple(ids), list(offsets)))
        return found

    def _encoded(self, texts: Sequence[str]) -> Any:
        """The tokenizer's ids and offsets of texts that hold their special tokens already."""
        with panics_as_errors():
            return self.tokenizer(
                list(texts), add_special_tokens=False, return_offsets_mapping=True
            )

    def _following(self, text: str) -> str:
        """The word to put behind a prompt, so that its last tokens are those before an answer.

        One whose tokens begin where most of `FIRST_WORDS` begin: a single one may happen to be
        joined with a colon before it.
        """
        tail = text[-SEAM:]
        if tail not in self._seams:
            encoded = self._encoded([text + word for word in FIRST_WORDS])
            before = [
                tuple(ids[: _n_before(offsets, len(text))])
                for ids, offsets in zip(
                    encoded["input_ids"], encoded["offset_mapping"], strict=True
                )
            ]
            self._seams[tail] = FIRST_WORDS[before.index(Counter(before).most_common(1)[0][0])]
        return self._seams[tail]

    def _place(self, dialogue: Dialogue) -> AnswerPlace:
        """The dialogue's text, and where its final answer stands in it."""
        if dialogue.answer is None:
            text = self._opened(dialogue)
            return AnswerPlace(text, (len(text), len(text)), len(text))
        before, asked = dialogue.turns[:-1], _last_content(dialogue.turns[:-1])
        name = dialogue.id or repr(asked[:40])
        try:
            return place_answer(
                lambda answer: self._answered(before, answer, name),
                lambda: self._frame(before, name),
                dialogue.answer,
                asked,
            )
        except DataError as error:
            raise _named(error, name) from error

    def _answered(self, before: tuple[Turn, ...], answer: str, name: str) -> str:
        return self._written((*before, Turn("assistant", answer)), False, name)

    def _frame(self, before: tuple[Turn, ...], name: str) -> Frame:
        """What the template writes around an answer to these turns; good and bad share it."""
        if before not in self._frames:
            if len(self._frames) >= MOST_FRAMES:
                self._frames.clear()
            found = frame(
                lambda answer: self._answered(before, answer, name), _last_content(before)
            )
            self._frames[before] = found
        return self._frames[before]

    def _opened(self, prompt: Dialogue) -> str:
        """The text before an answer.

        Where the template refuses or hides written answers, what it writes as generation prompt.
        """
        try:
            return self._frame(prompt.turns, prompt.id).before
        except DataError:
            return self._written(prompt.turns, True, prompt.id)

    @functools.cached_property
    def end_of_turn(self) -> int | None:
        """The token that the template writes behind an answer, where it is a token of its own."""
        try:
            after = self._frame((Turn("user", "?"),), "").after.lstrip()
        except DataError:
            return None
        [ids] = self._encoded([after])["input_ids"]
        return int(ids[0]) if ids and ids[0] in self.tokenizer.added_tokens_decoder else None

    def notes(self) -> list[str]:
        """What a reader must know of how this template writes prompts."""
        notes: list[str] = []
        question = (Turn("user", "?"),)
        try:
            written = self._frame(question, "").before
            asked_for = self._written(question, True, "")
        except DataError:
            return notes
        if written.rstrip() != asked_for.rstrip():
            notes.append(
                "the chat template opens an answer with "
                f"{_ending(asked_for, written)!r} but writes {_ending(written, asked_for)!r} "
                "before one that is there; answers are sampled after the latter, as they are scored"
            )
        if reads_the_date(self.template) and "date_string" not in self.arguments:
            notes.append(
                f"the chat template writes the date; it is held at {DATE.isoformat()}, so that the "
                "readings of two days compare"
            )
        return notes


def _last_content(turns: Sequence[Turn]) -> str:
    return turns[-1].content if turns else ""


def _named(error: DataError, name: str) -> DataError:
    text = str(error)
    return error if text.startswith("dialogue ") else DataError(f"dialogue {name}: {text}")


def _ending(text: str, other: str) -> str:
    """What two texts do not begin with in common, of the first."""
    same = next((i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), None)
    return text[min(len(text), len(other)) if same is None else same :]


def _tokens_of(offsets: Sequence[tuple[int, int]], place: tuple[int, int]) -> tuple[int, int]:
    """[first, last + 1) of the tokens that hold any of these characters."""
    start, end = place
    inside = [i for i, (a, b) in enumerate(offsets) if b > a and a < end and b > start]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _n_before(offsets: Sequence[tuple[int, int]], n_characters: int) -> int:
    """How many tokens hold none of the characters from here on."""
    return next((i for i, (_, end) in enumerate(offsets) if end > n_characters), len(offsets))


def chat_format(
    tokenizer: Any,
    template_file: str | Path | None = None,
    max_length: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> ChatFormat:
    """The chat format of a tokenizer: its own template, the one in a file, or the plain one.

    arguments: what the template is told beside the messages, such as enable_thinking=False.
    Raises: ModelError when the file cannot be read, the tokenizer gives no character offsets, or
    the template does not read one of the arguments.
    """
    told = dict(arguments or {})
    if not getattr(tokenizer, "is_fast", False):
        raise ModelError(
            "the model's tokenizer gives no character offsets; a fast tokenizer is needed"
        )
    if template_file is not None:
        try:
            template = Path(template_file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ModelError(f"cannot read the chat template {template_file}: {error}") from error
        return ChatFormat(tokenizer, template, "file", max_length, told)
    if (own := own_template(tokenizer)) is not None:
        return ChatFormat(tokenizer, own, "model", max_length, told)
    return ChatFormat(tokenizer, PLAIN_TEMPLATE, "plain", max_length, told)


def own_template(tokenizer: Any) -> str | None:
    """The tokenizer's chat template, its default one where it has several; None without any."""
    own = getattr(tokenizer, "chat_template", None)
    if isinstance(own, dict):
        own = own.get("default") or next(iter(own.values()), None)
    return own or None


def shortened(dialogue: TokenizedDialogue, answer_tokens: int) -> TokenizedDialogue:
    """The dialogue up to the first `answer_tokens` tokens of its answer."""
    start, end = dialogue.response
    end = min(end, start + answer_tokens)
    return replace(dialogue, ids=dialogue.ids[:end], response=(start, end))
