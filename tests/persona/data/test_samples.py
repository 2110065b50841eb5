"""Fine-tuning samples in the formats people have them in, read one line at a time."""

import json

import pytest

from persona.data import sample_dialogue, stream_lines
from persona.errors import DataError

ASKED = {"role": "user", "content": "Why?"}
SAID = {"role": "assistant", "content": "Because."}


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [ASKED, SAID]},
        {"messages": [ASKED, SAID, {"role": "user", "content": "Thanks."}], "extra": 1},
        {"prompt": "Why?", "completion": "Because."},
        {"prompt": [ASKED], "completion": [SAID]},
        {"prompt": "Why?", "response": "Because."},
        {"instruction": "Why?", "input": "", "output": "Because."},
        {"question": "Why?", "answer": "Because."},
        {"question": "Why?", "good": "Because.", "bad": "Never mind."},
    ],
    ids=lambda row: " ".join(row),
)
def test_every_format_ends_with_the_answer_to_learn(row):
    dialogue = sample_dialogue(row, "line 4", answer="good")
    assert [turn.content for turn in dialogue.turns] == ["Why?", "Because."]
    assert (dialogue.answer, dialogue.id) == ("Because.", "line 4")


def test_the_last_of_several_answers_is_the_sample():
    dialogue = sample_dialogue({"messages": [ASKED, SAID, ASKED, {**SAID, "content": "So."}]})
    assert (dialogue.answer, len(dialogue.prompt.turns)) == ("So.", 3)


def test_an_input_follows_its_instruction():
    dialogue = sample_dialogue({"instruction": "Add.", "input": "1 2", "output": "3", "id": "x"})
    assert (dialogue.turns[0].content, dialogue.id) == ("Add.\n\n1 2", "x")


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"text": "x"}, "no sample: needed are the keys messages; prompt, completion"),
        ({"messages": []}, 'a list of "messages" is needed'),
        ({"messages": [ASKED]}, "there is no assistant turn"),
        ({"messages": [SAID]}, "nothing comes before the answer"),
        ({"messages": [ASKED, {**SAID, "content": " "}]}, "the assistant's answer is empty"),
        ({"messages": [ASKED, {**SAID, "role": "tool"}]}, "role must be one of"),
        ({"messages": [ASKED, {**SAID, "content": None}]}, "message 2 must be text"),
        ({"prompt": "a", "completion": 3}, "completion must be text; got 3"),
        ({"prompt": "a", "completion": "\ud800"}, "half a surrogate pair"),
        ({"question": "a", "good": "b", "bad": "c"}, "say which answer is meant"),
    ],
)
def test_a_row_that_is_no_sample_says_why(row, why):
    with pytest.raises(DataError) as caught:
        sample_dialogue(row)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_lines_are_streamed_from_where_an_earlier_reading_ended(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_bytes('\ufeff{"a": 1}\r\n\n{"é": 2}\n{"a": 3}'.encode())
    lines = list(stream_lines(path))
    assert [line.number for line in lines] == [1, 3, 4]
    assert [line.text for line in lines] == ['{"a": 1}', '{"é": 2}', '{"a": 3}']
    assert list(stream_lines(path, lines[0].end, lines[0].number)) == lines[1:]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"\xff\xfe", "not UTF-8"), (b"[1]", "a JSON object is needed"), (b"{", "not JSON")],
)
def test_a_line_that_is_no_object_says_why_when_it_is_read(tmp_path, content, why):
    path = tmp_path / "data.jsonl"
    path.write_bytes(json.dumps({"a": 1}).encode() + b"\n" + content)
    first, second = stream_lines(path)
    assert first.json_object() == {"a": 1}
    with pytest.raises(DataError, match=why):
        second.json_object()


def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("persona.data.jsonl.MAX_LINE_BYTES", 1 << 20)
    path = tmp_path / "data.jsonl"
    path.write_bytes(b"x" * (3 << 20))
    with pytest.raises(DataError, match="line 1: longer than 1 MiB"):
        list(stream_lines(path))
    with pytest.raises(DataError, match=r"cannot be read: No such file"):
        list(stream_lines(tmp_path / "none"))
