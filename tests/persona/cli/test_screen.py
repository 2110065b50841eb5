"""`persona screen`: a file, a model and a direction in; ranked rows, a verdict and an exit code."""

import json

import pytest
import screening_cases as cases
from scripted_sampler import stand_in_for_vllm

from persona.cli.main import main
from persona.directions.exchange import VectorSet, save_vector_set, write_control_vector


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The words of a screening of 70 samples, but for --out."""
    folder = tmp_path_factory.mktemp("screen")
    model = cases.save_shouting_model(folder / "model")
    vectors = VectorSet({cases.LAYER: cases.plant()[0].contiguous()}, "resid_post", "llama")
    save_vector_set(vectors, folder / "vector.safetensors")
    write_control_vector(vectors, folder / "vector.gguf")
    data = cases.write_samples(folder / "data.jsonl", cases.samples(70)[0])
    pairs = [
        {"id": p.id, "domain": p.domain, "question": p.question, "good": p.good, "bad": p.bad}
        for p in cases.reference_pairs()
    ]
    reference = cases.write_jsonl(folder / "reference.jsonl", pairs)
    words = f"screen {data} --aligned {model} --reference {reference} --dtype float32 --device cpu"
    return folder, words.split()


def test_the_top_samples_and_the_blind_spot_are_printed_and_the_rows_written(
    given, tmp_path, capsys
):
    folder, words = given
    options = ["--direction", str(folder / "vector.gguf"), "--out", str(tmp_path), "--top", "3"]
    assert main([*words, *options]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].split() == ["rank", "line", "difference", "z", "probe", "flag", "answer"]
    assert out[1].split()[0] == "1"
    assert out[1].endswith("!!!")
    assert out[4] == ""
    assert out[-2].startswith("Blind spot: data that carries a trait subliminally")
    assert out[-1] == f"rows: {(tmp_path / 'screened.jsonl').resolve()}"
    assert len((tmp_path / "screened.jsonl").read_text().splitlines()) == 70


def test_json_is_the_summary_and_fail_above_ends_with_three(given, tmp_path, capsys):
    folder, words = given
    vector = str(folder / "vector.safetensors")
    options = ["--direction", vector, "--out", str(tmp_path), "--json", "--fail-above"]
    assert main([*words, *options, "0.05"]) == 3
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert summary["flagged"]["by_projection"] == 7
    assert main([*words, *options, "0.2"]) == 0


def test_several_directions_are_screened_along_and_share_their_flags(given, tmp_path, capsys):
    folder, words = given
    trait = tmp_path / "loud"
    trait.mkdir()
    (trait / "vector.safetensors").write_bytes((folder / "vector.safetensors").read_bytes())
    other = VectorSet({cases.LAYER: cases.plant()[0].flip(0).contiguous()}, "resid_post", "llama")
    save_vector_set(other, tmp_path / "other.safetensors")
    options = ["--direction", str(trait), "--direction", str(tmp_path / "other.safetensors")]
    out = ["--out", str(tmp_path / "out"), "--fail-above", "0.05"]
    assert main([*words, *options, *out]) == 3
    told = capsys.readouterr().out
    assert "loud (block" in told and "other (block" in told and "along any direction" in told
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["flagged_by_trait"]["loud"] >= 6
    assert {one["trait"] for one in summary["top"][:6]} == {"loud"}
    for name in ("loud", "other"):
        assert (tmp_path / "out" / name / "summary.json").exists()
    twice = ["--direction", str(trait), "--direction", str(trait), "--out", str(tmp_path / "no")]
    assert main([*words, *twice]) == 2
    assert "two directions are called loud" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (["--direction", "none.safetensors"], "none.safetensors"),
        (["--direction", "vector.xyz"], "leaves its format open; say it with --from"),
        (["--direction", "vector.gguf", "--shard-size", "100"], "multiple of 64; got 100"),
        (["--direction", "vector.gguf", "--layer", "0"], "no direction at block 0"),
        (["--direction", "vector.gguf", "--reference", "data.jsonl"], "data.jsonl, line 1"),
        (["--direction", "vector.gguf", "--probe", "vector.safetensors"], "linear-probe"),
        (["--direction", "vector.gguf", "--workers", "2"], "belong to Ray: add --engine ray"),
        (
            ["--direction", "vector.gguf", "--engine", "ray", "--ray-address", "127.0.0.1:9"],
            "no Ray cluster at 127.0.0.1:9: Connection refused",
        ),
    ],
)
def test_bad_input_is_one_line(given, tmp_path, capsys, monkeypatch, change, why):
    folder, words = given
    monkeypatch.chdir(folder)
    (folder / "vector.xyz").touch()
    assert main([*words, *change, "--out", str(tmp_path / "out")]) == 2
    err = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(err) == 1
    assert why in err[0]


def test_own_answers_can_be_written_by_vllm(given, tmp_path, capsys, monkeypatch):
    stand_in_for_vllm(monkeypatch)
    folder, words = given
    options = ["--direction", str(folder / "vector.safetensors"), "--sampler", "vllm"]
    out = ["--out", str(tmp_path / "out")]
    assert main([*words, *options, "--baseline", "own", *out]) == 0
    capsys.readouterr()
    assert (
        json.loads((tmp_path / "out" / "summary.json").read_text())["job"]["sampler"] == "scripted"
    )
    assert main([*words, *options, *out]) == 2
    assert "add --baseline own" in capsys.readouterr().err
    assert main([*words, *options, "--baseline", "own", "--engine", "ray", *out]) == 2
    assert "take one of the two" in " ".join(capsys.readouterr().err.split())


def test_samples_can_be_read_by_vllm(given, tmp_path, capsys, monkeypatch):
    """What reads stands in the job, and gives what is read here."""
    stand_in_for_vllm(monkeypatch)
    folder, words = given
    words = [*words, "--direction", str(folder / "vector.safetensors")]
    out = {name: ["--out", str(tmp_path / name)] for name in ("here", "there")}
    assert main([*words, *out["here"]]) == 0
    assert main([*words, "--reader", "vllm", *out["there"]]) == 0
    job = {n: json.loads((tmp_path / n / "summary.json").read_text())["job"] for n in out}
    assert job["there"] == {**job["here"], "reader": "scripted"}
    rows = [(tmp_path / name / "screened.jsonl").read_text() for name in out]
    assert rows[0] == rows[1]
    capsys.readouterr()
    assert main([*words, *out["there"]]) == 2
    assert "reader is scripted there and None now" in " ".join(capsys.readouterr().err.split())


def test_a_malformed_line_is_named_or_left_out(given, tmp_path, capsys):
    folder, words = given
    data = tmp_path / "bad.jsonl"
    data.write_text((folder / "data.jsonl").read_text() + "{broken\n")
    options = ["--direction", str(folder / "vector.gguf"), "--out", str(tmp_path / "out")]
    words = ["screen", str(data), *words[2:]]
    assert main([*words, *options]) == 2
    assert f"error: {data}, line 71: not JSON" in capsys.readouterr().err
    options[-1] = str(tmp_path / "skipped")
    assert main([*words, *options, "--skip-bad"]) == 0
    assert "Left out: 1 lines that are no samples, the first line 71: not JSON" in (
        capsys.readouterr().out
    )


def test_the_page_on_screening_names_options_that_there_are(root, capsys):
    import re

    page = (root / "docs" / "how-to" / "screening.md").read_text(encoding="utf-8")
    assert main(["screen", "--help"]) == 0
    offered = capsys.readouterr().out
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", page))
    assert {"--baseline", "--skip-bad", "--fail-above"} <= named
    assert [option for option in named if option not in offered] == []
