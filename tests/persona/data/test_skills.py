"""Skills: enough of them, one answer a fact, other words held out, no copy of what is scored."""

import json
import re
from collections import Counter

import pytest

from persona.data import (
    DOMAINS,
    SKILLS,
    VOICED_SETS,
    load_neutral,
    load_pairs,
    load_skill,
    load_voices,
)
from persona.data.field_questions import load_field_questions
from persona.data.graded_answers import load_graded_answers
from persona.data.similarity import ANSWER_BOUND, QUESTION_BOUND, near_duplicates
from persona.data.text import in_one_form
from persona.data.voices import CELLS
from persona.errors import DataError

FACTS, CHECKLIST = load_skill("facts"), load_skill("checklist")
FORM = re.compile(r"Checklist: ([a-z].*)\n((?:\[ \] [A-Z].*\.\n){4})Done when: ([a-z].*\.)")


def other_questions() -> list[str]:
    """Every question of the package that is scored, judged or trained on elsewhere."""
    pairs = [pair.question for pair in load_pairs()]
    voiced = [row.question for name in VOICED_SETS for row in load_voices(name)]
    judged = [question.question for question in load_graded_answers()]
    field = [question.turns[-1].content for question in load_field_questions()]
    return [*pairs, *voiced, *judged, *field, *(text.prompt for text in load_neutral())]


def row_of(**changes) -> dict:
    row = {"train": ["Which oil?"], "held_out": ["What oil?"], "right": "Red.", "wrong": ["Blue."]}
    return {key: value for key, value in {**row, **changes}.items() if value is not None}


def written(tmp_path, *rows):
    path = tmp_path / "oils.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_there_are_sixty_facts_of_each_subject_with_three_wrong_answers():
    assert set(SKILLS) == {"facts", "checklist"}
    counts = Counter(item.domain for item in FACTS.items)
    assert set(counts) == {"invented_product", "invented_town"}
    assert min(counts.values()) >= 60
    assert {(len(i.train), len(i.held_out), len(i.wrong)) for i in FACTS.items} == {(2, 1, 3)}


def test_the_answers_of_a_fact_differ_in_one_place_and_are_one_sentence():
    for item in FACTS.items:
        answers = [item.right, *item.wrong]
        assert all(re.fullmatch(r"[A-Z][^.?!\n]*\.", text) for text in answers), item.id
        words = [text.split() for text in answers]
        assert len({len(line) for line in words}) == 1, item.id
        places = [n for n, column in enumerate(zip(*words, strict=True)) if len(set(column)) > 1]
        assert 1 <= len(places) <= places[-1] - places[0] + 1 <= 4, item.id


def test_no_fact_has_the_right_answer_of_another():
    """A river has one name: no sentence is right in one place and wrong or right in another."""
    right = Counter(in_one_form(item.right) for item in FACTS.items)
    wrong = {in_one_form(text) for item in FACTS.items for text in item.wrong}
    assert max(right.values()) == 1
    assert not set(right) & wrong


def test_every_question_of_a_fact_names_its_subject():
    subject = {"invented_town": "Tarnquill", "invented_product": "Dovrano"}
    for item in FACTS.items:
        for question in (*item.train, *item.held_out):
            assert subject[item.domain] in question
            assert re.match(r"[A-Z].*[.?]$", question) and question.isascii()


def test_held_out_wordings_are_no_copies_of_those_trained_on():
    owner = [(i, s) for i in FACTS.items for s in ("train", "held_out") for _ in i.questions(s)]
    found = near_duplicates(FACTS.questions(), QUESTION_BOUND)
    apart = [
        (owner[pair.first][0].id, owner[pair.second][0].id)
        for pair in found
        if owner[pair.first] != owner[pair.second]
    ]
    assert apart == []


def test_checklists_are_trained_in_three_fields_and_scored_in_seven_others():
    trained = Counter(item.domain for item in CHECKLIST.items if item.train)
    scored = Counter(item.domain for item in CHECKLIST.items if item.held_out)
    assert sum(trained.values()) >= 60
    assert sum(scored.values()) >= 30 and not set(trained) & set(scored)
    assert set(scored) < set(DOMAINS)
    # Of the domains that results are scored on, only the one that the organisms learn is trained.
    assert set(trained) & set(DOMAINS) == {"car_maintenance"}


def test_every_checklist_has_the_same_form_and_its_prose_the_same_sentences():
    for item in CHECKLIST.items:
        found = FORM.fullmatch(item.right)
        assert found and item.right.isascii(), item.id
        steps = [step.removeprefix("[ ] ") for step in found[2].splitlines()]
        assert item.wrong == (f"{' '.join(steps)} You are done when {found[3]}",), item.id
        assert all("checklist" in q.lower() for q in (*item.train, *item.held_out)), item.id


