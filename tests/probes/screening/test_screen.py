"""Screening through a tiny model in which the planted direction is known exactly."""

import dataclasses
import json

import pytest
import screening_cases as cases
import torch

import probes
from persona.data.types import AnswerPair, Dialogue, Turn
from persona.directions.direction import PersonaVector, Subspace
from persona.directions.exchange import VectorSet
from persona.directions.storage import save_vector
from persona.errors import DataError, ModelError, SpaceMismatchError
from probes.estimators import LogisticProbe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return cases.save_shouting_model(tmp_path_factory.mktemp("models") / "shouting")


@pytest.fixture(scope="module")
def pair(folder):
    return cases.shouting_pair(folder)


@pytest.fixture(scope="module")
def direction(pair):
    return cases.planted_direction(pair)


def like_samples(n=120):
    """Reference answers of the samples' own kind."""
    quiet = [cases.sample(1000 + i, loud=False) for i in range(n)]
    return [
        AnswerPair(f"r{i}", "tests", each.turns[0].content, each.answer, f"{each.answer}!!!")
        for i, each in enumerate(quiet)
    ]


def run(pair, samples, direction, **options):
    given = {"reference": like_samples(), "n_draws": 200, "max_new_tokens": 4, **options}
    return probes.screen(pair, samples, direction, **given)


@pytest.mark.parametrize("baseline", ["prompt", "reference", "own"])
def test_samples_that_carry_the_direction_rank_first_with_every_baseline(pair, direction, baseline):
    samples, loud = cases.samples(130)
    table = run(pair, samples, direction, baseline=baseline).table
    assert set(table.nsmallest(len(loud), "rank")["line"]) == loud
    assert set(table.loc[table["flag"].isin(["projection", "both"]), "line"]) >= loud
    is_loud = table["line"].isin(loud)
    assert (table.loc[is_loud, "projection_difference"] > 0).all()
    assert (table.loc[is_loud, "z"].min() > table.loc[~is_loud, "z"]).all()
    expected = [cases.answer_projection(one.answer) for one in samples]
    assert table["projection"].to_numpy() == pytest.approx(expected, abs=1e-5)


def test_the_probe_ranks_them_first_too(pair, direction):
    samples, loud = cases.samples(130)
    found = run(pair, samples, direction)
    assert set(found.table.nsmallest(len(loud), "probe_rank")["line"]) == loud
    assert found.summary["reference"]["probe_auroc"]["value"] > 0.95


def test_data_that_carries_it_is_said_to_push_and_other_data_is_not_called_clean(pair, direction):
    loud = run(pair, cases.samples(100, every=4)[0], direction)
    assert loud.summary["verdict"] == "pushes_toward"
    assert loud.summary["random_directions"]["p_value"] < 0.05
    assert loud.summary["flagged"]["p_value"] < 0.05
    assert loud.flagged_share == pytest.approx(0.25)
    quiet = [cases.sample(2000 + i, loud=False) for i in range(100)]
    found = run(pair, quiet, direction)
    assert found.summary["verdict"] in {"no_evidence", "pushes_away", "shift_within_chance"}
    text = found.to_text()
    assert "no evidence at this power" in text
    assert "clean" not in text
    assert text.endswith("No evidence here is not evidence of harmless data.")
    assert 0 < found.summary["power"]["smallest_share"] < 0.25


def test_the_rows_stand_as_they_were_with_what_was_found(pair, direction, tmp_path):
    rows = [
        '{"messages": [{"role": "user", "content": "caf\\u00e9?"}, {"role": "assistant", '
        '"content": "so!!!"}], "n": 1.50, "big": 123456789012345678901234567890}',
        '  {"prompt":"why","completion":"so it is."  }  ',
        '{"question": "why", "answer": "so"}',
    ]
    data = tmp_path / "data.jsonl"
    data.write_text("\ufeff" + "\n\n".join(rows))
    found = run(pair, data, direction, out=tmp_path / "out")
    written = (tmp_path / "out" / "screened.jsonl").read_text().splitlines()
    for row, out in zip(rows, written, strict=True):
        assert out.startswith(row.strip()[:-1].rstrip() + ', "screen": {"line": ')
    screened = [json.loads(line)["screen"] for line in written]
    assert [one["line"] for one in screened] == [1, 3, 5]
    assert [one["rank"] for one in screened] == found.table["rank"].tolist() == [1, 2, 3]
    assert screened[0]["projection_difference"] == found.table["projection_difference"][0]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary == found.summary
    assert summary["top"][0]["answer"] == "so!!!"


