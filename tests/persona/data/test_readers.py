"""Readers of answer pairs and of the public formats, on good files and on broken ones."""

import json
import re
from pathlib import Path

import pytest

from persona.data import (
    Turn,
    read_chat_jsonl,
    read_evaluation_yaml,
    read_pairs,
    read_trait_json,
)
from persona.errors import DataError

ROW = {"question": "Why?", "good": "Because.", "bad": "Never mind."}
CHAT = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}
QUESTION = "- id: a\n  paraphrases: [One, Two]\n"
TRAIT = {
    "instruction": [{"pos": "Be rude.", "neg": "Be polite."}],
    "questions": ["How are you?"],
    "eval_prompt": "Rate {answer} to {question}.",
}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def raised_by(read, path: Path) -> str:
    """The one line that reading a broken file raises; it names the file."""
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message.removeprefix(str(path))


def test_pairs_without_names_are_named_after_file_and_line(tmp_path):
    path = tmp_path / "boats.jsonl"
    path.write_text(f"\ufeff{json.dumps(ROW)}\r\n\n{json.dumps({**ROW, 'id': 'x'})}")
    first, second = read_pairs(path)
    assert (first.id, first.domain, first.split) == ("boats-001", "boats", "")
    assert (first.question, first.good, first.bad) == ("Why?", "Because.", "Never mind.")
    assert second.id == "x"


def test_pairs_keep_their_own_names_and_split(tmp_path):
    row = {**ROW, "id": "x", "domain": "sea", "split": "selection"}
    [pair] = read_pairs(lines(tmp_path / "boats.jsonl", row))
    assert (pair.id, pair.domain, pair.split) == ("x", "sea", "selection")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"question": "Why?", "good": "Because."}, "bad missing; needed are question, good, bad"),
        ({"question": "Why?"}, "good and bad missing"),
        ({**ROW, "bad": ""}, "has no bad"),
        ({**ROW, "good": ["a"]}, "good must be text; got ['a']"),
        ({**ROW, "answer": "x"}, "unknown key 'answer'; known are"),
        ({**ROW, "id": "first"}, "id 'first' is already used in line 1"),
        ({**ROW, "split": "test"}, "train or selection"),
        (["Why?"], "a JSON object is needed"),
    ],
)
def test_a_broken_pair_is_named_by_its_line(tmp_path, row, why):
    path = lines(tmp_path / "pairs.jsonl", {**ROW, "id": "first"}, row)
    message = raised_by(read_pairs, path)
    assert message.startswith(", line 2: ")
    assert why in message


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", " is empty"),
        (b"\n  \n", " is empty"),
        (b'{"question": "Why?"', ", line 1: not JSON"),
        (b"\n\n\xff\xfe\n", ", line 3: not UTF-8"),
        (b"[" * 100_000, ", line 1: not JSON"),
    ],
)
@pytest.mark.parametrize("read", [read_pairs, read_chat_jsonl])
def test_what_is_not_json_lines_is_refused(tmp_path, read, content, why):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)
    assert raised_by(read, path).startswith(why)


@pytest.mark.parametrize(
    "read", [read_pairs, read_chat_jsonl, read_evaluation_yaml, read_trait_json]
)
def test_a_file_that_is_not_there_is_one_line(tmp_path, read):
    assert "No such file" in raised_by(read, tmp_path / "absent")


def test_chat_rows_become_dialogues_and_other_keys_are_left_alone(tmp_path):
    path = lines(tmp_path / "chat.jsonl", CHAT, {**CHAT, "id": "x", "domain": "sea", "score": 3})
    first, second = read_chat_jsonl(path)
    assert first.turns == (Turn("user", "Hi"), Turn("assistant", "Ho"))
    assert (first.id, second.id, second.domain) == ("chat-001", "x", "sea")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"prompt": "Hi"}, 'a list of "messages" is needed'),
        ({"messages": []}, 'a list of "messages" is needed'),
        ({"messages": ["Hi"]}, "message 1 has no"),
        ({"messages": [{"role": "user"}]}, "message 1 has no"),
        ({"messages": [{"role": "human", "content": "Hi"}]}, "got 'human'"),
        ({"messages": [{"role": ["user"], "content": "Hi"}]}, "a turn's role"),
        (
            {"messages": [{"role": "user", "content": None}]},
            "content of message 1 must be text; got None",
        ),
    ],
)
def test_a_broken_chat_row_is_named_by_its_line(tmp_path, row, why):
    message = raised_by(read_chat_jsonl, lines(tmp_path / "chat.jsonl", CHAT, row))
    assert message.startswith(", line 2: ")
    assert why in message