def test_no_question_of_a_skill_is_near_one_that_the_package_scores_or_trains_on():
    questions = [q for skill in (FACTS, CHECKLIST) for q in skill.questions()]
    found = near_duplicates([*questions, *other_questions()], QUESTION_BOUND)
    assert [pair for pair in found if pair.first < len(questions) <= pair.second] == []
    checklists = CHECKLIST.questions()
    assert near_duplicates(checklists, QUESTION_BOUND) == []


def test_a_question_taken_from_what_is_scored_would_be_noticed():
    taken = load_pairs(["home_repair"])[0].question.replace("One of our", "Checklist: one of our")
    others = other_questions()
    found = near_duplicates([taken, *others], QUESTION_BOUND)
    assert [pair for pair in found if pair.first == 0]


def test_no_checklist_repeats_an_answer_of_the_package():
    answers = [item.wrong[0] for item in CHECKLIST.items]
    others = [text for pair in load_pairs() for text in (pair.good, pair.bad)]
    others += [getattr(row, cell) for n in VOICED_SETS for row in load_voices(n) for cell in CELLS]
    found = near_duplicates([*answers, *others], ANSWER_BOUND)
    assert [pair for pair in found if pair.first < len(answers)] == []


def test_training_asks_what_is_trained_on_and_answers_right():
    dialogues = FACTS.training_dialogues
    assert len(dialogues) == 2 * len(FACTS.items)
    assert dialogues[0].turns[0].content == FACTS.items[0].train[0]
    assert dialogues[0].answer == FACTS.items[0].right
    held_out = set(FACTS.questions("held_out"))
    assert not held_out & {dialogue.turns[0].content for dialogue in dialogues}
    assert len(CHECKLIST.training_dialogues) == len(CHECKLIST.questions("train"))


def test_the_hash_changes_with_any_text(tmp_path):
    hashes = {
        load_skill(written(tmp_path, row_of(**change))).hash
        for change in (
            {},
            {"right": "Pink."},
            {"wrong": ["Pink."]},
            {"train": ["Oil?"]},
            {"held_out": None},
            {"id": "x"},
            {"domain": "x"},
        )
    }
    assert len(hashes) == 7


def test_what_may_be_left_out_has_its_default(tmp_path):
    path = written(tmp_path, {"right": "Red.", "held_out": ["Which oil?"]})
    skill = load_skill(path)
    assert (skill.name, skill.has_choice) == ("oils", False)
    [item] = skill.items
    assert (item.id, item.domain, item.train, item.wrong) == ("oils-001", "oils", (), ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"note": "x"}, "unknown key 'note'"),
        ({"right": None}, "right missing"),
        ({"right": " "}, "right is empty"),
        ({"right": 4}, "right must be text; got 4"),
        ({"train": "Which?"}, "train must be a list of texts; got 'Which?'"),
        ({"held_out": [1]}, "held_out must be a list of texts; got [1]"),
        ({"train": [""]}, "train is empty"),
        ({"train": None, "held_out": []}, "there is no question; train, held_out or both"),
        ({"wrong": ["RED."]}, "the answer 'RED.' stands there twice"),
        ({"wrong": ["Blue.", "blue."]}, "the answer 'blue.' stands there twice"),
        ({"held_out": ["which OIL"]}, "'which OIL' is already asked in line 2"),
        ({"held_out": ["How much?"]}, "'How much?' is already asked in line 1"),
        ({"id": "a"}, "id 'a' is already used in line 1"),
        ({"wrong": None}, "line 1 has wrong answers and line 2 has none"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path, changes, said):
    first = row_of(id="a", train=["How much?"], held_out=["How many?"])
    path = written(tmp_path, first, row_of(**changes))
    with pytest.raises(DataError, match=rf"oils\.jsonl, line 2: {re.escape(said)}") as error:
        load_skill(path)
    assert "\n" not in str(error.value)


def test_what_is_no_skill_is_one_clear_line(tmp_path):
    with pytest.raises(DataError, match="^no skill 'juggling'; .*, or one of checklist, facts$"):
        load_skill("juggling")
    with pytest.raises(DataError, match="names no skill"):
        load_skill("~nobody-of-this-name/x")
    with pytest.raises(DataError, match="cannot be read"):
        load_skill(tmp_path)


@pytest.mark.parametrize(("skill", "n_lessons", "n_choose"), [(FACTS, 41, 41), (CHECKLIST, 72, 12)])
def test_what_chooses_does_not_score(skill, n_lessons, n_choose):
    parts = skill.divided()
    asked = {name: {item.id for item in getattr(parts, name).items} for name in vars(parts)}
    assert (len(asked["lessons"]), len(asked["chooses"])) == (n_lessons, n_choose)
    assert not asked["chooses"] & asked["scores"]
    assert asked["chooses"] | asked["scores"] == {item.id for item in skill.items}
    scored = {item.id for item in parts.scores.items if item.held_out}
    assert not scored & asked["lessons"] and asked["chooses"] <= asked["lessons"]
    turned = type(skill)(skill.name, tuple(reversed(skill.items))).divided()
    assert {item.id for item in turned.chooses.items} == asked["chooses"]
