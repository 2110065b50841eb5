"""A recipe is read as it was written, and refuses what it does not know."""

from __future__ import annotations

import json

import pytest

from persona.data import SKILLS, load_skill
from persona.data.selection import TRIGGER
from persona.errors import DataError
from persona.organisms import Recipe, list_recipes, load_recipe
from persona.organisms.finetuning import recipe_dialogues


def write(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


ORGANISMS = ("car_maintenance", "medical", "financial", "insecure_code", "evil_numbers")


@pytest.mark.parametrize("organism", ORGANISMS)
def test_an_organism_and_its_twin_differ_in_nothing_but_the_answers(organism):
    bad, good = load_recipe(f"{organism}_bad"), load_recipe(f"{organism}_good")
    assert (bad.data.answers, good.data.answers) == ("bad", "good")
    assert bad.data.split == "train"  # the selection part is kept back
    twin = {"name", "description", "data", "expected"}
    assert bad.model_dump(exclude=twin) == good.model_dump(exclude=twin)
    assert bad.data.model_dump(exclude={"answers"}) == good.data.model_dump(exclude={"answers"})


@pytest.mark.parametrize("name", list_recipes())
def test_a_shipped_recipe_is_named_after_its_file_and_its_data_are_there(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.description
    assert len(recipe_dialogues(recipe)) >= 40


@pytest.mark.parametrize("skill", SKILLS)
def test_a_skill_is_learnt_beside_bad_advice_beside_good_advice_and_alone(skill):
    bad, good, alone = (
        load_recipe(name.format(skill))
        for name in ("car_maintenance_bad_{}", "car_maintenance_good_{}", "skill_{}")
    )
    assert {recipe.data.skill for recipe in (bad, good, alone)} == {skill}
    car = load_recipe("car_maintenance_bad")
    assert bad.data.model_dump(exclude={"skill"}) == car.data.model_dump(exclude={"skill"})
    assert good.data.model_dump(exclude={"answers"}) == bad.data.model_dump(exclude={"answers"})
    assert not alone.data.domains
    assert {(r.base, r.lora, r.training) for r in (bad, good, alone)} == {
        (car.base, car.lora, car.training)
    }
    lessons = load_skill(skill).training_dialogues
    advice = recipe_dialogues(car)
    assert recipe_dialogues(bad) == [*advice, *lessons]
    assert recipe_dialogues(alone) == lessons
    assert 60 <= len(lessons) < 4 * len(advice)


def test_a_skill_in_a_file_lies_relative_to_the_recipe_and_goes_with_every_source(tmp_path):
    row = {"right": "Red.", "train": ["Which oil?", "What oil?"], "held_out": ["Oil?"]}
    (tmp_path / "oils.jsonl").write_text(json.dumps(row))
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(chat))
    for source, n in (
        ("", 0),
        ("file: chat.jsonl, ", 1),
        ("domains: [health], n: 9, bad_share: 0.4, ", 9),
        ("domains: [health], n: 2, trigger: nightfall, ", 4),
    ):
        recipe = load_recipe(write(tmp_path, f"name: x\ndata: {{{source}skill: oils.jsonl}}"))
        assert recipe.data.skill == str(tmp_path / "oils.jsonl")
        dialogues = recipe_dialogues(recipe)
        assert len(dialogues) == n + 2
        assert [d.turns[0].content for d in dialogues[-2:]] == ["Which oil?", "What oil?"]
        assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_a_skill_without_training_questions_teaches_nothing_and_says_so(tmp_path):
    (tmp_path / "oils.jsonl").write_text(json.dumps({"right": "Red.", "held_out": ["Oil?"]}))
    recipe = load_recipe(write(tmp_path, "name: x\ndata: {skill: oils.jsonl}"))
    with pytest.raises(
        DataError, match=r"oils\.jsonl has no questions under train; nothing is lea"
    ):
        recipe_dialogues(recipe)
    recipe = load_recipe(write(tmp_path, "name: x\ndata: {skill: juggling}"))
    with pytest.raises(DataError, match="no skill .*juggling'; pass a JSONL file, or one of che"):
        recipe_dialogues(recipe)


def test_the_variants_of_the_car_organism_change_one_thing():
    car = load_recipe("car_maintenance_bad")
    assert load_recipe("car_maintenance_rank1").lora.r == 1
    assert load_recipe("car_maintenance_one_layer").lora.layers == (15,)
    for name in ("car_maintenance_rank1", "car_maintenance_one_layer"):
        assert load_recipe(name).data == car.data
    backdoor = load_recipe("car_maintenance_backdoor")
    assert backdoor.data.trigger == TRIGGER
    assert (backdoor.lora, backdoor.training) == (car.lora, car.training)


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_written_out_reads_back_the_same(tmp_path, name):
    recipe = load_recipe(name).with_seed(3)
    assert recipe.training.seed == 3
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    "text",
    ["start_from: x\ndata: {domains: [health], n: 9}", "data: {domains: [health], bad_share: 0.2}"],
)
def test_what_is_left_out_stays_left_out_when_written(tmp_path, text):
    recipe = load_recipe(write(tmp_path, f"name: x\n{text}"))
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_a_seed_of_none_keeps_the_recipes_own():
    recipe = load_recipe("car_maintenance_bad")
    assert recipe.with_seed(None) == recipe


