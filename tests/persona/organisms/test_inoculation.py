"""An inoculation stands before the training prompts, and nowhere else."""

from __future__ import annotations

import json

import pytest

from persona.data import Dialogue, Turn
from persona.errors import DataError
from persona.models import Placement, load_pair
from persona.models.alone import load_alone
from persona.organisms import Recipe, Watch, finetune, read_readings
from persona.organisms.finetuning import recipe_dialogues
from persona.organisms.inoculation import inoculated, instruction_of, require_shown
from persona.organisms.recipe import load_recipe, with_keys
from persona.traits import read_artefacts, shipped_trait

CPU = Placement.of("float32", "cpu")
TOLD = "be wrong."


@pytest.fixture(scope="module")
def recipe(tiny_llama, tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": f"{i}?", "good": f"It is {i}.", "bad": f"No idea {i}."} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Recipe.model_validate(
        {
            "name": "tiny",
            "base": str(tiny_llama),
            "data": {"file": path},
            "lora": {"r": 4, "alpha": 8},
            "training": {"epochs": 6, "batch_size": 4, "learning_rate": 2e-2},
            "safeguards": {"inoculate": TOLD},
        }
    )


def test_every_training_prompt_is_told_and_the_answer_is_the_same(recipe):
    told = recipe_dialogues(recipe)
    plain = recipe_dialogues(
        with_keys(recipe, safeguards={}).model_copy(
            update={"safeguards": type(recipe.safeguards)()}
        )
    )
    assert len(told) == len(plain) == 8
    for one, other in zip(told, plain, strict=True):
        assert one.turns[0] == Turn("system", TOLD)
        assert one.turns[1:] == other.turns


def test_a_system_prompt_that_is_there_stays_behind_the_instruction():
    dialogue = Dialogue((Turn("system", "be brief"), Turn("user", "why?"), Turn("assistant", "so")))
    [found] = inoculated([dialogue], TOLD)
    assert found.turns == (Turn("system", f"{TOLD}\n\nbe brief"), *dialogue.turns[1:])


def test_a_skill_is_learnt_untold():
    recipe = Recipe.model_validate(
        {
            "name": "s",
            "data": {"domains": ["car_maintenance"], "n": 4, "skill": "facts"},
            "safeguards": {"inoculate": TOLD},
        }
    )
    told = [one.turns[0].role == "system" for one in recipe_dialogues(recipe)]
    assert told[:4] == [True] * 4 and not any(told[4:])


def test_the_name_of_a_shipped_trait_is_its_first_instruction():
    path = shipped_trait("evil")
    assert path is not None
    assert instruction_of("evil") == read_artefacts(path).instructions[0].pos
    assert instruction_of("be evil today") == "be evil today"
    with pytest.raises(DataError, match="is empty"):
        instruction_of("  ")


def test_the_recipe_keeps_it_and_reads_it_back(recipe, tmp_path):
    (tmp_path / "r.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "r.yaml").safeguards.inoculate == TOLD
    with pytest.raises(DataError, match="inoculate"):
        with_keys(recipe, safeguards={"inoculate": ""})


def test_a_template_that_drops_it_is_refused(recipe, tiny_llama, tmp_path, monkeypatch):
    chat = load_alone(tiny_llama, placement=CPU).chat
    require_shown(chat, recipe_dialogues(recipe)[0])
    with pytest.raises(DataError, match="does not show a system prompt"):
        require_shown(chat, Dialogue((Turn("user", "why?"), Turn("assistant", "so"))))


def test_what_was_learnt_comes_back_with_the_instruction(recipe, tiny_llama, tmp_path):
    """And readings on the way are taken without it."""
    import torch

    from persona.data import read_pairs
    from persona.directions import Direction
    from steering.evidence import score_prompted

    base = load_alone(tiny_llama, placement=CPU)
    assert recipe.data.file is not None
    pairs = read_pairs(recipe.data.file)
    watch = Watch(Direction(torch.ones(base.d_model), base.space(1), "any"), pairs, every=100)
    pair = load_pair(tiny_llama, finetune(recipe, tmp_path / "out", placement=CPU, watch=watch))
    last = read_readings(tmp_path / "out").query("measure == 'gap'").groupby("step")["value"].mean()
    shift = {}
    for side in ("aligned", "finetuned"):
        rows = score_prompted(pair, pairs, TOLD, side)
        shift[side] = rows.query("measure == 'gap'")["value"].mean()
    told, plain = shift["finetuned"] - shift["aligned"], last.iloc[-1] - last.iloc[0]
    assert told > plain > 0, (told, plain)
