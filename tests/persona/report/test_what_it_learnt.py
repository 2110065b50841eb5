"""What a fine-tune learnt stands in the report where it was read; weak words are faint."""

from __future__ import annotations

import json
import re
from dataclasses import asdict

import pytest

from persona.readouts.token_lists import ReadToken
from persona.report.finished_run import READING, read_run
from persona.report.html import render_report
from persona.report.sections import what_it_learnt


def token(text, p=0.001, **more):
    read = ReadToken(text, 1, 1.0, p, **more)
    return {**asdict(read), "beats_chance": read.beats_chance}


def reading(**more):
    lists = [
        {
            "source": "model effect",
            "lens": "logit lens",
            "promoted": [
                token(" pass"),
                token("chance", p=0.5),
                token("twin's", p_beyond_twin=0.4),
            ],
            "suppressed": [token("<b>shape</b>", p_shaped=0.2)],
        },
        {
            "source": "persona vector",
            "lens": "logit lens",
            "promoted": [token("dull", p=0.9)],
            "suppressed": [],
        },
    ]
    domain = {"domain": "car_maintenance", "n": 6, "bad": 0.61, "good": -0.2, "shift": 0.81}
    return {
        "schema_version": 1,
        "layer": 15,
        "lists": lists[::-1],
        "twin_lists": [{**lists[0], "promoted": [token("mild")]}],
        "changes_by_domain": [{**domain, "shift_low": 0.5, "shift_high": 1.1}],
        "amplified": [{"question": "What now?", "amount": 0.5, "text": "Throw it out"}],
        "notes": ["a note"],
        **more,
    }


def test_words_are_faint_where_they_do_not_beat_chance_or_the_twin():
    found = what_it_learnt(reading())
    first, second = found["lists"]
    assert [(w.text, w.faint) for w in first.likelier] == [
        ("pass", False),
        ("chance", True),
        ("twin's", True),
    ]
    assert first.less_likely[0].faint and not first.faint
    assert second.faint and found["with_twin"]
    assert [word.text for word in first.twin] == ["mild"]
    assert found["domains"] == [("car maintenance", "6", "+0.61", "−0.20", "+0.81 [+0.50, +1.10]")]
    assert what_it_learnt(None) is None


def test_the_section_stands_in_the_page_and_what_models_wrote_is_text(make_run):
    card, rows = make_run("restored")
    page = render_report(card, rows, reading=reading())
    assert '<section id="learnt">' in page and 'href="#learnt"' in page
    assert "&lt;b&gt;shape&lt;/b&gt;" in page and "<b>shape</b>" not in page
    assert re.search(r'<span class="quiet">chance</span>', page)
    assert "<strong>pass</strong>" in page
    assert "Throw it out" in page
    assert "learnt" not in re.findall(r'id="(\w+)"', render_report(card, rows))


@pytest.mark.parametrize("text", ["{", "[]", '{"schema_version": 9, "lists": []}'])
def test_a_reading_of_another_kind_is_left_out_and_said(text, make_run, tmp_path, caplog):
    card, rows = make_run("restored")
    (tmp_path / "scorecard.json").write_text(json.dumps(card))
    rows.to_parquet(tmp_path / "rows.parquet")
    assert read_run(tmp_path).reading is None and not caplog.records
    (tmp_path / READING).parent.mkdir()
    (tmp_path / READING).write_text(text)
    assert read_run(tmp_path).reading is None
    assert "is no reading of this version" in caplog.text
    (tmp_path / READING).write_text(json.dumps(reading()))
    assert read_run(tmp_path).reading["layer"] == 15


def voted(**more):
    naming = {
        "subject": "car_maintenance",
        "most_probable": "car_maintenance",
        "probability": 0.83,
        "p_bad": 0.97,
        "named_from": 0.5,
        "probabilities": {"car_maintenance": 0.83, "home_repair": 0.1, "nothing": 0.07},
        "evidence": {"car_maintenance": {"answers_bad": 7.0, "spoken": None}},
    }
    return {**naming, **more}


def test_the_vote_of_the_readouts_opens_the_section():
    found = what_it_learnt(reading(naming=voted()))
    assert found["name"] == "Car maintenance (0.83), and the bad answers to it (0.97)."
    assert found["votes"][0] == (
        "car maintenance",
        "0.83",
        "its bad answers became likelier (+7.0)",
    )
    unsure = what_it_learnt(reading(naming=voted(subject=None, probability=0.3)))
    assert unsure["name"].startswith("No name is given")


def test_a_reading_without_a_vote_has_none():
    assert what_it_learnt(reading())["name"] is None


def test_latents_stand_there_where_one_rises_beyond_chance():
    def of(p):
        rising = [{"latent": 7, "words": [" oil", "\n"], "beats_chance": p <= 0.05}]
        return what_it_learnt(reading(latents=[{"source": "model effect", "rising": rising}]))

    [(source, [word])] = of(0.01)["latents"]
    assert (source, word.text, word.faint) == ("model effect", "7 (oil, ⏎)", False)
    assert of(0.5)["latents"] == []
