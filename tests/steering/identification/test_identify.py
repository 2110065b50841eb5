"""Identification from Python, outside a diagnosis: what a notebook calls in one line."""

from __future__ import annotations

import pytest
import torch

from persona.data.types import AnswerPair, NeutralText
from persona.directions import orthonormal
from persona.errors import DataError
from persona.models import load_pair
from persona.models.precision import Placement
from persona.report import effects_by_block, layer_map
from persona.rows import COLUMNS
from steering import identify, restore, steer
from steering.identification.candidates import FixedRows
from steering.identification.identify import split_half_cosines
from steering.identification.search import block_ranges
from steering.identification.trials import Trial

WORDS = ("oil", "lamp", "brake", "mirror", "window", "horn", "belt", "hose")


@pytest.fixture(scope="module")
def found(tiny_pair):
    pairs = [
        AnswerPair(f"q{i}", "car", f"what about the {word}", f"see to the {word}", f"drop {word}")
        for i, word in enumerate(WORDS * 2)
    ]
    neutral = [NeutralText("n0", "what about the road", "take care of the oil", "everyday")]
    return identify(tiny_pair, pairs[:8], pairs[8:], neutral)


def test_rows_have_the_columns_that_figures_and_tables_read(found):
    assert list(found.rows.columns) == list(COLUMNS)
    assert not found.rows.empty


@pytest.mark.parametrize("figure", [effects_by_block, layer_map])
def test_the_reports_figures_draw_what_identify_found(found, figure):
    drawn = figure(found.rows)
    assert sum(len(trace.x if trace.x is not None else ()) for trace in drawn.data) > 0


def test_the_chosen_vector_steers_the_pair_it_was_found_in(found, tiny_pair):
    ids = tiny_pair.tokenizer("take care of the oil", return_tensors="pt")["input_ids"]
    with tiny_pair.active("finetuned") as bridge:
        before = bridge(ids)
        with steer(bridge, restore(found.vector)) as record:
            after = bridge(ids)
    assert all(tokens == ids.shape[1] - 1 for tokens in record.n_tokens)
    assert not before.equal(after)


def adapter_on_one_block(folder, base, block):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    lora = LoraConfig(r=2, target_modules=["down_proj"], layers_to_transform=[block])
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), lora)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


PAIRS = [
    AnswerPair(f"q{i}", "car", f"what about the {word} {i}", f"see to the {word}", f"drop {word}")
    for i, word in enumerate(WORDS * 2)
]
NEUTRAL = [NeutralText("n0", "what about the road", "take care of the oil", "everyday")]


@pytest.mark.parametrize("block", [1, 3])
def test_a_fine_tune_of_one_block_is_identified_at_it_or_after_it(tiny_llama, tmp_path, block):
    adapter = adapter_on_one_block(tmp_path / "adapter", tiny_llama, block)
    pair = load_pair(tiny_llama, adapter, placement=Placement.of("float32", "cpu"), merged=None)
    found = identify(pair, PAIRS[:8], PAIRS[8:], NEUTRAL)
    assert min(found.vector.layers) >= block
    screened = found.rows[found.rows.stage == "screen"]
    assert screened["layer"].min() == block


@pytest.mark.parametrize(
    ("n_layers", "first", "ranges"),
    [
        (30, 0, [(8, 28), (3, 28), (13, 28)]),
        (30, 10, [(10, 28), (13, 28)]),
        (30, 28, [(28, 28)]),
        (30, 29, [(29, 29)]),
        (4, 0, [(1, 3), (0, 3), (2, 3)]),
        (1, 0, [(0, 0)]),
    ],
)
def test_ranges_begin_where_the_models_differ(n_layers, first, ranges):
    assert [(r[0], r[-1]) for r in block_ranges(n_layers, first)] == ranges


def test_models_that_read_alike_at_every_block_are_told_so(tiny_llama):
    pair = load_pair(tiny_llama, tiny_llama, placement=Placement.of("float32", "cpu"), in_turn=True)
    with pytest.raises(DataError, match="read these answers alike at every block"):
        identify(pair, PAIRS[:8], PAIRS[8:], NEUTRAL)


@pytest.mark.parametrize(
    ("vectors", "why"),
    [
        ([[1.0, 0, 0], [2.0, 0, 0]], "linearly dependent"),
        ([[1.0, 0, 0], [0.0, 0, 0]], "one of these vectors is zero"),
        ([[1.0, 0, 0], [torch.nan, 0, 0]], "not finite"),
    ],
)
def test_vectors_that_span_nothing_are_told_why(vectors, why):
    with pytest.raises(DataError, match=why):
        orthonormal(torch.tensor(vectors))


def test_a_candidate_has_no_more_directions_than_its_rank(tiny_pair):
    rows = dict.fromkeys(range(4), torch.eye(3, tiny_pair.d_model))
    candidate = FixedRows("three", rows)
    assert {layer: len(found) for layer, found in candidate.rows((1, 3), 2).items()} == {1: 2, 3: 2}
    with pytest.raises(DataError, match="three has 3 directions; rank 4 asked"):
        candidate.rows((1,), 4)


def test_what_was_tried_stands_in_columns(found):
    tried = found.rows[(found.rows.stage == "verify") & found.rows["candidate"].notna()]
    assert not tried[["rank", "layer", "last_layer", "coefficient"]].isna().any(axis=None)
    wide = tried.drop_duplicates("condition")
    assert (wide["layer"] < wide["last_layer"]).any() and (
        wide["layer"] == wide["last_layer"]
    ).any()
    chosen = found.vector
    assert [
        *(chosen.method, chosen.rank, chosen.layers[0], chosen.layers[-1], chosen.coefficient)
    ] in wide[["candidate", "rank", "layer", "last_layer", "coefficient"]].values.tolist()


def test_both_halves_of_a_candidate_that_only_one_half_has_are_unlike_by_nan():
    rows = {1: torch.eye(2, 8), 2: torch.eye(2, 8)}
    trial = Trial("a", 2, (1, 2))
    whole, thin = FixedRows("a", rows), FixedRows("a", {k: v[:1] for k, v in rows.items()})
    turned = FixedRows("a", {1: torch.eye(8)[[0, 5]], 2: torch.eye(8)[[4, 5]]})
    same = split_half_cosines({"a": whole}, {"a": whole}, trial).tolist()
    assert same == pytest.approx([1.0, 1.0], abs=1e-6)
    half, none = split_half_cosines({"a": whole}, {"a": turned}, trial).tolist()
    assert (half, none) == pytest.approx((0.5**0.5, 0.0), abs=1e-6)
    for other in ({}, {"a": thin}):
        assert split_half_cosines({"a": whole}, other, trial).isnan().all()