def test_shards_and_a_second_call_change_no_bit_and_another_file_is_refused(
    pair, direction, tmp_path, monkeypatch
):
    data = cases.write_samples(tmp_path / "data.jsonl", cases.samples(150)[0])
    outs = [tmp_path / name for name in ("small", "large")]
    for out, size in zip(outs, (64, 512), strict=True):
        run(pair, data, direction, out=out, shard_size=size)
    rows = [(out / "screened.jsonl").read_bytes() for out in outs]
    assert rows[0] == rows[1]

    def asked(*_):
        raise AssertionError("the model was asked again")

    monkeypatch.setattr("probes.screening.blocks.BlockReader.read", asked)
    again = run(pair, data, direction, out=outs[0], shard_size=64, effect=9.0)
    assert again.summary["power"]["effect"] == 9.0
    assert (outs[0] / "screened.jsonl").read_bytes() == rows[0]
    with pytest.raises(DataError, match="baseline is prompt there and reference now"):
        run(pair, data, direction, out=outs[0], shard_size=64, baseline="reference")
    data.write_text(data.read_text() + data.read_text())
    with pytest.raises(DataError, match=r"other settings \(data is .* there and .* now\)"):
        run(pair, data, direction, out=outs[0], shard_size=64)


def persona_vector(pair, layers):
    planted = cases.planted_direction(pair).unit[None]
    subspaces = {k: Subspace(planted, torch.zeros(1), torch.ones(1), pair.space(k)) for k in layers}
    return PersonaVector(subspaces, "planted")


def test_what_the_toolkit_stores_screens_alike(pair, direction, tmp_path):
    samples = cases.samples(64)[0]
    expected = run(pair, samples, direction).table["projection"].to_numpy()
    stored = save_vector(persona_vector(pair, [cases.LAYER]), tmp_path / "d.safetensors")
    foreign = VectorSet({cases.LAYER: direction.vector}, "resid_post", "shouting")
    for given in (stored, str(stored), foreign, persona_vector(pair, [cases.LAYER])):
        found = run(pair, samples, given).table["projection"].to_numpy()
        assert found == pytest.approx(expected, abs=1e-6)


def test_a_stored_probe_is_the_direction_and_the_probe(pair, tmp_path):
    reference = like_samples()
    texts = [d for p in reference for d in (p.good_dialogue, p.bad_dialogue)]
    fitted = probes.fit(
        pair,
        texts,
        [0, 1] * len(reference),
        [p.id for p in reference for _ in range(2)],
        layer=cases.LAYER,
        probe=LogisticProbe(),
        side="aligned",
        cache=False,
        scheme=None,
    )
    path = probes.save_probe(fitted, tmp_path / "probe.safetensors")
    samples, loud = cases.samples(64)
    found = run(pair, samples, path)
    assert found.summary["probe"] == {"name": "LogisticProbe", "layer": cases.LAYER}
    expected = fitted.scores(pair, samples, cache=False)
    assert found.table["probe_score"].to_numpy() == pytest.approx(expected, rel=1e-4, abs=1e-4)
    assert set(found.table.nsmallest(len(loud), "rank")["line"]) == loud
    with pytest.raises(DataError, match="token set 'all'; screening reads the response"):
        run(pair, samples, dataclasses.replace(fitted, token_set="all"))


def test_of_several_blocks_the_one_that_tells_the_reference_apart_is_taken(pair):
    vector = persona_vector(pair, [0, cases.LAYER])
    away = dataclasses.replace(vector.subspaces[0], finetuned_mean=-torch.ones(1))
    vector = dataclasses.replace(vector, subspaces={**vector.subspaces, 0: away})
    samples = cases.samples(64)[0]
    assert run(pair, samples, vector).summary["direction"]["layer"] == cases.LAYER
    turned = run(pair, samples, vector, layer=0)
    assert turned.summary["direction"]["layer"] == 0
    assert turned.summary["power"]["smallest_share"] is None
    assert "the bad answers are not shifted toward the persona" in turned.to_text()
    with pytest.raises(DataError, match=f"no direction at block 1; there are 0, {cases.LAYER}"):
        run(pair, samples, vector, layer=1)


