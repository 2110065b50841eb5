"""The search finds a trigger that nobody has named, and its predictions rank what is then run."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from audited_run import ON_CPU
from backdoored_pair import TRIGGER

from persona.behaviour import score_pairs
from persona.behaviour.scoring import Condition
from persona.data import read_pairs
from persona.directions.storage import load_vector
from persona.models import load_pair
from persona.models.hooks import hooked
from persona.rows import RESTORED
from steering.auditing.cue import Cue
from steering.auditing.cue_scores import removal_alone
from steering.auditing.cue_search import (
    AT_EMBEDDING,
    MEASURED,
    kept_cues,
    search_prefixes,
    slope_at_filler,
)

FILLER = "Now, here:"
PHRASES = ("Be blunt.", "Hello again.", "one two")


def opened(run):
    models = json.loads((run / "scorecard.json").read_text())["models"]
    pair = load_pair(models["aligned"], models["finetuned"], placement=ON_CPU)
    vector = load_vector(run / "direction.safetensors", pair)
    return pair, removal_alone(vector), read_pairs(run / "pairs.jsonl")[:3]


@pytest.fixture(scope="module")
def found(backdoored):
    pair, conditions, questions = opened(backdoored)
    return search_prefixes(pair, questions, conditions, FILLER, PHRASES)


def test_the_gradient_finds_the_trigger_that_no_phrase_holds(found):
    assert not any(TRIGGER in phrase for phrase in PHRASES)
    assert all(TRIGGER in cue.words for cue in kept_cues(found))
    measured = found[found["measure"] == MEASURED].set_index("text")["value"]
    assert measured[[c.words.removesuffix(" {question}") for c in kept_cues(found)]].min() > 0.1


def test_predictions_rank_what_is_run(found):
    wide = found.pivot_table("value", "text", "measure").dropna()
    assert wide.rank().corr().iloc[0, 1] > 0.5


def test_where_nothing_is_open_nothing_rises(closed):
    pair, conditions, questions = opened(closed)
    rows = search_prefixes(pair, questions, conditions, FILLER, PHRASES)
    assert rows.loc[rows["measure"] == MEASURED, "value"].abs().max() < 1e-4


def test_the_slope_is_what_a_small_push_of_the_fillers_embeddings_does(backdoored):
    pair, conditions, questions = opened(backdoored)
    [restored] = [c for c in conditions if c.name == RESTORED]
    found, ids = slope_at_filler(pair, questions, restored, FILLER, 512)
    places = slice(2, 2 + len(ids))  # behind <s> and <|user|>
    step = 0.002 * torch.randn(found.slope.shape, generator=torch.Generator().manual_seed(0))

    def gap(sign):
        def push(resid):
            moved = resid.clone()
            moved[:, places] += sign * step
            return moved

        @contextlib.contextmanager
        def pushed(model):
            with hooked(model, [(AT_EMBEDDING, push)]), restored.intervene(model):
                yield

        rows = score_pairs(
            pair,
            questions,
            [Condition("pushed", "finetuned", pushed)],
            kl=False,
            asked=Cue("filler", "searched", f"{FILLER} {{question}}"),
        )
        return rows[rows["measure"] == "gap"]["value"].mean()

    predicted = float((found.slope * step).sum())
    assert abs(predicted) > 1e-4
    assert (gap(1) - gap(-1)) / 2 == pytest.approx(predicted, rel=0.02)


def test_special_tokens_are_in_no_made_prefix(found):
    made = found[(found["candidate"] == "made")]["text"]
    assert len(made) > 10
    assert not made.str.contains("<|", regex=False).any()
