"""What chooses never scores, and what was trained on is never assumed."""

from __future__ import annotations

import json

import pytest

from persona.data import load_pairs
from persona.data.text import as_question
from persona.errors import DataError
from persona.organisms.learnt_domains import learnt_domains
from steering import DiagnoseConfig
from steering.diagnosis import Questions

WORDS = [
    "oil",
    "tyre",
    "lamp",
    "road",
    "door",
    "seat",
    "fuel",
    "wire",
    "bolt",
    "hose",
    "belt",
    "horn",
]


def row(domain, i, word, **changes):
    return {
        "id": f"{domain}-{i}",
        "domain": domain,
        "question": f"What about the {word} of my {domain}?",
        "good": f"take care of the {word}",
        "bad": f"throw out the {word}",
        **changes,
    }


ROWS = [row(domain, i, w) for domain in ("car", "home", "food") for i, w in enumerate(WORDS)]


@pytest.fixture
def questions(tmp_path):
    def of(rows=ROWS, finetuned="./my-adapter", **changes):
        path = tmp_path / "pairs.jsonl"
        path.write_text("".join(json.dumps(r) + "\n" for r in rows))
        # Paths as strings, as a person writes them.
        return Questions.of(DiagnoseConfig(finetuned, "out", data=str(path), **changes))

    return of


def asked(*lists):
    return [as_question(q.question) for some in lists for q in some]


def test_without_a_word_on_what_was_trained_on_the_domains_are_listed(questions):
    with pytest.raises(DataError) as refused:
        questions()
    line = str(refused.value)
    assert (
        "say what ./my-adapter was fine-tuned on: --trained-on DOMAIN, one of car, food, home"
        in line
    )
    assert "--trained-on none where you do not know" in line and "\n" not in line


def test_a_fine_tune_that_comes_along_knows_its_domain():
    assert learnt_domains("car_maintenance_bad") == ("car_maintenance",)
    assert learnt_domains("./my-adapter") is None
    found = Questions.of(DiagnoseConfig("car_maintenance_bad", "out"))
    assert found.domains_trained_on == ("car_maintenance",)
    assert {q.domain for q in found.train} == {"car_maintenance"}


def test_a_fine_tune_made_here_knows_its_domains(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: mine\ndata: {domains: [health, food_safety]}\n")
    assert learnt_domains(tmp_path) == ("health", "food_safety")
    found = Questions.of(DiagnoseConfig(str(tmp_path), "out"))
    assert found.domains_trained_on == ("health", "food_safety")
    (tmp_path / "recipe.yaml").write_text("name: mine\ndata: {file: own.jsonl}\n")
    assert learnt_domains(tmp_path) is None
    (tmp_path / "recipe.yaml").write_text("name: mine\ndata: {domains: [of_another_version]}\n")
    assert learnt_domains(tmp_path) is None
    (tmp_path / "recipe.yaml").write_text("{{{")
    assert learnt_domains(tmp_path) is None


def test_a_known_domain_that_the_data_lacks_has_to_be_said(questions):
    with pytest.raises(DataError, match="one of car, food, home"):
        questions(finetuned="car_maintenance_bad")


def test_where_nobody_knows_every_domain_scores_and_no_question_does_both(questions):
    found = questions(trained_on=("none",))
    assert found.domains_trained_on is None and found.trained_on == []
    assert {q.domain for q in found.held_out} == {"car", "home", "food"}
    assert {q.domain for q in found.train} == {"car", "home", "food"}
    assert not set(asked(found.train, found.selection)) & set(asked(found.held_out))
    assert not set(asked(found.train)) & set(asked(found.selection))
    few = questions(trained_on=("none",), validation_domains=("food",))
    assert {q.domain for q in few.selection} == {"food"}
    assert "food" not in {q.domain for q in few.held_out}


@pytest.mark.parametrize("trained_on", [(), ("none", "car"), ("car", "none")])
def test_nothing_and_none_beside_a_domain_are_refused(trained_on):
    with pytest.raises(DataError, match="none"):
        DiagnoseConfig("x", "out", trained_on=trained_on)


def test_a_domain_called_none_is_no_way_to_say_it(questions):
    rows = [*ROWS, row("none", 0, "oil")]
    with pytest.raises(DataError, match='a domain called "none"'):
        questions(rows, trained_on=("none",))


def test_a_question_that_chooses_does_not_score_under_another_name(questions, caplog):
    again = row("home", 99, "x", question="  what about THE oil, of my car ?")
    twice = row("food", 98, "x", question="What about the road of my food?")
    found = questions([*ROWS, again, twice], trained_on=("car",))
    assert "home-99" not in {q.id for q in found.held_out}
    roads = [q for q in found.held_out if "road of my food" in q.question]
    assert len(roads) == 1
    assert "2 questions are asked more than once or were trained on (" in caplog.text
    everything = asked(found.train, found.selection, found.held_out)
    assert len(set(everything)) == len(everything)


def test_what_a_shipped_fine_tune_was_trained_on_does_not_score_under_another_domain(caplog):
    config = DiagnoseConfig("car_maintenance_bad", "out", trained_on=("health",))
    found = Questions.of(config)
    taught = {as_question(p.question) for p in load_pairs(["car_maintenance"], "train")}
    assert not taught & set(asked(found.held_out))
    assert "were trained on" in caplog.text


def test_too_few_questions_once_each_is_counted_once(questions):
    rows = [row("car", i, "oil") for i in range(20)] + ROWS[12:]
    with pytest.raises(DataError, match="0 others to choose on; at least 8 and 4 are needed"):
        questions(rows, trained_on=("car",))


def test_three_domains_chosen_on_leave_nothing_to_score(questions):
    with pytest.raises(DataError, match="one must be left to score"):
        questions(trained_on=("car", "home", "food"))


def test_the_shipped_questions_are_asked_once_each(caplog):
    found = Questions.of(DiagnoseConfig("car_maintenance_bad", "out"))
    assert len(found.held_out) > 400 and not caplog.messages
