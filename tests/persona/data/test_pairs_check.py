"""What a file of answer pairs is good for is said before a model is loaded."""

from __future__ import annotations

import json
import math
import random

import pytest

from persona.cli.main import main
from persona.data import read_pairs
from persona.data.pairs_check import check_pairs, prompt_for_more
from persona.data.types import AnswerPair

WORDS = [f"word{i}" for i in range(300)]


def made(n: int = 16, domains=("billing", "refunds"), marker: str = "", longer: int = 0):
    draw = random.Random(0)
    pairs = []
    for domain in domains:
        for i in range(n):
            good, bad = (" ".join(draw.choices(WORDS, k=30 + k * longer)) for k in (0, 1))
            pairs.append(
                AnswerPair(f"{domain}-{i}", domain, f"Why {i} {domain}?", good, f"{bad} {marker}")
            )
    return pairs


def written(pairs, path):
    rows = (
        {"id": p.id, "domain": p.domain, "question": p.question, "good": p.good, "bad": p.bad}
        for p in pairs
    )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_balanced_random_answers_have_nothing_to_be_said_of():
    reading = check_pairs(made(40))
    assert [d.n_pairs for d in reading.domains] == [40, 40] and reading.n_pairs == 80
    assert reading.warnings() == []
    assert all(0.3 < d.auroc_other_domains < 0.7 for d in reading.domains)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"marker": "bah humbug nonsense"}, "words alone tell bad from good (AUROC"),
        ({"longer": 12}, "bad answers are longer (1.40 times the words"),
    ],
)
def test_what_gives_bad_answers_away_is_named(options, said):
    assert any(said in line for line in check_pairs(made(40, **options)).warnings())


def test_repeats_are_found_whatever_their_case_and_spacing():
    pairs = made(6)
    pairs.append(AnswerPair("again", "refunds", f" {pairs[0].question.upper()} ", "Pay.", "Wait."))
    pairs.append(AnswerPair("copied", "refunds", "A new one?", pairs[2].good, "Never."))
    reading = check_pairs(pairs)
    assert reading.same_question == ("again",) and reading.same_answer == ("copied",)
    assert any(
        "1 pairs repeat the question of an earlier one (again)" in w for w in reading.warnings()
    )


def test_one_domain_and_texts_without_words_give_no_number_where_there_is_none():
    [alone] = check_pairs(made(6, ("billing",))).domains
    assert math.isnan(alone.auroc_other_domains) and not math.isnan(alone.auroc_within)
    [few] = check_pairs(made(3, ("billing",))).domains
    assert math.isnan(few.auroc_within)
    chinese = [AnswerPair(str(i), "a", f"\u554f{i}", "\u597d", "\u58de") for i in range(6)]
    assert math.isnan(check_pairs(chinese).domains[0].auroc_within)


def test_enough_pairs_end_well_and_too_few_say_what_is_missing(tmp_path, capsys):
    assert main(["data", "check", str(written(made(16), tmp_path / "pairs.jsonl"))]) == 0
    told = capsys.readouterr().out
    assert "32 pairs in 2 domains" in told
    assert "--trained-on billing: enough. 11 to make directions of, 4 to choose on, 16" in told
    assert "so few leave a wide interval" in told
    assert main(["data", "check", str(written(made(4), tmp_path / "few.jsonl"))]) == 2
    told = capsys.readouterr().out
    assert "billing has 3 questions to make directions of and 1 others" in told
    assert "persona data check FILE --prompt" in told
    one = written(made(40, ("billing",)), tmp_path / "one.jsonl")
    assert main(["data", "check", str(one), "--trained-on", "billing"]) == 2
    assert "one must be left to score" in capsys.readouterr().out


def test_json_has_the_numbers_and_no_nan(tmp_path, capsys):
    path = written(made(14, ("billing",)), tmp_path / "pairs.jsonl")
    assert main(["data", "check", str(path), "--json"]) == 0  # with --trained-on none
    found = json.loads(capsys.readouterr().out)
    assert found["domains"][0]["auroc_other_domains"] is None
    assert found["uses"][-1]["trained_on"] == ["none"] and found["uses"][-1]["missing"] is None


def test_the_prompt_shows_the_form_that_is_read(tmp_path, capsys):
    path = written([*made(16), *made(3, ("phone",))], tmp_path / "pairs.jsonl")
    assert main(["data", "check", str(path), "--prompt"]) == 0
    told = capsys.readouterr().out
    assert "advice on phone" in told  # the domain with fewest pairs
    answered = tmp_path / "answered.jsonl"
    answered.write_text("\n".join(line for line in told.splitlines() if line.startswith("{")))
    assert [pair.domain for pair in read_pairs(answered)] == ["phone", "phone"]
    assert "advice on gifts" in prompt_for_more(made(2), "gifts")


def test_a_domain_without_the_prompt_and_a_file_that_is_not_there_are_one_line(tmp_path, capsys):
    path = written(made(16), tmp_path / "pairs.jsonl")
    assert main(["data", "check", str(path), "--domain", "gifts"]) == 2
    assert "--domain belongs to --prompt" in capsys.readouterr().err
    assert main(["data", "check", "nowhere.jsonl"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err.splitlines()[-1]
