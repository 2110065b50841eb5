"""The traits that come along: sound, forty questions each, and taken by their name."""

from __future__ import annotations

import pytest

from persona.data import read_trait_json
from persona.traits import NONSENSE, PUBLISHED, choose_artefacts, faults_of, shipped_trait
from persona.traits.shipped_traits import SHIPPED


def test_each_file_has_its_name_and_each_name_its_file():
    assert {path.stem for path in SHIPPED.glob("*.json")} == {*PUBLISHED, *NONSENSE}
    assert len(PUBLISHED) == len(NONSENSE) == 7
    assert shipped_trait("rude") is None


@pytest.mark.parametrize("name", [*PUBLISHED, *NONSENSE])
def test_each_passes_the_check_and_has_two_halves_of_twenty(name, tmp_path):
    trait = read_trait_json(shipped_trait(name))
    assert faults_of(trait) == []
    assert (len(trait.instructions), len(trait.questions)) == (5, 40)
    found = choose_artefacts(name, tmp_path, lambda: pytest.fail("a writer was opened"))
    assert (len(found.artefacts.making), len(found.artefacts.proving)) == (20, 20)
    assert not list(tmp_path.iterdir())


def test_none_is_copied_from_the_published_files(shared_data):
    theirs = read_trait_json(shared_data / "fixtures" / "persona_vectors" / "evil.extract.json")
    ours = read_trait_json(shipped_trait("evil"))
    said = {text for pair in theirs.instructions for text in (pair.pos, pair.neg)}
    assert said.isdisjoint(text for pair in ours.instructions for text in (pair.pos, pair.neg))
    assert set(theirs.questions).isdisjoint(ours.questions)
