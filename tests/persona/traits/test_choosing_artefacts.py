"""What a run takes: a file, what lies in its folder, or new texts; nothing unsound."""

from __future__ import annotations

import pytest

from persona.errors import DataError
from persona.traits import choose_artefacts, make_trait, write_trait

TRAIT = "flatters the user"


def never():
    raise AssertionError("a writer was opened")


def test_texts_are_written_before_anything_runs_and_then_taken_as_edited(tmp_path):
    made = choose_artefacts(TRAIT, tmp_path / "out", lambda: None)
    assert made.is_new
    assert made.path == tmp_path / "out" / "artefacts.json"
    text = made.path.read_text()
    made.path.write_text(text.replace("five minutes", "seven minutes"))
    again = choose_artefacts(f" {TRAIT}. ", tmp_path / "out", never)
    assert not again.is_new
    assert any("seven minutes" in q for q in again.artefacts.making + again.artefacts.proving)
    with pytest.raises(DataError, match=r"another trait \('flatters the user'\); choose another"):
        choose_artefacts("insults the user", tmp_path / "out", never)


def test_a_file_is_taken_by_either_name_and_nothing_is_written(tmp_path):
    path = write_trait(make_trait(TRAIT, None), tmp_path / "flattery.json")
    for trait, file in ((str(path), None), ("evil", path)):
        chosen = choose_artefacts(trait, tmp_path / "out", never, file=file)
        assert chosen.artefacts.name == "flattery"
    assert not (tmp_path / "out").exists()


def test_an_edit_that_names_the_trait_is_refused_by_its_line(tmp_path):
    path = choose_artefacts(TRAIT, tmp_path, lambda: None).path
    lines = path.read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if "five minutes" in line)
    lines[place] = lines[place].replace("My laptop", "My flattering laptop")
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=rf"artefacts.json, line {place + 1}: questions"):
        choose_artefacts(TRAIT, tmp_path, never)


@pytest.mark.parametrize("trait", ["", "rude", "missing.json"])
def test_a_trait_that_says_nothing_leaves_no_folder(trait, tmp_path):
    with pytest.raises(DataError):
        choose_artefacts(trait, tmp_path / "out", never)
    assert not (tmp_path / "out").exists()