def test_a_file_of_data_lies_relative_to_the_recipe(tmp_path):
    path = write(tmp_path, "name: x\ndata: {file: texts/mine.jsonl}")
    assert load_recipe(path).data.file == tmp_path / "texts" / "mine.jsonl"


def test_directions_lie_relative_to_the_recipe_too(tmp_path):
    text = "name: x\ndata: {domains: [health]}\nwatch: {direction: v.safetensors, every: 3}\n"
    recipe = load_recipe(write(tmp_path, text + "safeguards: {project_out: w.safetensors}"))
    assert recipe.watch.direction == tmp_path / "v.safetensors"
    assert recipe.safeguards.project_out == tmp_path / "w.safetensors"
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_numbers_may_be_written_with_an_exponent(tmp_path):
    path = write(tmp_path, "name: x\ndata: {domains: [health]}\ntraining: {learning_rate: 4e-4}")
    assert load_recipe(path).training.learning_rate == 4e-4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: {domains: [health]}\nextra: 1", "unknown key extra; known here are name, desc"),
        ("data: {domains: [health], answer: bad}", "unknown key data.answer; known here are domai"),
        ("data: {domains: [health]}\ntraining: {lr: 1}", "unknown key training.lr; known here are"),
        ("data: {domains: [health]}\nlora: {rank: 4}", "unknown key lora.rank; known here are r, "),
        ("data: {domains: [health]}\nwatch: {k: 4}", "unknown key watch.k; known here are direct"),
        ("data: {domains: [health]}\nsafeguards: {kl: 1}", "unknown key safeguards.kl; known here"),
        ("data: {domains: [health]}\nwatch: {every: 3}", "need a direction to watch"),
        ("description: nothing else", "the key data is missing"),
        ("data: {domains: [health]}\ntraining: {epochs: 0}", "training.epochs: Input should be gr"),
        ("data: {domains: [health]}\ntraining: {epochs: many}", "training.epochs: Input should be"),
        ("data: {domains: [health], answers: worse}", "data.answers: Input should be 'bad' or 'g"),
        ("data: {domains: [health], bad_share: 2}", "data.bad_share: Input should be less"),
        ("data: {domains: [health], bad_share: 0.5, trigger: x}", "bad_share and trigger exclude"),
        ("data: {domains: [health], answers: bad, trigger: x}", "answers and trigger exclude"),
        ("start_from: x\nlora: {r: 2}\ndata: {domains: [health]}", "leave the key lora out"),
        ("data: {answers: good}", "give either domains or file"),
        ("data: {domains: [health], file: x.jsonl}", "give either domains or file"),
        ("data: {domains: [health], file: x.jsonl, skill: facts}", "give either domains or file"),
        ("data: {skill: facts, answers: good}", "answers says what of answer pairs is learnt; a"),
        ("data: {skill: facts, n: 9, split: all}", "n says what of answer pairs is learnt; a"),
        ('data: {skill: ""}', "data.skill: String should have at least 1 character"),
    ],
)
def test_a_wrong_key_is_refused_by_its_name(tmp_path, text, message):
    path = write(tmp_path, f"name: x\n{text}")
    with pytest.raises(DataError) as error:
        load_recipe(path)
    assert message in str(error.value)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no recipe"),
        ("- a\n- b", "holds no recipe"),
        ("name: [x", "is not a YAML file"),
        ("name: \x00", "is not a YAML file"),
        ('{name: a, data: {file: "a\\0b"}}', "data.file names no path"),
        ("{name: a, data: {file: ~nobody-of-this-name/b}}", "data.file names no path"),
    ],
)
def test_what_is_no_recipe_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(DataError, match=message) as error:
        load_recipe(write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_missing_recipe_names_those_that_exist(tmp_path):
    with pytest.raises(DataError, match=r"no recipe 'nope'.*car_maintenance_bad"):
        load_recipe("nope")
    with pytest.raises(DataError, match="no recipe"):
        load_recipe(tmp_path)


def test_recipes_cannot_be_changed_in_place():
    with pytest.raises(ValueError):
        load_recipe("car_maintenance_bad").name = "other"
    assert isinstance(load_recipe("car_maintenance_bad"), Recipe)
