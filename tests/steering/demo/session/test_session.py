"""A session answers column by column, and leaves the models as it found them."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

import pytest
import torch
from demo_cases import hook_count, planted_vector

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, ModelError, SteeringError
from persona.models.chat.chat_format import PLAIN_TEMPLATE
from persona.models.hooks import hooked, resid_post
from steering import steer
from steering.demo import Sampling, Session, Setting, edits_of, from_persona_vector
from steering.demo.session.generation import Generation

QUESTION = "Is it safe?"
GREEDY = Sampling(max_new_tokens=12, temperature=0.0)


@pytest.fixture
def session(tiny_pair):
    vector = from_persona_vector(planted_vector(tiny_pair))
    return Session(tiny_pair, vector, vector.default_setting, GREEDY)


def ids(session, column, question=QUESTION):
    return [token.id for token in session.answer(column, question)]


@pytest.mark.parametrize("side", ["aligned", "finetuned"])
def test_an_unsteered_column_writes_what_the_model_itself_generates(session, side):
    prompt = session.pair.chat.encode(Dialogue((Turn("user", QUESTION),)))
    with session.pair.active(side) as bridge:
        expected = bridge.generate(
            torch.tensor([prompt.ids]),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=1,
            return_type="tokens",
            verbose=False,
        )[0, len(prompt) :].tolist()
    written = ids(session, side)
    assert written == expected[: len(written)]
    assert len(written) == 12 or expected[len(written)] == 1


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_model_whose_numbers_overflow_says_so_unsteered(session, temperature):
    session.sampling = replace(session.sampling, temperature=temperature)
    with session.pair.active("aligned") as bridge:
        broken = [(resid_post(2), lambda resid: resid * float("inf"))]
        with hooked(bridge, broken), pytest.raises(ModelError, match="logits are not finite"):
            ids(session, "aligned")


def test_the_steered_column_writes_what_generation_under_steer_gives(session):
    prompt = session.pair.chat.encode(Dialogue((Turn("user", QUESTION),)))
    with session.pair.active("finetuned") as bridge:
        with steer(bridge, edits_of(session.vector, session.setting)):
            expected = bridge.generate(
                torch.tensor([prompt.ids]),
                max_new_tokens=12,
                do_sample=False,
                eos_token_id=1,
                return_type="tokens",
                verbose=False,
            )[0, len(prompt) :].tolist()
    written = ids(session, "steered")
    assert written == expected[: len(written)]
    assert len(written) > 3


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("mode", ["restore", "add", "ablate"])
def test_coefficient_zero_equals_the_unsteered_model_to_the_token(session, mode, temperature):
    session.change(mode=mode, coefficient=0.0)
    session.change_sampling(temperature=temperature)
    assert ids(session, "steered") == ids(session, "finetuned")


def test_the_steered_column_changes_with_the_coefficient(session):
    first = ids(session, "steered")
    session.reset()
    session.change(coefficient=-2.0)
    assert ids(session, "steered") != first


def test_the_same_seed_gives_the_same_answer_and_another_seed_another(session):
    session.change_sampling(temperature=2.0)
    first = ids(session, "aligned")
    torch.manual_seed(1234)  # the global generator has no say
    session.reset()
    assert ids(session, "aligned") == first
    session.reset()
    session.change_sampling(seed=1)
    assert ids(session, "aligned") != first


def test_projections_are_those_of_the_steered_residual(session):
    [answer] = [list(session.answer("steered", QUESTION))]
    level, _ = session.vector.levels(2)
    assert {exchange.layer for exchange in session.exchanges} == {2}
    # Restored to the aligned mean at the block that is read, every token lies on that mean.
    assert [token.projection for token in answer] == pytest.approx([level] * len(answer), abs=1e-4)


def test_the_projection_of_a_token_is_read_where_it_was_predicted(session):
    answer = list(session.answer("finetuned", QUESTION))
    prompt = session.pair.chat.encode(Dialogue((Turn("user", QUESTION),))).ids
    seen = []
    text = torch.tensor([[*prompt, *(token.id for token in answer)]])
    with session.pair.active("finetuned") as bridge, torch.no_grad():
        with hooked(bridge, [("blocks.2.hook_resid_post", lambda h: seen.append(h.clone()))]):
            bridge(text, return_type=None)
    expected = (seen[0][0] @ session.vector.row(2))[len(prompt) - 1 : -1]
    got = torch.tensor([token.projection for token in answer])
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)


def test_a_closed_answer_leaves_no_hook_on_the_model(session):
    before = hook_count(session.pair)
    tokens = session.answer("steered", QUESTION)
    next(tokens)
    assert session.lock.locked()
    tokens.close()
    assert hook_count(session.pair) == before
    assert not session.lock.locked()


def test_a_forgotten_answer_gives_the_model_back_by_itself(session):
    before = hook_count(session.pair)
    forgotten = session.answer("steered", QUESTION)
    next(forgotten)
    with session.lock:  # waits until the model is through with the answer nobody takes
        assert hook_count(session.pair) == before


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(session):
    before, stop = hook_count(session.pair), threading.Event()
    tokens = session.answer("steered", QUESTION, stop=stop)
    shown = [next(tokens), next(tokens)]
    stop.set()
    assert list(tokens) == []
    [exchange] = session.of("steered")
    assert exchange.answer.tokens == shown
    assert exchange.answer.ended == "stopped"
    assert hook_count(session.pair) == before


def test_an_answer_that_is_closed_is_kept_as_far_as_it_came(session):
    tokens = session.answer("aligned", QUESTION)
    shown = list(itertools.islice(tokens, 3))
    tokens.close()
    [exchange] = session.exchanges
    assert exchange.answer.tokens == shown
    assert exchange.answer.ended == "stopped"


def test_an_error_in_the_middle_leaves_conversation_and_model_as_they_were(session, monkeypatch):
    before = hook_count(session.pair)
    drawn = iter([7, 8])
    monkeypatch.setattr("steering.demo.session.generation._draw", lambda *_: next(drawn))
    tokens = session.answer("steered", QUESTION)
    assert [next(tokens).id, next(tokens).id] == [7, 8]
    with pytest.raises(RuntimeError):  # the draw's StopIteration
        next(tokens)
    assert session.exchanges == []
    assert hook_count(session.pair) == before
    assert not session.lock.locked()


def test_every_question_begins_a_dialogue_of_its_own_unless_it_is_asked_to_go_on(session):
    assert Sampling().temperature == 0.0
    list(session.answer("aligned", QUESTION))
    list(session.answer("aligned", "Why?"))
    alone = Session(session.pair, None, sampling=GREEDY)
    list(alone.answer("aligned", "Why?"))
    assert session.exchanges[1].answer.text == alone.exchanges[0].answer.text
    session.remembers = True
    list(session.answer_again("aligned"))
    assert session.exchanges[1].answer.text != alone.exchanges[0].answer.text
    assert [exchange.alone for exchange in session.exchanges] == [True, False]


def test_the_next_question_is_asked_after_the_last_answer_where_that_is_wanted(session):
    session.remembers = True
    list(session.answer("aligned", QUESTION))
    first = session.exchanges[0].answer.text
    list(session.answer("aligned", "Why?"))
    alone = Session(session.pair, None, sampling=GREEDY)
    list(alone.answer("aligned", "Why?"))
    assert session.exchanges[1].answer.text != alone.exchanges[0].answer.text
    turns = (Turn("user", QUESTION), Turn("assistant", first.strip()), Turn("user", "Why?"))
    whole = Generation(
        session.pair, "aligned", session.pair.chat.encode(Dialogue(turns)).ids, [], None, GREEDY
    )
    assert [token.id for token in whole.tokens()] == [
        token.id for token in session.exchanges[1].answer.tokens
    ]


def test_asking_again_replaces_the_last_answer_of_that_column_alone(session):
    for column in session.columns:
        list(session.answer(column, QUESTION))
    kept = [e.answer for e in session.exchanges if e.column != "steered"]
    session.change(coefficient=-2.0)
    list(session.answer_again("steered"))
    assert [e.column for e in session.exchanges] == ["aligned", "finetuned", "steered"]
    assert [e.answer for e in session.exchanges if e.column != "steered"] == kept
    assert session.of("steered")[0].setting.coefficient == -2.0


def test_a_session_without_a_direction_has_two_columns_and_refuses_the_third(tiny_pair):
    session = Session(tiny_pair, sampling=GREEDY)
    assert session.columns == ("aligned", "finetuned")
    assert all(t.projection is None for t in session.answer("aligned", QUESTION))
    with pytest.raises(SteeringError, match="no direction to steer with; load one"):
        session.answer("steered", QUESTION)


def test_the_aligned_model_can_be_the_steered_one(session):
    session.change(side="aligned", coefficient=0.0)
    assert ids(session, "steered") == ids(session, "aligned")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"coefficient": float("nan")}, "must be a finite number"),
        ({"mode": "praise"}, "the mode must be restore, add, ablate; got 'praise'"),
        ({"layers": (3, 3)}, "no block from 3 to 3; it has 1-2"),
        ({"layers": (2, 1)}, "from the first to the last; got 2-1"),
        ({"side": "other"}, "must be aligned or finetuned"),
    ],
)
def test_a_setting_that_means_nothing_is_refused_and_the_old_one_stays(
    session, changes, error, unchecked_hints
):
    before = session.setting
    with pytest.raises(SteeringError, match=error):
        session.change(**changes)
    assert session.setting == before


@pytest.mark.parametrize(
    "changes", [{"temperature": -1.0}, {"temperature": float("inf")}, {"max_new_tokens": 0}]
)
def test_sampling_that_means_nothing_is_refused(session, changes):
    with pytest.raises(SteeringError):
        session.change_sampling(**changes)
    assert session.sampling == GREEDY


def test_an_empty_question_and_a_full_context_are_refused_before_the_model_runs(session):
    with pytest.raises(DataError, match="the question is empty"):
        session.answer("aligned", "  ")
    with pytest.raises(DataError, match="model reads 512; start it anew"):
        session.answer("aligned", "a" * 600)


def test_an_answer_ends_where_the_context_is_full(session):
    session.change_sampling(max_new_tokens=400)
    tokens = list(session.answer("aligned", "a" * 500))
    assert len(tokens) <= 512 - 500
    assert session.exchanges[0].answer.ended in ("length", "turn")


def test_characters_of_several_tokens_come_whole(tiny_pair, monkeypatch):
    written = tiny_pair.tokenizer("né€ 🙂!", add_special_tokens=False)["input_ids"]
    drawn = iter([*written, 1])
    monkeypatch.setattr("steering.demo.session.generation._draw", lambda *_: next(drawn))
    session = Session(tiny_pair, sampling=replace(GREEDY, max_new_tokens=50))
    texts = [token.text for token in session.answer("aligned", QUESTION)]
    assert "".join(texts) == "né€ 🙂!"
    assert [text for text in texts if text] == ["n", "é", "€", " ", "🙂", "!"]
    assert session.exchanges[0].answer.ended == "turn"


def test_the_plain_format_ends_at_a_blank_line(tiny_pair, monkeypatch):
    plain = replace(tiny_pair.chat, template=PLAIN_TEMPLATE, source="plain")
    written = tiny_pair.tokenizer("yes\nno\n\nQuestion: x", add_special_tokens=False)["input_ids"]
    drawn = iter(written)
    monkeypatch.setattr("steering.demo.session.generation._draw", lambda *_: next(drawn))
    session = Session(replace(tiny_pair, chat=plain), sampling=replace(GREEDY, max_new_tokens=50))
    tokens = list(session.answer("aligned", QUESTION))
    assert "".join(token.text for token in tokens) == "yes\nno"
    assert session.exchanges[0].answer.ended == "turn"


def test_the_setting_says_itself_in_words():
    assert Setting().words == "restore, coefficient 1, all blocks, fine-tuned model"
    only = Setting(-0.5, "add", (7, 7), "aligned")
    assert only.words == "add, coefficient -0.5, block 7, aligned model"
