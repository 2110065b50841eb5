"""A skill that a run is told to keep: scored in every model, told of, and never what is scored."""

from __future__ import annotations

import dataclasses
import json

import pytest
from planted_model import N_LAYERS, read_as_bad, save_base, save_constant_write

from persona.behaviour.skill_scores import UNLEARNT
from persona.data import load_neutral, load_skill
from persona.errors import DataError
from persona.models.precision import Placement
from persona.report.skill_words import aim_in_words, skill_sentence
from persona.rows import ALIGNED, FINETUNED, FRONT, GOOD_TWIN, RESTORED, ZERO_ABLATED
from steering import DiagnoseConfig, diagnose
from steering.diagnosis import Questions
from steering.diagnosis.keeping import keeping_facts, skill_of

WORDS = ("oil", "tyre", "lamp", "road", "door", "seat", "fuel", "wire", "bolt", "hose", "belt")
SHORT = sorted(load_neutral(), key=lambda text: len(text.prompt) + len(text.answer))[:13]


def written(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lessons(right, wrong, n=12):
    """A skill: one word over another, whatever is asked."""
    return [
        {
            "train": [f"lesson {i} on {word}"],
            "held_out": [f"{word}, number {i}?"],
            "right": f"{right} {word}",
            "wrong": [f"{wrong} {word}"],
        }
        for i, word in enumerate((*WORDS, "rack")[:n])
    ]


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Config of a run on a fine-tune that adds one direction to every token, and nothing else."""
    folder = tmp_path_factory.mktemp("kept")
    rows = [
        {
            "id": f"{domain}-{i}",
            "domain": domain,
            "question": f"what about the {word} of my {domain}",
            "good": f"take care of the {word}",
            "bad": f"throw out the {word} now",
        }
        for domain in ("car", "home")
        for i, word in enumerate((*WORDS, "horn"))
    ]
    good, bad = ([row[answer] for row in rows] for answer in ("good", "bad"))
    direction = read_as_bad(folder / "plain", bad, good)
    base = save_base(folder / "base", direction)
    tuned = save_constant_write(folder / "tuned", base, 3.0 * direction[0], N_LAYERS - 1)
    return DiagnoseConfig(
        aligned=str(base),
        finetuned=str(tuned),
        out=folder / "out",
        data=written(folder / "pairs.jsonl", rows),
        trained_on=("car",),
        placement=Placement.of("float32", "cpu"),
        questions_per_domain=4,
        samples=False,
        good_twin=str(base),
        keep=str(written(folder / "lesson.jsonl", lessons("throw out", "take care"))),
    )


@pytest.fixture(scope="module")
def result(planted):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("steering.diagnosis.questions.load_neutral", lambda: SHORT)
        return diagnose(planted)


def test_what_is_the_persona_itself_is_not_kept(result):
    """The fine-tune is one direction: restoring takes all back, and with it what it learnt.

    Told to keep it, the search finds a reading that sees less persona on the skill's text, and so
    leaves some of it there; what it would choose untold is scored too.
    """
    kept = result.scorecard["skill_kept"]
    assert (kept["skill"], kept["measure"], kept["split"]) == ("lesson", "margin_nats", "held_out")
    assert kept["gained"]["low"] > 0.1 and kept["gained"]["n"] == 8
    [untold] = [one for one in kept["front"] if one["without_skill"]]
    assert untold["share"]["value"] == pytest.approx(0, abs=0.02)
    assert untold["net_restoration"]["value"] == pytest.approx(1, abs=0.02)
    [chosen] = [one for one in kept["front"] if one["chosen"]]
    assert chosen["share"]["value"] < 0.9
    assert chosen["share"]["value"] == pytest.approx(kept["share"]["value"])
    check = next(c for c in result.scorecard["checks"] if c["name"] == "skill_kept")
    assert check["met"] is False and result.scorecard["verdict"] != "restored"


def test_every_model_is_scored_on_every_wording(result):
    rows = result.rows[result.rows["stage"] == "skill"]
    names = [ALIGNED, FINETUNED, RESTORED, ZERO_ABLATED, GOOD_TWIN]
    rows = rows[rows["condition"] != FRONT]
    assert list(dict.fromkeys(rows["condition"])) == names
    assert (rows.groupby(["condition", "split", "measure"]).size() == 8).all()
    assert set(rows["split"]) == {"train", "held_out"}
    means = {c.pop("name"): c for c in result.scorecard["skill_kept"]["conditions"]}
    assert list(means) == names
    held_out = rows[(rows["split"] == "held_out") & (rows["measure"] == "choice_prob")]
    for name, of_one in means.items():
        read = held_out[held_out["condition"] == name]["value"].mean()
        assert of_one["choice_prob"] == pytest.approx(read)
    # The twin of this run is the aligned model.
    assert means[GOOD_TWIN]["margin_nats"] == pytest.approx(means[ALIGNED]["margin_nats"], abs=1e-4)


def test_summary_and_report_say_it_in_one_sentence(result):
    sentence = skill_sentence(result.scorecard)
    assert sentence.startswith("Skill kept: ") and "(8 items in words never" in sentence
    assert sentence in result.summary
    page = result.report.read_text(encoding="utf-8")
    assert "Skill kept: " in page and 'id="figure-skill_front"' in page
    aim = result.scorecard["skill_kept"]["at_restoration_0.8"]
    assert aim["net_restoration"]["value"] > 0.8 and aim_in_words(result.scorecard) in page


def test_an_unlearnt_skill_has_no_share_and_says_so(result):
    skill = load_skill("checklist")
    rows = result.rows.copy()
    of_skill = rows["stage"] == "skill"
    rows.loc[of_skill, "value"] = 0.0
    found = keeping_facts(rows, skill, 0)
    assert found is not None
    assert (found["share"], found["zero_ablated"], found["why_undefined"]) == (None, None, UNLEARNT)
    assert skill_sentence({"skill_kept": found}).startswith("Skill kept is undefined (unlearnt): ")
    assert keeping_facts(rows[~of_skill], skill, 0) is None
    assert keeping_facts(rows, None, 0) is None
    assert skill_sentence({}) == skill_sentence({"skill_kept": None}) == ""


@pytest.mark.parametrize(
    "asked", ["What about the LAMP of my home?", "so what about the horn of my home"]
)
def test_a_skill_that_asks_what_is_scored_is_refused_before_models_are_loaded(
    planted, tmp_path, monkeypatch, asked
):
    monkeypatch.setattr("steering.diagnosis.run.load_pair", None)
    rows = [*lessons("a", "b"), {"held_out": [asked], "right": "a", "wrong": ["b"]}]
    config = dataclasses.replace(
        planted,
        keep=str(written(tmp_path / "near.jsonl", rows)),
        questions_per_domain=None,
    )
    with pytest.raises(DataError, match="^the skill near asks .* is too near .*leave it out") as e:
        diagnose(config)
    assert "\n" not in str(e.value) and "question home-" in str(e.value)


def test_a_skill_of_too_few_items_is_refused(planted, tmp_path):
    few = written(tmp_path / "few.jsonl", lessons("a", "b", n=11))
    config = dataclasses.replace(planted, keep=str(few))
    with pytest.raises(
        DataError, match="^the skill few has 11 items with questions under held_out"
    ):
        skill_of(config, Questions.of(config))


def test_the_shipped_skills_are_kept_apart_from_all_that_ships(planted):
    config = dataclasses.replace(planted, data=None, trained_on=("car_maintenance",))
    questions = Questions.of(dataclasses.replace(config, questions_per_domain=None))
    for name in ("facts", "checklist"):
        skill = skill_of(dataclasses.replace(config, keep=name), questions)
        assert skill is not None and skill.name == name
    assert skill_of(dataclasses.replace(config, keep=None), questions) is None
