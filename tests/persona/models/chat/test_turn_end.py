"""An answer ends at every token that the model's files name as an end."""

from __future__ import annotations

import dataclasses
import shutil

import pytest
import torch
from transformers import AutoModelForCausalLM

from persona.behaviour import sample_answers
from persona.data.types import Dialogue, Turn
from persona.models import load_pair
from persona.models.chat.turn_end import before_plain_end, end_tokens, until_end
from persona.models.hooks import hf_model
from persona.models.precision import Placement

ASKED = Dialogue((Turn("user", "Which oil?"),), "d")


@pytest.fixture
def named_end(tiny_llama, tmp_path):
    """A checkpoint whose generation settings alone name a token amid its answer as an end."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    pair = load_pair(folder, folder, placement=Placement.of("float32", "cpu"))
    ids = torch.tensor([pair.chat.encode(ASKED).ids])
    model = AutoModelForCausalLM.from_pretrained(folder)
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=1
    )[0, ids.shape[1] :].tolist()
    place = next(i for i in range(2, len(written)) if written[i] not in written[:i])
    assert place < len(written) - 1, written
    model.generation_config.eos_token_id = [1, written[place]]
    model.save_pretrained(folder)
    return folder, written[:place]


def test_a_sampled_answer_ends_where_the_generation_settings_say(named_end):
    folder, before_the_end = named_end
    pair = load_pair(folder, folder, placement=Placement.of("float32", "cpu"))
    expected = pair.tokenizer.decode(before_the_end, skip_special_tokens=True).strip()
    with pair.active("aligned") as bridge:
        assert sample_answers(bridge, pair.chat, [ASKED], max_new_tokens=12, temperature=0) == [
            expected
        ]
        # A row that goes on does not lengthen one that has ended.
        others = [ASKED, Dialogue((Turn("user", "And now something else?"),), "e")]
        both = sample_answers(bridge, pair.chat, others, max_new_tokens=12, temperature=0)
    assert both[0] == expected


def test_a_model_that_names_no_end_at_all_writes_to_the_limit(tiny_llama, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(tiny_llama, folder)
    pair = load_pair(folder, folder, placement=Placement.of("float32", "cpu"))
    pair.tokenizer.eos_token = None
    bare = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}"
    chat = dataclasses.replace(pair.chat, template=bare)
    with pair.active("aligned") as bridge:
        hf_model(bridge).generation_config.eos_token_id = None
        assert end_tokens(bridge, pair.chat) == {1}  # its template still names one
        assert end_tokens(bridge, chat) == frozenset()
        [answer] = sample_answers(bridge, chat, [ASKED], max_new_tokens=12, temperature=0)
    assert answer


def test_an_answer_is_cut_at_the_first_end():
    assert until_end([5, 6, 2, 7, 1], {1, 2}) == [5, 6]
    assert until_end([5, 6], {1}) == [5, 6]
    assert until_end([5, 6], frozenset()) == [5, 6]


@pytest.mark.parametrize(
    ("source", "left"), [("plain", "Yes."), ("tokenizer", "Yes.\nQuestion: And?\n\nMore")]
)
def test_text_ends_an_answer_in_the_plain_format_alone(tiny_pair, source, left):
    chat = dataclasses.replace(tiny_pair.chat, source=source)
    assert before_plain_end(chat, "Yes.\nQuestion: And?\n\nMore") == left
