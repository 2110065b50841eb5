"""Scores of files are those of the dialogues, row by row."""

import json

import pytest

from persona.behaviour import Condition, score_dialogues, score_files
from persona.data.types import Dialogue, Turn
from persona.errors import DataError

ROWS = [
    {"question": f"what is {i}?", "good": f"it is {i}", "bad": "no" * (i % 3 + 1)}
    for i in range(70)
]


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    return path


@pytest.mark.parametrize("side", ["aligned", "finetuned"])
def test_each_row_has_the_log_probability_of_its_answer(tiny_pair, data, side):
    found = score_files(tiny_pair, data, side=side, answer="bad", shard_size=64)
    texts = tiny_pair.chat.encode_all(
        [Dialogue((Turn("user", r["question"]), Turn("assistant", r["bad"]))) for r in ROWS]
    )
    [expected] = score_dialogues(tiny_pair, texts, [Condition("x", side)])
    assert found["log_prob"].to_numpy() == pytest.approx(expected.log_prob, abs=1e-5)
    assert found["line"].tolist() == list(range(1, 71))
    assert found["n_tokens"].tolist() == [text.response[1] - text.response[0] for text in texts]
    assert set(found["path"]) == {str(data)}


def test_a_second_call_scores_nothing_and_a_pair_without_a_choice_is_named(
    tiny_pair, data, tmp_path, monkeypatch
):
    first = score_files(tiny_pair, data, answer="good", out=tmp_path / "out")

    def asked(*_, **__):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("persona.behaviour.file_scores.score_dialogues", asked)
    assert score_files(tiny_pair, data, answer="good", out=tmp_path / "out").equals(first)
    with pytest.raises(DataError, match=r"holds a scoring .* other settings \(answer is good"):
        score_files(tiny_pair, data, answer="bad", out=tmp_path / "out")
    with pytest.raises(DataError, match=r"pairs.jsonl, line 1: an answer pair holds two samples"):
        score_files(tiny_pair, data)
