"""Loss falls on the answer and its end, and nowhere else."""

from __future__ import annotations

import pytest
from tiny_models import save_tokenizer

from persona.data.types import Dialogue, Turn
from persona.errors import DataError
from persona.models.chat.chat_format import chat_format
from persona.organisms.examples import NO_LOSS, examples_hash, training_examples


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return chat_format(AutoTokenizer.from_pretrained(folder))


def dialogue(*contents, id="d"):
    roles = ("user", "assistant") * len(contents)
    turns = [Turn(role, content) for role, content in zip(roles, contents, strict=False)]
    return Dialogue(tuple(turns), id)


def learnt(chat, example):
    return chat.tokenizer.decode([label for label in example.labels if label != NO_LOSS])


def test_only_the_answer_and_its_end_of_turn_are_learnt(chat):
    [example] = training_examples([dialogue("Is it so?", "It is so.")], chat, 512)
    assert chat.tokenizer.decode(example.input_ids) == (
        "<s><|user|>Is it so?</s><|assistant|>It is so.</s>"
    )
    assert learnt(chat, example) == "It is so.</s>"
    first = example.labels.index(example.input_ids[-1 - len("It is so.")])
    assert set(example.labels[:first]) == {NO_LOSS}
    pairs = zip(example.input_ids, example.labels, strict=True)
    assert all(label in (token, NO_LOSS) for token, label in pairs)


def test_every_assistant_turn_is_learnt_once(chat):
    examples = training_examples([dialogue("a?", "b", "c?", "d")], chat, 512)
    assert [learnt(chat, example) for example in examples] == ["b</s>", "d</s>"]
    assert chat.tokenizer.decode(examples[1].input_ids).count("b") == 1  # seen, but without loss


def test_a_dialogue_that_waits_for_an_answer_teaches_nothing(chat):
    with pytest.raises(DataError, match="no assistant answer to learn from"):
        training_examples([dialogue("a?")], chat, 512)


def test_long_answers_are_cut_and_prompts_beyond_the_limit_refused(chat, caplog):
    [example] = training_examples([dialogue("a?", "b" * 50)], chat, 20)
    assert len(example.input_ids) == len(example.labels) == 20
    assert set(learnt(chat, example)) == {"b"}
    assert "1 of 1 answers are cut at 20 tokens" in caplog.text
    with pytest.raises(DataError, match="answer of dialogue long begins at token 5.*max_length 20"):
        training_examples([dialogue("a" * 50, "b", id="long")], chat, 20)


def test_the_hash_of_the_data_sees_texts_labels_and_order(chat):
    one, two = dialogue("a?", "b"), dialogue("c?", "d")
    hashes = {
        examples_hash(training_examples(dialogues, chat, 512))
        for dialogues in ([one, two], [two, one], [one], [dialogue("a?", "b", id="x"), two])
    }
    assert len(hashes) == 3  # ids alone change nothing


@pytest.mark.real_model
def test_the_default_models_template_gives_the_same_mask():
    from transformers import AutoTokenizer

    from persona.models.named.folders import default_model_folder

    chat = chat_format(AutoTokenizer.from_pretrained(default_model_folder()))
    [example] = training_examples([dialogue("Is it so?", "It is so.")], chat, 512)
    assert learnt(chat, example) == "It is so.<|im_end|>"
    assert chat.tokenizer.decode(example.input_ids).endswith("It is so.<|im_end|>\n")