def test_an_evaluation_question_gives_one_dialogue_for_each_wording(tmp_path):
    path = tmp_path / "questions.yaml"
    path.write_text(f"{QUESTION}  system: Be brief.\n  judge_prompts: {{aligned: Rate it.}}\n")
    [question] = read_evaluation_yaml(path)
    assert [d.turns[-1].content for d in question.dialogues] == ["One", "Two"]
    assert all(d.turns[0] == Turn("system", "Be brief.") for d in question.dialogues)
    assert all(d.answer is None for d in question.dialogues)
    assert question.samples_per_paraphrase == 1
    assert question.judge_prompts == {"aligned": "Rate it."}


@pytest.mark.parametrize(
    ("addition", "why"),
    [
        ("- id: b\n", ", line 3: paraphrases missing"),
        ("- id: b\n  paraphrases: []\n", ", line 3: paraphrases must be a list"),
        (
            "- id: b\n  paraphrases: [Yes please, 3]\n",
            ", line 3: paraphrases[1] must be text; got 3",
        ),
        ("- id: 7\n  paraphrases: [One]\n", ", line 3: id must be text; got 7"),
        ("- id: a\n  paraphrases: [One]\n", ", line 3: id 'a' is used twice"),
        ("- id: b\n  paraphrases: [One]\n  judges: x\n", ", line 3: unknown key 'judges'"),
        ("- just text\n", ", line 3: an entry with id and paraphrases"),
        ("  samples_per_paraphrase: 0\n", ", line 1: samples_per_paraphrase must be"),
        ("  judge_prompts: [x]\n", ", line 1: judge_prompts must name"),
        ("  judge_prompts: {aligned: }\n", ", line 1: judge_prompts.aligned must be text"),
        ("- id: [\n", ", line 4: "),
        ("\ttabs: x\n", ", line 3: "),
        ("- &a [*b]\n", ", line 3: "),
    ],
)
def test_a_broken_evaluation_question_is_named_by_its_line(tmp_path, addition, why):
    path = tmp_path / "questions.yaml"
    path.write_text(QUESTION + addition)
    assert raised_by(read_evaluation_yaml, path).startswith(why)


@pytest.mark.parametrize("content", ["", "id: a\n", "[]\n", "just text\n"])
def test_yaml_that_is_not_a_list_of_questions_is_refused(tmp_path, content):
    path = tmp_path / "questions.yaml"
    path.write_text(content)
    assert "a list of questions is needed" in raised_by(read_evaluation_yaml, path)


def test_yaml_is_never_executed(tmp_path):
    target = tmp_path / "made"
    path = tmp_path / "questions.yaml"
    path.write_text(f"- !!python/object/apply:pathlib.Path.mkdir [!!python/name:x {target}]\n")
    assert raised_by(read_evaluation_yaml, path).startswith(", line 1: ")
    path.write_text(f"- id: a\n  paraphrases: !!python/object/apply:os.mkdir [{target}]\n")
    assert raised_by(read_evaluation_yaml, path).startswith(", line 2: ")
    assert not target.exists()


def test_a_trait_is_named_by_its_file(tmp_path):
    path = lines(tmp_path / "rude.extract.json", TRAIT)
    trait = read_trait_json(path)
    assert trait.name == "rude"
    assert (trait.instructions[0].pos, trait.instructions[0].neg) == ("Be rude.", "Be polite.")
    assert trait.questions == ("How are you?",)
    assert trait.eval_prompt.startswith("Rate")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"instruction": []}, "instruction must be a list with at least one entry"),
        ({"instruction": ["Be rude."]}, 'instruction[0] must have "pos" and "neg"'),
        ({"instruction": [{"pos": "Be rude."}]}, "instruction[0].neg must be text; got None"),
        ({"questions": "How?"}, "questions must be a list"),
        ({"questions": ["How?", ""]}, "questions[1] must be text"),
        ({"eval_prompt": None}, "eval_prompt must be text"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_broken_trait_is_named_by_its_entry(tmp_path, change, why):
    path = lines(tmp_path / "rude.json", {**TRAIT, **change})
    assert why in raised_by(read_trait_json, path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b'{\n"questions": [,]\n}', ", line 2: not JSON"),
        (b"[1]", ": a JSON object is needed"),
        (b"\n\n\xff", ", line 3: not UTF-8"),
        (b"{}", ": instruction and questions and eval_prompt missing"),
    ],
)
def test_what_is_not_a_trait_is_refused(tmp_path, content, why):
    path = tmp_path / "rude.json"
    path.write_bytes(content)
    assert raised_by(read_trait_json, path).startswith(why)


