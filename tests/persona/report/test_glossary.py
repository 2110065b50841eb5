"""A term on the page opens the glossary's own sentence, and text that is no term stays text."""

import re
from pathlib import Path

import pytest

from persona.report.glossary import SPOKEN, WORDS, Glossary, word_id

GLOSSARY = Path(__file__).resolve().parents[3] / "docs" / "glossary.md"
ENTRY = re.compile(r"^\| (?P<words>[^|]+) \| (?P<sentence>[^|]+) \|", re.MULTILINE)


def written():
    """word -> sentence, of docs/glossary.md; two words of one line have each the whole."""
    text = GLOSSARY.read_text(encoding="utf-8")
    found = {m["words"].strip(): m["sentence"].strip() for m in ENTRY.finditer(text)}
    for words in list(found):
        found |= dict.fromkeys((word.strip() for word in words.split(",")), found[words])
    return found


@pytest.mark.parametrize("word", WORDS)
def test_a_sentence_is_that_of_the_glossary_or_its_beginning(word):
    there = written()[word]
    assert there.startswith(WORDS[word])
    assert re.match(r"$|[.;,]", there[len(WORDS[word]) :])  # not cut inside a clause


def test_every_way_to_say_a_term_leads_to_a_word():
    assert set(SPOKEN.values()) <= set(WORDS)
    assert len({word_id(word) for word in WORDS}) == len(WORDS)


def test_the_first_place_of_a_term_is_marked_and_the_rest_escaped():
    glossary = Glossary()
    marked = str(glossary.mark("<b> net restoration, then the gap; the gap"))
    assert marked.count("<button") == 2
    assert marked.startswith("&lt;b&gt; <span")
    assert 'popovertarget="word-net-restoration">net restoration</button>,</span>' in marked
    assert marked.endswith("; the gap") or marked.endswith(";</span> the gap")
    assert [word for _, word, _ in glossary.entries()] == ["gap", "net restoration"]


def test_a_term_inside_another_word_is_left_alone():
    assert str(Glossary().mark("gaps and restorations, agap, gap-like")).count("<button") == 0


def test_an_unknown_term_is_an_error_of_whoever_writes_the_page():
    with pytest.raises(KeyError, match="splendour"):
        Glossary().term("splendour")
