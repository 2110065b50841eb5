"""Labels are about one run's answers, on disk at once, in an order that tells nothing."""

from __future__ import annotations

import json

import pandas as pd
import pytest
from judged_rows import BAD_SHARE, write_run

from persona.behaviour.judging.hand_labels import (
    HandLabels,
    in_blind_order,
    labelled_by_condition,
    read_answers,
)
from persona.errors import DataError
from persona.rows import ALIGNED, FINETUNED, RESTORED


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "run")


def test_answers_come_with_their_question_and_the_judges_scores(run):
    answers = read_answers(run)
    assert len(answers) == 20 * 2 * 3
    first = answers[0]
    assert (first.key, first.question) == ((ALIGNED, "q0", 0), "What about 0?")
    assert (first.answer, first.alignment, first.coherence) == ("good answer 0 0", 90.0, 80.0)


def test_wherever_one_stops_every_condition_has_as_many_labels(run):
    order = in_blind_order(read_answers(run))
    assert len(order) == len(set(order)) == 120
    for n in range(3, 121, 3):
        counts = [sum(a.condition == name for a in order[:n]) for name in BAD_SHARE]
        assert counts == [n // 3] * 3
    rounds = [tuple(a.condition for a in order[i : i + 3]) for i in range(0, 120, 3)]
    assert len(set(rounds)) == 6  # the place within a round gives nothing away
    assert order != in_blind_order(read_answers(run), seed=1)


def rename_restored(run):
    rows = pd.read_parquet(run / "rows.parquet")
    rows["condition"] = rows["condition"].replace(RESTORED, "restred")
    rows.to_parquet(run / "rows.parquet")


def test_labels_are_there_again_and_the_last_one_counts(run):
    answers = read_answers(run)
    labels = HandLabels(run, answers)
    labels.give(answers[0], "misaligned")
    labels.give(answers[0], "fine")
    again = HandLabels(run, answers)
    assert len(again) == 1
    assert again[answers[0]] == "fine"


def test_a_line_cut_off_while_it_was_written_is_left_out_and_the_next_is_whole(run):
    answers = read_answers(run)
    labels = HandLabels(run, answers)
    for answer in answers[:2]:
        labels.give(answer, "misaligned")
    labels.path.write_bytes(labels.path.read_bytes()[:-9])
    again = HandLabels(run, answers)
    assert (again[answers[0]], again[answers[1]]) == ("misaligned", None)
    again.give(answers[2], "fine")
    assert len(HandLabels(run, answers)) == 2


def test_labels_of_other_answers_are_refused(run, tmp_path):
    HandLabels(run, read_answers(run))
    other = write_run(tmp_path / "other", n_questions=5)
    (other / "labels.jsonl").write_bytes((run / "labels.jsonl").read_bytes())
    with pytest.raises(DataError, match="belongs to the answers of another run"):
        HandLabels(other, read_answers(other))


GOOD = {"condition": FINETUNED, "question_id": "q1", "draw": 0, "label": "misaligned"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"condition": "finetuned_maybe"}, "line 2: no condition 'finetuned_maybe' here"),
        ({"question_id": "q99"}, "line 2: no answer 0 to question 'q99'"),
        ({"draw": 7}, "line 2: no answer 7 to question 'q1'"),
        ({"label": "evil"}, "line 2: the label 'evil' is none of misaligned, fine, incoherent"),
        ({"more": 1}, "line 2 is no label: keys condition, question_id, draw, label"),
    ],
)
def test_a_wrong_line_is_named_and_nothing_is_taken(run, tmp_path, change, said):
    answers = read_answers(run)
    labels = HandLabels(run, answers)
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps(GOOD) + "\n" + json.dumps(GOOD | change) + "\n")
    with pytest.raises(DataError, match=said):
        labels.take(file)
    assert len(HandLabels(run, answers)) == 0


def test_labels_made_elsewhere_are_taken(run, tmp_path):
    answers = read_answers(run)
    file = tmp_path / "mine.jsonl"
    file.write_text("\n" + json.dumps(GOOD))
    assert HandLabels(run, answers).take(file) == 1
    found = labelled_by_condition(answers, HandLabels(run, answers), 40.0)
    assert list(found) == [ALIGNED, FINETUNED, RESTORED]
    assert list(found[FINETUNED].labels.values()) == [True]
    assert found[FINETUNED].by_judge == 0.0


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda run: (run / "rows.parquet").unlink(), "no finished run of persona diagnose"),
        (lambda run: (run / "rows.parquet").write_bytes(b"PAR1"), "cannot be read"),
        (rename_restored, "answers of the unknown condition 'restred'; known are aligned, fine"),
    ],
)
def test_a_folder_without_answers_is_one_line(run, break_it, said):
    break_it(run)
    with pytest.raises(DataError, match=said):
        read_answers(run)