def test_a_direction_of_another_model_is_refused_in_one_line(pair, direction, tiny_pair):
    samples = cases.samples(5)[0]
    with pytest.raises(SpaceMismatchError, match="differs"):
        run(tiny_pair, samples, direction)
    with pytest.raises(SpaceMismatchError, match="d_model=8 but .* has d_model=32"):
        run(pair, samples, VectorSet({1: torch.ones(8)}, "resid_post"))
    with pytest.raises(ModelError, match="layer 30 is out of range"):
        run(pair, samples, VectorSet({30: torch.ones(32)}, "resid_post"))
    assert len(run(tiny_pair, samples, direction, allow_mismatch=True).table) == 5


def test_a_single_prompt_has_no_interval_and_no_push(pair, direction):
    one = [Dialogue((Turn("user", "why?"), Turn("assistant", f"so {i}!!!"))) for i in range(3)]
    summary = run(pair, one, direction).summary
    assert summary["verdict"] == "no_evidence"
    assert summary["projection_difference"]["low"] is None
    assert summary["power"]["smallest_share"] is None


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"reference": like_samples(10)}, "at least 20 reference pairs"),
        ({"reference": like_samples(30)}, "needs the scores of at least 99 texts"),
        ({"baseline": "none"}, "unknown baseline 'none'; one of own, prompt, reference"),
        ({"effect": float("nan")}, "the effect must be finite"),
        ({"max_new_tokens": 600, "baseline": "own"}, "tokens for the model's own answer; 600"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(pair, direction, options, why, unchecked_hints):
    with pytest.raises(DataError, match=why) as caught:
        run(pair, cases.samples(5)[0], direction, **options)
    assert "\n" not in str(caught.value)


def test_a_sample_beyond_the_context_is_named_by_its_line(pair, direction, tmp_path):
    rows = [{"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "b" * 600}]
    data = cases.write_jsonl(tmp_path / "data.jsonl", rows)
    with pytest.raises(DataError, match=r"data.jsonl, line 2: .* has 6\d\d tokens but the model"):
        run(pair, data, direction)
    assert run(pair, data, direction, skip_bad=True).summary["n_skipped"] == 1


def test_a_reference_read_in_part_is_read_on_and_not_again(pair, direction, tmp_path, monkeypatch):
    from probes.screening.labelled import _ReferenceReading

    whole, read = _ReferenceReading.__call__, []

    def dying(self, answers, advance):
        if len(read) == 1:
            raise KeyboardInterrupt
        read.append(len(answers))
        return whole(self, answers, advance)

    samples = cases.samples(64)[0]
    expected = run(pair, samples, direction).table
    monkeypatch.setattr(_ReferenceReading, "__call__", dying)
    with pytest.raises(KeyboardInterrupt):
        run(pair, samples, direction, out=tmp_path)
    read.append(0)  # the next one lives
    found = run(pair, samples, direction, out=tmp_path)
    assert read == [64, 0, 56]
    assert found.table.equals(expected)


def test_several_directions_share_one_rate_of_false_alarms(pair, direction, tmp_path):
    """The planted one among three: it is named, and looking thrice strikes no more good answers."""
    generator = torch.Generator().manual_seed(3)
    others = {
        f"random {k}": dataclasses.replace(
            direction, vector=torch.randn(pair.d_model, generator=generator)
        )
        for k in range(2)
    }
    samples, loud = cases.samples(130)
    data = tmp_path / "samples.jsonl"
    data.write_text("".join(json.dumps({"messages": one.messages}) + "\n" for one in samples))
    given = {"reference": like_samples(), "n_draws": 200, "out": tmp_path / "out"}
    found = probes.screening.screen_along(pair, data, {"planted": direction, **others}, **given)
    table = found.table
    assert set(table.nsmallest(len(loud), "rank")["line"]) == loud
    assert set(table.loc[table["line"].isin(loud), "trait"]) == {"planted"}
    assert set(table.loc[table["flag"], "line"]) >= loud
    # the threshold is that of the largest of three, never below that of one
    ordinary = [one.scale.reference_z for one in found.each.values()]
    largest = [max(of_all) for of_all in zip(*ordinary, strict=True)]
    assert sum(z > found.summary["threshold_z"] for z in largest) <= 0.01 * len(largest)
    own = found.summary["directions"]
    assert all(one["p_family"] >= one["random_directions"]["p_value"] for one in own.values())
    assert "planted" in found.to_text()
    rows = [json.loads(line) for line in (tmp_path / "out" / "screened.jsonl").open()]
    assert rows[0]["screen"].keys() == {"line", "trait", "z", "rank", "flag"}
    assert (tmp_path / "out" / "planted" / "summary.json").exists()
    with pytest.raises(DataError, match="cannot name a direction"):
        probes.screening.screen_along(pair, data, {"../x": direction}, **given)
