"""Readings of a skill equal a textbook's, and the share that is kept is the planted one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from planted_model import N_LAYERS, read_as_bad, save_base, save_constant_write
from transformers import AutoModelForCausalLM

from persona.behaviour import UNEDITED, Condition, score_skill, skill_kept
from persona.behaviour.skill_scores import UNLEARNT
from persona.data import Skill, SkillItem
from persona.directions import orthonormal
from persona.errors import DataError
from persona.models import hooked, load_pair
from persona.models.precision import Placement

ITEMS = (
    SkillItem(
        "a", "town", ("what river", "name it"), ("which water",), "it is Essel", ("it is Ov",)
    ),
    SkillItem("b", "town", ("how old",), ("since when", "age"), "very old", ("quite new now",)),
    SkillItem("c", "thing", ("how big",), (), "as a house", ("as a mouse",)),
)
SKILL = Skill("little", ITEMS)
BARE = Skill("bare", tuple(SkillItem(i.id, i.domain, i.train, i.held_out, i.right) for i in ITEMS))
RIGHT, WRONG = ("zebra zoo", "fuzzy zigzag"), ("calm home", "mild meal")
LETTERS = Skill(
    "letters",
    tuple(
        SkillItem(f"{right}{n}", "", (), (f"question {n}",), right, (wrong,))
        for n in range(8)
        for right, wrong in zip(RIGHT, WRONG, strict=True)
    ),
)


def value(rows, condition, item, split, measure):
    chosen = rows[
        (rows.condition == condition)
        & (rows.question_id == item)
        & (rows.split == split)
        & (rows.measure == measure)
    ]
    return chosen["value"].item()


def whole_and_mean(model, dialogue) -> tuple[float, float]:
    """Log-probability of the whole answer, and its mean over tokens."""
    start, end = dialogue.response
    with torch.no_grad():
        table = model(torch.tensor([dialogue.ids])).logits[0, start - 1 : end - 1]
    targets = torch.tensor(dialogue.ids[start:end])
    found = table.double().log_softmax(-1).gather(1, targets[:, None])
    return float(found.sum()), float(found.mean())


def test_the_measures_equal_the_textbook(tiny_pair, tiny_llama):
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    rows = score_skill(tiny_pair, SKILL, UNEDITED, token_budget=64)
    for item, split in ((ITEMS[0], "train"), (ITEMS[1], "held_out"), (ITEMS[2], "train")):
        expected: dict[str, list[float]] = {}
        for question in item.questions(split):
            dialogues = [item.answered(question, text) for text in (item.right, *item.wrong)]
            found = [whole_and_mean(model, d) for d in tiny_pair.chat.encode_all(dialogues)]
            (whole_right, right), (whole_wrong, wrong) = found
            for measure, number in (
                ("log_prob_right", right),
                ("margin_nats", right - wrong),
                ("choice_prob", 1 / (1 + np.exp(whole_wrong - whole_right))),
                ("choice_right", float(whole_right > whole_wrong)),
            ):
                expected.setdefault(measure, []).append(number)
        for measure, numbers in expected.items():
            read = value(rows, "aligned", item.id, split, measure)
            assert read == pytest.approx(np.mean(numbers), abs=1e-4), (item.id, measure)


def test_a_choice_among_four_is_a_quarter_where_all_are_equally_likely(tiny_pair):
    item = SkillItem("x", "", ("what",), (), "abc", ("abc ", " abc", "abc."))
    [found] = {
        round(value(rows, "aligned", "x", "train", "choice_prob"), 12)
        for rows in [score_skill(tiny_pair, Skill("x", (item,)), UNEDITED)]
    }
    assert 0 < found < 1
    # The four shares of the same four answers, each the right one in turn, add up to 1.
    answers = (item.right, *item.wrong)
    turns = [
        SkillItem(f"t{n}", "", ("what",), (), answers[n], answers[:n] + answers[n + 1 :])
        for n in range(4)
    ]
    rows = score_skill(tiny_pair, Skill("turns", tuple(turns)), UNEDITED)
    shares = [value(rows, "aligned", f"t{n}", "train", "choice_prob") for n in range(4)]
    assert sum(shares) == pytest.approx(1, abs=1e-4)
    rights = [value(rows, "aligned", f"t{n}", "train", "choice_right") for n in range(4)]
    assert sorted(rights) == [0, 0, 0, 1] and np.argmax(rights) == np.argmax(shares)


def test_batching_changes_no_reading(tiny_pair):
    small = score_skill(tiny_pair, SKILL, UNEDITED, token_budget=1)
    large = score_skill(tiny_pair, SKILL, UNEDITED, token_budget=4096)
    np.testing.assert_allclose(small["value"], large["value"], atol=1e-4)


def test_an_item_without_a_question_of_a_split_has_no_row_of_it(tiny_pair):
    rows = score_skill(tiny_pair, SKILL, UNEDITED)
    assert set(rows[rows.split == "held_out"].question_id) == {"a", "b"}
    assert set(rows[rows.split == "train"].question_id) == {"a", "b", "c"}
    assert set(rows.domain) == {"town", "thing"}
    only = score_skill(tiny_pair, SKILL, UNEDITED, splits=["held_out"])
    assert set(only.split) == {"held_out"}
    with pytest.raises(DataError, match="^the skill c has no questions under held_out$"):
        score_skill(tiny_pair, Skill("c", ITEMS[2:]), UNEDITED, splits=["held_out"])


def test_without_wrong_answers_there_is_recall_alone(tiny_pair):
    rows = score_skill(tiny_pair, BARE, UNEDITED)
    assert set(rows.measure) == {"log_prob_right"}
    whole = score_skill(tiny_pair, SKILL, UNEDITED)
    recall = whole[whole.measure == "log_prob_right"]["value"]
    np.testing.assert_allclose(rows["value"], recall, atol=1e-4)
    table = made({"aligned": [0, 0], "finetuned": [1, 2], "finetuned_restored": [1, 2]})
    assert skill_kept(table.assign(measure="log_prob_right")).measure == "log_prob_right"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory):
    """A fine-tune that learnt to write one word over another, along a known direction.

    Nothing is ever written along the second direction, in neither model.
    """
    folder: Path = tmp_path_factory.mktemp("skilled")
    skill = read_as_bad(folder / "reader", RIGHT, WRONG)
    other = torch.randn(1, skill.shape[1], generator=torch.Generator().manual_seed(2))
    both = orthonormal(torch.cat([skill, other]))
    learnt = 3.0 * both[0] * torch.sign(both[0] @ skill[0])
    base = save_base(folder / "base", both)
    tuned = save_constant_write(folder / "tuned", base, learnt, N_LAYERS - 1)
    return load_pair(base, tuned, placement=Placement.of("float32", "cpu")), learnt, both[1]


def edit(name, change) -> Condition:
    hook = f"blocks.{N_LAYERS - 1}.hook_resid_post"
    return Condition(name, "finetuned", lambda bridge: hooked(bridge, [(hook, change)]))


@pytest.mark.parametrize("measure", ["log_prob_right", "margin_nats", "choice_prob"])
def test_the_planted_share_is_found(planted, measure):
    pair, learnt, other = planted
    conditions = [
        *UNEDITED,
        edit("elsewhere", lambda resid: resid - (resid @ other)[..., None] * other),
        edit("back", lambda resid: resid - learnt),
        edit("halfway", lambda resid: resid - learnt / 2),
    ]
    rows = score_skill(pair, LETTERS, conditions)
    kept = {
        name: skill_kept(rows, restored=name, measure=measure)
        for name in ("elsewhere", "back", "halfway")
    }
    assert kept["elsewhere"].gained.low > 0.1
    assert kept["elsewhere"].share.value == pytest.approx(1, abs=1e-3)
    assert kept["back"].share.value == pytest.approx(0, abs=1e-3)
    assert kept["back"].lost.value == pytest.approx(kept["back"].gained.value, abs=1e-3)
    share = kept["halfway"].share
    assert 0.1 < share.low <= share.value <= share.high < 0.95
    assert share.n == len(LETTERS.items)


def made(by_condition: dict[str, list[float]], measure: str = "margin_nats") -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "condition": condition,
                "seed": 0,
                "question_id": f"q{n}",
                "domain": "d",
                "split": "held_out",
                "measure": measure,
                "value": float(number),
            }
            for condition, numbers in by_condition.items()
            for n, number in enumerate(numbers)
        ]
    )


def test_where_nothing_was_learnt_the_share_is_undefined_in_one_word():
    noise = np.random.default_rng(0).normal(0, 1, 40)
    for gain in (noise, -1 + 0 * noise, 0 * noise):
        rows = made({"aligned": [0.0] * 40, "finetuned": gain, "finetuned_restored": [0.5] * 40})
        found = skill_kept(rows)
        assert found.why_undefined == UNLEARNT == "unlearnt"
        assert np.isnan(found.share.value) and found.as_json()["share"] is None


def test_models_are_resampled_together_and_split_and_measure_are_kept_apart():
    gain = np.random.default_rng(1).normal(5, 2, 30)
    rows = made({"aligned": 0 * gain, "finetuned": gain, "finetuned_restored": 0.8 * gain})
    elsewhere = made({"aligned": gain, "finetuned": gain, "finetuned_restored": gain})
    rows = pd.concat(
        [rows, elsewhere.assign(split="train"), elsewhere.assign(measure="choice_prob")]
    )
    share = skill_kept(rows).share
    assert (share.value, share.low, share.high) == pytest.approx((0.8, 0.8, 0.8))
    assert skill_kept(rows, split="train").why_undefined == UNLEARNT
    assert skill_kept(rows, restored="finetuned").share.value == pytest.approx(1)


def test_a_condition_that_was_not_read_is_named():
    rows = made({"aligned": [0, 0], "finetuned": [1, 1]})
    with pytest.raises(
        DataError, match="^no readings of finetuned_restored on margin_nats, held_o"
    ):
        skill_kept(rows)
    rows = made({"aligned": [0, 0], "finetuned": [1, 1], "finetuned_restored": [1]})
    with pytest.raises(DataError, match="missing readings"):
        skill_kept(rows)


def test_a_share_of_few_items_without_ends_can_be_written():
    """Fieller's interval of four items, of which the gain is not sure to be more than nothing."""
    gains = [0.02, 0.9, 0.05, 0.6]
    rows = pd.DataFrame(
        [
            {"condition": name, "question_id": str(i), "split": "held_out", "value": value}
            for i, gain in enumerate(gains)
            for name, value in (
                ("aligned", 0.0),
                ("finetuned", gain),
                ("finetuned_restored", 0.8 * gain),
            )
        ]
    ).assign(measure="margin_nats")
    found = skill_kept(rows)
    assert found.gained.low > 0 and found.share.low == -np.inf
    written = found.as_json()["share"]
    assert written["value"] == pytest.approx(0.8)
    assert written["low"] is None and written["high"] is None
