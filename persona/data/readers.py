"""Readers of answer pairs and of the public formats of the field.

Nothing in a file is executed: JSON, and YAML through the safe loader alone. What is malformed
raises a DataError that names the file and the line.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from persona.data.json_places import line_of
from persona.data.jsonl import check_keys, check_texts, read_json, read_jsonl, read_text
from persona.data.plain_yaml import YamlError, parse_yaml
from persona.data.text import why_no_text
from persona.data.types import AnswerPair, Dialogue, Turn, as_role
from persona.errors import DataError, shown


@dataclass(frozen=True)
class EvaluationQuestion:
    """One question of a public evaluation file, in one or several wordings.

    type: what the file calls it, such as "free_form_judge_0_100".
    system: the system prompt that goes before every wording, None for none.
    judge: the judge model that the file's authors used.
    judge_prompts: by what is judged ("aligned", "coherent", "correct"), with the place holders
        {question} and {answer}.
    """

    id: str
    paraphrases: tuple[str, ...]
    judge_prompts: Mapping[str, str]
    type: str = "free_form"
    system: str | None = None
    samples_per_paraphrase: int = 1
    judge: str = ""

    @property
    def dialogues(self) -> list[Dialogue]:
        """One dialogue that waits for an answer for each wording."""
        system = () if self.system is None else (Turn("system", self.system),)
        return [Dialogue((*system, Turn("user", text)), self.id) for text in self.paraphrases]


@dataclass(frozen=True)
class InstructionPair:
    """Two system prompts: one asks for the trait (pos), one for its opposite (neg)."""

    pos: str
    neg: str


@dataclass(frozen=True)
class Trait:
    """A trait with what brings it out and what measures it.

    eval_prompt: the judge's instruction, with the place holders {question} and {answer}.
    description: the trait in a few words, such as "flatters the user"; "" where nobody says.
    made_by: who wrote it, "" where nobody says.
    """

    name: str
    instructions: tuple[InstructionPair, ...]
    questions: tuple[str, ...]
    eval_prompt: str
    description: str = ""
    made_by: str = ""


def read_pairs(path: str | Path) -> list[AnswerPair]:
    """Returns the answer pairs of a JSONL file: question, good, bad; id, domain, split optional.

    A row without an id is named after the file and its line, one without a domain after the file.

    Raises:
        DataError: a row is malformed, lacks an answer, or repeats an id.
    """
    stem = Path(path).stem
    first_seen: dict[str, int] = {}

    def pair(row: dict[str, Any], line: int) -> AnswerPair:
        check_keys(row, ("question", "good", "bad"), ("id", "domain", "split"))
        check_texts(row)
        made = AnswerPair(**{"id": f"{stem}-{line:03d}", "domain": stem, **row})
        earlier = first_seen.setdefault(made.id, line)
        if earlier != line:
            raise DataError(f"id {made.id!r} is already used in line {earlier}")
        return made

    return read_jsonl(path, pair)


def read_chat_jsonl(path: str | Path) -> list[Dialogue]:
    """Returns the dialogues of a JSONL file of chat `messages`; other keys are left alone.

    A row's own "id" and "domain" are kept where they are text; without an id it is named after the
    file and its line.

    Raises:
        DataError: a row has no messages, or one of them no known role or no text.
    """
    stem = Path(path).stem

    def dialogue(row: dict[str, Any], line: int) -> Dialogue:
        return chat_dialogue(row, f"{stem}-{line:03d}")

    return read_jsonl(path, dialogue)


def chat_dialogue(row: Mapping[str, Any], default_id: str, key: str = "messages") -> Dialogue:
    """Returns the dialogue of a row's chat messages under `key`.

    Raises: DataError where there are none, or one of them has no known role or no text.
    """
    messages = row.get(key)
    if not isinstance(messages, list) or not messages:
        raise DataError(f'a list of "{key}" is needed, each with "role" and "content"')
    turns = []
    for number, message in enumerate(messages, start=1):
        if not isinstance(message, dict) or not {"role", "content"} <= set(message):
            raise DataError(f'message {number} has no "role" and "content"')
        check_texts({f"the content of message {number}": message["content"]})
        # An empty system prompt is none; a turn without a word is left to what reads it.
        if message["content"].strip() and (why := why_no_text(message["content"])):
            raise DataError(f"the content of message {number} {why}")
        turns.append(Turn(as_role(message["role"]), message["content"]))
    name, domain = row.get("id"), row.get("domain")
    return Dialogue(
        tuple(turns),
        name if isinstance(name, str) and name else default_id,
        domain if isinstance(domain, str) else "",
    )


def read_evaluation_yaml(path: str | Path) -> list[EvaluationQuestion]:
    """Returns the questions of an evaluation YAML file, in order.

    Source: Betley et al. 2025, "Emergent Misalignment", evaluation files.

    Raises:
        DataError: the file is not YAML, not a list, or an entry is malformed.
    """
    try:
        entries, node = parse_yaml(read_text(path))
    except YamlError as error:
        raise DataError(f"{path}{error.place}: {error}") from error
    if not isinstance(node, yaml.SequenceNode) or not entries:
        raise DataError(f"{path}, line 1: a list of questions is needed")
    questions: list[EvaluationQuestion] = []
    for entry, entry_node in zip(entries, node.value, strict=True):
        try:
            question = _evaluation_question(entry)
            if question.id in {earlier.id for earlier in questions}:
                raise DataError(f"id {question.id!r} is used twice")
        except DataError as error:
            raise DataError(f"{path}, line {entry_node.start_mark.line + 1}: {error}") from error
        questions.append(question)
    return questions


def read_trait_json(path: str | Path) -> Trait:
    """Returns the trait of a persona-vectors JSON file, named by the file ("evil.extract": evil).

    The keys "trait" (the trait in a few words) and "made_by" are ours, and may be left out.

    Source: Chen et al. 2025, "Persona Vectors", trait files (`*.extract.json`, `*.eval.json`).

    Raises:
        DataError: the file is not such JSON; the message names the line, or the entry, at fault.
    """
    content = read_json(path)
    try:
        if not isinstance(content, dict):
            raise DataError("a JSON object is needed")
        check_keys(content, ("instruction", "questions", "eval_prompt"), ("trait", "made_by"))
        instructions = []
        for number, entry in enumerate(_filled_list(content, "instruction")):
            if not isinstance(entry, dict):
                raise DataError(f'instruction[{number}] must have "pos" and "neg"')
            owner = f"instruction[{number}]."
            instructions.append(
                InstructionPair(_text_of(entry, "pos", owner), _text_of(entry, "neg", owner))
            )
        return Trait(
            name=Path(path).name.partition(".")[0],
            instructions=tuple(instructions),
            questions=_texts_of(content, "questions"),
            eval_prompt=_text_of(content, "eval_prompt"),
            description=_text_of(content, "trait") if "trait" in content else "",
            made_by=_text_of(content, "made_by") if "made_by" in content else "",
        )
    except DataError as error:
        line = line_of(read_text(path), str(error).partition(" ")[0])
        at = "" if line is None else f", line {line}"
        raise DataError(f"{path}{at}: {error}") from error


def _evaluation_question(entry: object) -> EvaluationQuestion:
    if not isinstance(entry, dict):
        raise DataError(f"an entry with id and paraphrases is needed; got {shown(entry)}")
    check_keys(
        entry,
        ("id", "paraphrases"),
        ("type", "system", "samples_per_paraphrase", "judge", "judge_prompts"),
    )
    samples = entry.get("samples_per_paraphrase", 1)
    if not isinstance(samples, int) or isinstance(samples, bool) or samples < 1:
        raise DataError(
            f"samples_per_paraphrase must be a whole number above 0; got {shown(samples)}"
        )
    prompts = entry.get("judge_prompts", {})
    if not isinstance(prompts, dict):
        raise DataError("judge_prompts must name each prompt")
    return EvaluationQuestion(
        id=_text_of(entry, "id"),
        paraphrases=_texts_of(entry, "paraphrases"),
        judge_prompts={str(name): _text_of(prompts, name, "judge_prompts.") for name in prompts},
        type=_text_of(entry, "type") if "type" in entry else "free_form",
        system=_text_of(entry, "system") if "system" in entry else None,
        samples_per_paraphrase=samples,
        judge=_text_of(entry, "judge") if "judge" in entry else "",
    )


def _text_of(entry: dict[str, Any], key: str, owner: str = "") -> str:
    value = entry.get(key)
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{owner}{key} must be text; got {shown(value)}")
    if why := why_no_text(value):
        raise DataError(f"{owner}{key} {why}")
    return value


def _filled_list(entry: dict[str, Any], key: str) -> list[Any]:
    value = entry[key]
    if not isinstance(value, list) or not value:
        raise DataError(f"{key} must be a list with at least one entry; got {shown(value)}")
    return value


def _texts_of(entry: dict[str, Any], key: str) -> tuple[str, ...]:
    values = _filled_list(entry, key)
    for number, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"{key}[{number}] must be text; got {shown(value)}")
        if why := why_no_text(value):
            raise DataError(f"{key}[{number}] {why}")
    return tuple(values)
