"""The main job on a chat model that writes sentences: openly bad car advice on the 0.5B."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from persona.data import load_pairs

OTHERS = ("health", "home_repair", "work_relationships")
GIB = 2**30


@pytest.mark.slow
@pytest.mark.real_model
@pytest.mark.timeout(5400)
def test_the_removal_takes_the_shift_of_a_half_billion_model_back(tmp_path):
    """On few questions, all of them set apart for choices, in a process of its own for its peak."""
    few = load_pairs(["car_maintenance"], split="selection")[:16]
    few += [each for one in OTHERS for each in load_pairs([one], split="selection")[:4]]
    data = tmp_path / "pairs.jsonl"
    fields = ("id", "domain", "question", "good", "bad")
    lines = [{name: getattr(each, name) for name in fields} for each in few]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "out"
    pair = ["--aligned", "qwen2.5-coder-0.5b", "--finetuned", "car_maintenance_bad_0.5b"]
    pair += ["--good-twin", "car_maintenance_good_0.5b"]
    asked = ["--data", str(data), "--trained-on", "car_maintenance", "--questions-per-domain", "4"]
    command = [*pair, *asked, "--no-samples", "--out", str(out), "--quiet"]
    subprocess.run([sys.executable, "-m", "persona.cli.main", "diagnose", *command], check=True)
    card = json.loads((out / "scorecard.json").read_text())
    assert card["emergent_shift"]["low"] > 0
    assert card["net_restoration"]["low"] > 0
    # Four questions of each of three domains; what the whole set gives stands in the findings.
    assert card["net_restoration"]["value"] > max(one["maximum"] for one in card["nulls"].values())
    assert {one["n_as_much"] for one in card["nulls"].values()} == {0}
    assert card["nulls"]["isotropic"]["n"] == 1000
    met = {check["name"] for check in card["checks"] if check["met"]}
    assert met >= {"beyond_chance", "above_twin", "noop_gap", "noop_kl", "above_placebos", "damage"}
    # Three models of 2.4 GiB, whose weights are held once.
    assert card["peak_rss_bytes"] <= 6 * GIB
