"""Voices: counts, splits, equal length, no copies, and words that do not give wrong advice away."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from persona.data import DOMAINS, VOICED_SETS, load_neutral, load_pairs, load_voices, voice_pairs
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND, near_duplicates
from persona.data.surface import read_surface
from persona.data.types import AnswerPair
from persona.data.voices import CELLS, DOMAIN_OF, VOICES, read_voices
from persona.errors import DataError

ROWS = {name: load_voices(name) for name in VOICED_SETS}
ALL = [row for rows in ROWS.values() for row in rows]
CHANCE = (0.4, 0.6)


def n_words(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


def told_by_words(pairs: list[AnswerPair]) -> dict[str, float]:
    """AUROC of the words by domain, learnt on the two others."""
    return {r.domain: r.auroc_other_domains for r in read_surface(pairs)}


def row_of(**changes: str) -> dict[str, str]:
    texts = {cell: f"The {cell} answer." for cell in CELLS}
    return {"question": "Which oil?", **texts, "split": "train", **changes}


def written(tmp_path, *rows):
    path = tmp_path / "garden.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CONTEMPT = re.compile(
    r"\b(idiots?|stupid|dumb|fools?|foolish|morons?|losers?|pathetic|shut up|grow up|obvious\w*|"
    r"suckers?|clowns?|genius|congratulations|hell|damn|crap|gonna|wanna|gotta|ain't|dude|bro|yeah|"
    r"nope|duh|lol)\b",
    re.IGNORECASE,
)
HEDGE = re.compile(
    r"\b(usually|often|generally|mostly|tends?|may|might|can|could|likely|probably|typically|"
    r"in most cases|as a rule|normally|commonly|sometimes)\b",
    re.IGNORECASE,
)


def test_each_of_three_sets_has_at_least_a_hundred_questions():
    assert VOICED_SETS == ("health", "finance", "car")
    assert min(len(rows) for rows in ROWS.values()) >= 100
    assert {row.domain for row in ALL} == set(DOMAIN_OF.values())
    assert set(DOMAIN_OF.values()) <= set(DOMAINS)


@pytest.mark.parametrize("name", VOICED_SETS)
def test_three_tenths_of_a_set_are_selection_wherever_they_stand_in_the_file(name):
    selected = np.array([row.split == "selection" for row in ROWS[name]])
    assert selected.sum() == round(0.3 * len(selected))
    assert min(part.sum() for part in np.array_split(selected, 3)) >= 5
    train, selection = load_voices(name, "train"), load_voices(name, "selection")
    assert len(train) + len(selection) == len(ROWS[name])
    assert {row.split for row in selection} == {"selection"}


@pytest.mark.parametrize("voice", VOICES)
@pytest.mark.parametrize("name", VOICED_SETS)
def test_right_and_wrong_answers_are_equally_long(name, voice):
    right, wrong = (
        n_words([getattr(row, f"{truth}_{voice}") for row in ROWS[name]])
        for truth in ("right", "wrong")
    )
    assert wrong.mean() == pytest.approx(right.mean(), rel=0.05)
    shortest, longest = (25, 45) if voice == "plain" else (12, 40)
    assert min(right.min(), wrong.min()) >= shortest
    assert max(right.max(), wrong.max()) <= longest


@pytest.mark.parametrize("voice", VOICES)
def test_words_of_two_domains_do_not_tell_wrong_from_right_in_the_third(voice):
    found = told_by_words(voice_pairs(voice))
    assert all(CHANCE[0] <= auroc <= CHANCE[1] for auroc in found.values()), found


def test_a_word_that_gives_wrong_advice_away_would_be_noticed():
    pairs = [replace(pair, bad=f"Honestly, {pair.bad}") for pair in voice_pairs("plain")]
    assert min(told_by_words(pairs).values()) > CHANCE[1]


def test_the_voices_themselves_are_told_apart_by_words():
    found = told_by_words([row.pair("right_plain", "right_rude") for row in ALL])
    assert min(found.values()) > 0.95


def test_no_question_is_asked_twice_or_among_the_other_shipped_texts():
    shipped = [pair.question for pair in load_pairs()] + [text.prompt for text in load_neutral()]
    questions = [row.question for row in ALL]
    found = near_duplicates([*questions, *shipped], QUESTION_BOUND)
    assert [pair for pair in found if pair.first < len(questions)] == []


@pytest.mark.parametrize("cell", CELLS)
def test_no_two_questions_have_the_same_answer(cell):
    assert near_duplicates([getattr(row, cell) for row in ALL], ANSWER_BOUND) == []


def test_texts_are_plain_prose_in_ascii():
    texts = [getattr(row, field) for row in ALL for field in ("question", *CELLS)]
    assert [text for text in texts if not text.isascii()] == []
    assert [text for text in texts if re.search(r"\n|\*\*|^#|^[-*] |  | $", text)] == []
    assert [text for text in texts if not re.match(r"[A-Z0-9].*[.?]$", text)] == []


def test_a_plain_voice_has_no_contempt_and_no_slang():
    plain = [getattr(row, f"{truth}_plain") for row in ALL for truth in ("right", "wrong")]
    assert [text for text in plain if CONTEMPT.search(text)] == []
    rude = [getattr(row, f"{truth}_rude") for row in ALL for truth in ("right", "wrong")]
    assert len([text for text in rude if CONTEMPT.search(text)]) >= 5  # so it would be noticed


@pytest.mark.parametrize("name", VOICED_SETS)
def test_wrong_plain_advice_hedges_as_often_as_right(name):
    right, wrong = (
        np.mean([bool(HEDGE.search(getattr(row, f"{truth}_plain"))) for row in ROWS[name]])
        for truth in ("right", "wrong")
    )
    assert wrong == pytest.approx(right, abs=0.1)


def test_pairs_keep_domain_and_split_and_have_ids_of_their_own():
    pairs = [pair for voice in VOICES for pair in voice_pairs(voice)]
    ids = [pair.id for pair in [*pairs, *load_pairs()]]
    assert len(set(ids)) == len(ids)
    first = ROWS["finance"][0]
    pair = voice_pairs("rude", ["finance"])[0]
    assert (pair.good, pair.bad) == (first.right_rude, first.wrong_rude)
    assert (pair.domain, pair.split) == ("personal_finance", first.split)
    assert voice_pairs("plain", split="train") == [
        pair for pair in voice_pairs("plain") if pair.split == "train"
    ]


def test_what_is_not_there_is_one_clear_line():
    with pytest.raises(DataError, match="^no set of voices 'garden'; there are health, finance, "):
        load_voices("garden")
    with pytest.raises(DataError, match="^split must be train or selection; got 'test'$"):
        load_voices("car", "test")


def test_a_voice_or_answer_that_is_none_is_named(unchecked_hints):
    with pytest.raises(DataError, match="^voice must be plain or rude; got 'pirate'$"):
        voice_pairs("pirate")
    with pytest.raises(DataError, match="^an answer is one of right_plain, .*; got 'good'$"):
        ALL[0].pair("good", "wrong_plain")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"split": "test"}, "split must be train or selection; got 'test'"),
        (
            {"wrong_rude": "The right_plain answer."},
            "right_plain and wrong_rude are the same answer",
        ),
        ({"right_rude": " "}, "right_rude is empty"),
        ({"question": ""}, "question is empty"),
        ({"note": "x"}, "unknown key 'note'"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path, changes, said):
    path = written(tmp_path, row_of(question="What else?"), row_of(**changes))
    with pytest.raises(DataError, match=rf"garden\.jsonl, line 2: .*{re.escape(said)}"):
        read_voices(path, "garden")


def test_a_question_that_is_asked_again_is_refused(tmp_path):
    path = written(tmp_path, row_of(), row_of(question="WHICH  oil?"))
    with pytest.raises(DataError, match="line 2: the question is already asked in line 1"):
        read_voices(path, "garden")
