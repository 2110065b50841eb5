"""A planted persona and a planted skill that overlap: one is taken, the other stays."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted_model import CARRIER, RIGHT, WRONG, read_as_bad, skilled_pair

from persona.behaviour.gap import score_pairs
from persona.behaviour.scoring import UNEDITED
from persona.behaviour.skill_scores import score_skill, skill_kept
from persona.data.skills import Skill, SkillItem
from persona.data.types import AnswerPair, NeutralText
from persona.directions import collect_cells, orthonormal, two_by_two
from persona.intervals import net_taken_back
from persona.rows import ALIGNED, FINETUNED, NOOP, RESTORED
from steering import identify, restore
from steering.edits.steer import edited
from steering.identification.candidates import FixedRows, Means
from steering.identification.search import few_blocks, front_of
from steering.identification.skill_candidates import (
    EIGEN_LESS_SLOPES,
    LESS_TWIN,
    MODEL_LESS_SLOPES,
    SKILL_CANDIDATES,
    SkillToKeep,
    leading,
    skill_candidates,
    skill_needs,
)
from steering.identification.trials import Outcome, Trial

WORDS = ("oil", "lamp", "brake", "mirror", "window", "horn", "belt", "hose")
PAIRS = [
    AnswerPair(f"q{i}", "car", f"what about the {word} {i}", f"see to the {word}", f"drop {word}")
    for i, word in enumerate(WORDS * 3)
]
NEUTRAL = [NeutralText("n0", "what about the road", "take care of the oil", "everyday")]
COSINE = 0.8


def lessons(*numbers):
    return Skill(
        "letters",
        tuple(
            SkillItem(
                f"item-{i}",
                "letters",
                (f"lesson {i} on the {WORDS[i % 8]}",),
                (f"the {WORDS[i % 8]}, number {i}?",),
                CARRIER + RIGHT,
                (CARRIER + WRONG,),
            )
            for i in numbers
        ),
    )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    texts = [[getattr(q, answer) for q in PAIRS] for answer in ("bad", "good")]
    return skilled_pair(tmp_path_factory.mktemp("skilled"), *texts, cosine=COSINE)


def found(pair, keep=None):
    return identify(pair, PAIRS[:8], PAIRS[8:14], NEUTRAL, keep=keep, max_damage=5.0)


def readings(pair, vector):
    """Net restoration and skill kept, on questions and items that chose nothing."""
    conditions = [*UNEDITED, edited(RESTORED, "finetuned", restore(vector))]
    noop = edited(NOOP, "aligned", restore(vector))
    rows = score_pairs(pair, PAIRS[16:], [*conditions, noop], kl=False)
    gaps = rows[rows["measure"] == "gap"].groupby("condition")["value"].mean()
    net = net_taken_back(np.array([gaps[name] for name in (FINETUNED, RESTORED, ALIGNED, NOOP)]))
    kept = skill_kept(score_skill(pair, lessons(*range(10, 20)), conditions))
    return float(net), kept.share.value


@pytest.fixture(scope="module")
def keep():
    return SkillToKeep(lessons(*range(6)), lessons(*range(6, 10)))


@pytest.fixture(scope="module")
def kept(pair, keep):
    return found(pair, keep)


def test_plain_removal_takes_the_persona_and_loses_the_skill(pair):
    net, share = readings(pair, found(pair).vector)
    assert net > 0.9
    assert share < 0.6


def test_with_a_skill_to_keep_the_persona_goes_and_the_skill_stays(pair, kept):
    assert kept.vector.method in SKILL_CANDIDATES
    net, share = readings(pair, kept.vector)
    assert net > 0.9
    assert share > 0.9


def test_without_the_candidates_made_for_it_the_skill_is_lost(pair, keep, monkeypatch):
    identifying = sys.modules[SkillToKeep.__module__.replace("skill_candidates", "identify")]
    monkeypatch.setattr(identifying, "skill_candidates", lambda *args: [])
    net, share = readings(pair, found(pair, keep).vector)
    assert net + share < 1.6


def test_less_the_twins_is_the_persona_and_off_the_slopes_is_off_them(pair, keep, tmp_path):
    """The twin has learnt the same skill and a third of the persona."""
    texts = [[getattr(q, answer) for q in PAIRS] for answer in ("bad", "good")]
    twin = skilled_pair(tmp_path, *texts, cosine=COSINE, norm=1.0)
    cells, train = collect_cells(pair, PAIRS[:8]), PAIRS[:8]
    effects, layers = two_by_two(cells), range(pair.n_layers)
    within = {layer: torch.eye(pair.d_model) for layer in layers}
    means = Means.of(cells, within)
    needs = skill_needs(pair, replace(keep, twin=lambda: twin), train, means.aligned)
    made = skill_candidates(pair, train, means, effects, within, needs, cells.aligned_good)
    rows = {one.name: one for one in made if isinstance(one, FixedRows)}
    assert {one.name for one in made} == set(SKILL_CANDIDATES)
    assert all(one.always_tried for one in made)
    persona = read_as_bad(tmp_path / "again", *texts)
    beyond = (cells.finetuned_good - collect_cells(twin, train).finetuned_good).mean(0)
    for layer in layers:
        expected = orthonormal(beyond[layer][None])
        torch.testing.assert_close(rows[LESS_TWIN].at[layer], expected, atol=1e-4, rtol=0)
        # Norms make the blocks write something else as well, but nothing along the persona.
        assert float(beyond[layer] @ persona[0]) == pytest.approx(2.0, abs=1e-3)
        for name in (MODEL_LESS_SLOPES, EIGEN_LESS_SLOPES):
            assert (rows[name].at[layer][:1] @ needs.slopes[layer].T).abs().max() < 1e-3
    assert needs.at_questions(slice(0, 2)).twin.shape[0] == 2


def outcome(name, gone, kept, **moves):
    return Outcome(Trial(name, 1, (0,)), gone, 1.0, 0.0, moves.get("noop_kl", 0.0), 0.0, kept)


def test_the_front_holds_what_nothing_beats_in_both():
    most, middle, keeps = outcome("a", 1.0, 0.3), outcome("b", 0.8, 0.7), outcome("c", 0.2, 1.0)
    beaten, overshoot = outcome("d", 0.7, 0.6), outcome("e", 1.5, 0.5)
    harmful, unread = outcome("f", 1.0, 1.0, noop_kl=0.2), outcome("g", 1.0, None)
    found = [beaten, keeps, most, harmful, middle, unread, overshoot]
    assert front_of(found, 0.05) == [most, middle, keeps]
    assert front_of([unread], 0.05) == []


def test_few_blocks_are_the_parts_of_the_middle_range():
    assert [(r[0], r[-1]) for r in few_blocks(30)] == [(8, 14), (15, 21), (22, 28)]
    assert few_blocks(4) == [(1,), (2,), (3,)]
    assert few_blocks(1) == []


def test_leading_rows_carry_something_and_are_orthonormal():
    thin = torch.outer(torch.arange(1.0, 6.0), torch.eye(8)[2])
    assert leading(thin, 4).abs().tolist() == torch.eye(8)[2:3].tolist()
    many = leading(torch.randn(6, 8, generator=torch.Generator().manual_seed(0)), 4)
    torch.testing.assert_close(many @ many.T, torch.eye(4), atol=1e-5, rtol=0)
