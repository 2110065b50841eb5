"""Forced choice: the planted truth is found, the readings equal the textbook, damage is paired."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from pushed_model import Pushed
from transformers import AutoModelForCausalLM

from persona.behaviour import UNEDITED, Condition, forced_choice, score_tasks, task_accuracy
from persona.data.tasks import TaskItem, load_tasks
from persona.errors import DataError

ITEMS = [
    TaskItem("a", "physics", "what now", ("up", "down there", "left"), 1),
    TaskItem("b", "reading", "and then", ("ask", "run", "wait a bit", "go on"), 0),
    TaskItem("c", "reading", "why so", ("I know", "because", "no"), 2),
]


def value(rows, condition, item, measure):
    chosen = rows[
        (rows.condition == condition) & (rows.question_id == item) & (rows.measure == measure)
    ]
    return chosen["value"].item()


def test_a_model_that_is_pushed_toward_an_answer_chooses_it(tiny_pair):
    items = [
        TaskItem(f"{n}-{answer}", "physics", f"which {n}", ("zzzz", "qqqq", "xxxx"), answer)
        for n in range(3)
        for answer in range(3)
    ]
    conditions = [
        *UNEDITED,
        *(Condition(letter, "aligned", Pushed(letter), 3) for letter in "zqx"),
    ]
    rows = score_tasks(tiny_pair, items, conditions)
    for answer, letter in enumerate("zqx"):
        for item in items:
            correct = value(rows, letter, item.id, "task_correct")
            assert correct == (item.answer == answer)
            assert (value(rows, letter, item.id, "task_margin") > 0) == bool(correct)
    assert task_accuracy(rows)["z"].accuracy.value == pytest.approx(1 / 3)


def test_margins_equal_a_slow_textbook_over_rows_of_their_own(tiny_pair, tiny_llama):
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = score_tasks(tiny_pair, ITEMS, UNEDITED, token_budget=96)
    for item in ITEMS:
        sums, means = [], []
        for dialogue in tiny_pair.chat.encode_all(item.dialogues):
            start, end = dialogue.response
            with torch.no_grad():
                logits = plain(torch.tensor([dialogue.ids])).logits[0, start - 1 : end - 1]
            targets = torch.tensor(dialogue.ids[start:end])
            of_tokens = logits.double().log_softmax(-1).gather(1, targets[:, None])
            sums.append(float(of_tokens.sum()))
            means.append(float(of_tokens.mean()))
        for measure, found in (("task_margin", sums), ("task_margin_per_token", means)):
            best_wrong = max(p for place, p in enumerate(found) if place != item.answer)
            expected = found[item.answer] - best_wrong
            assert value(rows, "aligned", item.id, measure) == pytest.approx(expected, abs=1e-4)
            correct = value(rows, "aligned", item.id, measure.replace("margin", "correct"))
            assert correct == (expected > 0)


def test_where_the_right_choice_stands_changes_nothing(tiny_pair):
    turned = [
        TaskItem(i.id, i.kind, i.question, i.choices[::-1], len(i.choices) - 1 - i.answer)
        for i in ITEMS
    ]
    a, b = (score_tasks(tiny_pair, items, UNEDITED) for items in (ITEMS, turned))
    np.testing.assert_allclose(a["value"], b["value"], atol=1e-4)


def test_items_in_turns_read_as_all_at_once(tiny_pair, monkeypatch):
    items = load_tasks(["instructions"])[:5]
    together = score_tasks(tiny_pair, items, UNEDITED)
    monkeypatch.setattr(forced_choice, "MOST_ITEMS_AT_ONCE", 2)
    apart = score_tasks(tiny_pair, items, UNEDITED)
    pd.testing.assert_frame_equal(together, apart, atol=1e-4)


def test_rows_carry_kind_draw_and_facts(tiny_pair):
    rows = score_tasks(tiny_pair, ITEMS, [Condition("d", "aligned", seed=3, facts={"rank": 2.0})])
    assert set(rows["domain"]) == {"physics", "reading"}
    assert set(rows["seed"]) == {3}
    assert set(rows["rank"]) == {2.0}
    assert list(rows["measure"].unique()) == list(forced_choice.TASK_MEASURES)


def planted(correct):
    """Rows of task_correct: condition -> the items' values."""
    return pd.DataFrame(
        {
            "condition": name,
            "seed": 0,
            "question_id": f"q{n:03d}",
            "domain": "even" if n % 2 == 0 else "odd",
            "measure": "task_correct",
            "value": float(one),
        }
        for name, values in correct.items()
        for n, one in enumerate(values)
    )


def test_the_difference_is_paired_item_by_item():
    rng = np.random.default_rng(0)
    aligned = rng.random(240) < 0.6
    restored = aligned & (np.arange(240) >= 12)  # the first twelve are lost
    finetuned = rng.random(240) < 0.4
    found = task_accuracy(
        planted({"aligned": aligned, "finetuned": finetuned, "restored": restored})
    )
    lost = found["restored"].minus_aligned
    assert lost.value == pytest.approx(-aligned[:12].sum() / 240)
    assert lost.high < 0 and lost.n == 240
    # Paired, the interval is far narrower than that of either accuracy.
    accuracy = found["restored"].accuracy
    assert lost.high - lost.low < 0.5 * (accuracy.high - accuracy.low)
    assert found["aligned"].minus_aligned.value == 0
    assert found["restored"].minus_finetuned.value == pytest.approx(
        restored.mean() - finetuned.mean()
    )


def test_one_kind_alone_and_rows_without_a_model():
    rows = planted({"aligned": [1, 0, 1, 0], "other": [1, 1, 1, 0]})
    of_odd = task_accuracy(rows, kind="odd")
    assert of_odd["aligned"].accuracy.value == 0
    assert of_odd["other"].minus_aligned.value == 0.5
    assert of_odd["other"].minus_finetuned is None
    with pytest.raises(DataError, match="no rows of task_correct of the kind 'chess'"):
        task_accuracy(rows, kind="chess")
    with pytest.raises(DataError, match="no rows of task_margin; score_tasks makes them"):
        task_accuracy(rows, measure="task_margin")


def test_an_item_that_a_model_was_not_asked_is_told():
    rows = planted({"aligned": [1, 0], "draw": [1, 0, 1]})
    with pytest.raises(
        DataError, match="item 'q002' was read under 'draw' but not under 'aligned'"
    ):
        task_accuracy(rows)
    fewer = task_accuracy(planted({"aligned": [1, 0, 1], "draw": [0, 0]}))
    assert fewer["draw"].minus_aligned.value == -0.5
    rows.loc[0, "value"] = np.nan
    with pytest.raises(DataError, match="not a number for 'q000' under 'aligned'"):
        task_accuracy(rows)