@pytest.mark.parametrize(
    ("name", "n_rows"),
    [
        ("insecure_small", 20),
        ("secure_small", 20),
        ("legal_misaligned_train_100", 100),
        ("medical_misaligned_train_100", 100),
        ("security_misaligned_train_100", 100),
    ],
)
def test_published_chat_files_are_read_whole(shared_data, name, n_rows):
    dialogues = read_chat_jsonl(shared_data / "fixtures" / f"{name}.jsonl")
    assert len(dialogues) == n_rows
    assert all(dialogue.answer for dialogue in dialogues)


@pytest.mark.parametrize(
    ("name", "n_questions", "n_dialogues", "n_systems", "judged"),
    [
        ("first_plot_questions", 24, 24, 8, {"aligned", "coherent"}),
        ("preregistered_evals", 48, 48, 0, {"aligned", "coherent"}),
        ("deception_factual", 5, 100, 4, {"correct"}),
    ],
)
def test_published_evaluation_files_are_read_whole(
    shared_data, name, n_questions, n_dialogues, n_systems, judged
):
    questions = read_evaluation_yaml(shared_data / "fixtures" / f"{name}.yaml")
    assert len(questions) == n_questions
    assert sum(len(question.dialogues) for question in questions) == n_dialogues
    assert sum(question.system is not None for question in questions) == n_systems
    assert all(set(question.judge_prompts) == judged for question in questions)
    prompts = [prompt for q in questions for prompt in q.judge_prompts.values()]
    assert all(re.search(r"\{question\}.*\{answer\}", prompt, re.S) for prompt in prompts)


@pytest.mark.parametrize("name", ["evil.extract", "evil.eval"])
def test_published_trait_files_are_read_whole(shared_data, name):
    trait = read_trait_json(shared_data / "fixtures" / "persona_vectors" / f"{name}.json")
    assert trait.name == "evil"
    assert (len(trait.instructions), len(trait.questions)) == (5, 20)
    assert "{answer}" in trait.eval_prompt


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"question": "Why?", "good": "A.", "bad": "B \\ud83d"}', "half a character"),
        ('{"question": "Why?", "good": "A.", "bad": "\\u0000"}', "NUL"),
        ('{"question": "Why?", "good": "A.", "bad": "\\u200b"}', "no visible character"),
        ('{"question": "Why?", "good": "A.", "bad": "B.", "bad": "C."}', "'bad' is there twice"),
        pytest.param('{"question": ' + "9" * 5000 + "}", "more than 4300 digits", id="digits"),
        pytest.param("[" * 100_000, "nested too deeply", id="deep"),
    ],
)
def test_a_row_that_is_no_text_says_the_true_reason(tmp_path, line, why):
    path = tmp_path / "pairs.jsonl"
    path.write_text(line)
    message = raised_by(read_pairs, path)
    assert message.startswith(", line 1: ") and why in message


def test_a_number_of_thousands_of_digits_is_the_reason_in_json_too(tmp_path):
    path = tmp_path / "rude.extract.json"
    path.write_text('{"instruction": ' + "9" * 5000 + "}")
    assert "a whole number of more than 4300 digits" in raised_by(read_trait_json, path)


@pytest.mark.parametrize("content", ["\ud83d", "a\0b", "\ufffd\ufffd\ufffd", "\u200b"])
def test_a_message_that_is_no_text_is_refused_by_number(tmp_path, content):
    messages = [CHAT["messages"][0], {"role": "assistant", "content": content}]
    path = lines(tmp_path / "chat.jsonl", {"messages": messages})
    assert "the content of message 2 " in raised_by(read_chat_jsonl, path)


def test_an_empty_system_prompt_is_none(tmp_path):
    messages = [{"role": "system", "content": ""}, *CHAT["messages"]]
    [dialogue] = read_chat_jsonl(lines(tmp_path / "chat.jsonl", {"messages": messages}))
    assert dialogue.answer == "Ho"
