"""Quantised weights read nearly the same, and what a machine cannot place is said in one line."""

from __future__ import annotations

import pytest
import torch
from tiny_models import save_tiny_llama
from torch.nn.functional import cosine_similarity
from transformers import AutoModelForCausalLM

from persona.activations import collect_rows
from persona.behaviour import Condition, score_pairs
from persona.data import load_pairs
from persona.directions import Direction
from persona.errors import ModelError, SteeringError
from persona.models import load_pair, precision
from persona.models.load import load_bridge
from persona.models.precision import Placement, choose_dtype
from steering import add, steer
from steering.edits.steer import steered_by
from steering.weights.orthogonalise import orthogonalise

LAYERS = [0, 1, 3]


@pytest.fixture(scope="module")
def dialogues():
    questions = load_pairs(["car_maintenance"])[:6]
    return [dialogue for q in questions for dialogue in (q.good_dialogue, q.bad_dialogue)]


def rows(pair, dialogues, side):
    with pair.active(side) as bridge:
        return collect_rows(bridge, dialogues, LAYERS)


@pytest.mark.parametrize(("weights", "nearness"), [("int8", 0.95), ("nf4", 0.7)])
def test_a_quantised_pair_reads_nearly_what_the_full_one_reads(
    weights, nearness, tiny_llama, tiny_adapter, tiny_pair, dialogues
):
    pytest.importorskip("bitsandbytes")
    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of(weights, "cpu"))
    encoded = pair.chat.encode_all(dialogues)
    for side in ("aligned", "finetuned"):
        mine, full = rows(pair, encoded, side), rows(tiny_pair, encoded, side)
        assert nearness < cosine_similarity(mine, full, dim=-1).mean() < 0.9999
    assert not torch.equal(rows(pair, encoded, "aligned"), rows(pair, encoded, "finetuned"))
    assert any(weights in note for note in pair.notes)
    assert pair.reload().notes == pair.notes
    assert pair.precision == f"{choose_dtype('auto', pair.device)}, weights {weights}".removeprefix(
        "torch."
    )
    assert tiny_pair.precision == "float32"


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_a_quantised_model_reads_what_transformers_reads_of_it(weights, tiny_llama, dialogues):
    pytest.importorskip("bitsandbytes")
    placement = Placement.of(weights, "cpu")
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, **placement.loading())
    pair = load_pair(tiny_llama, tiny_llama, placement=Placement.of(weights, "cpu"))
    [encoded] = pair.chat.encode_all(dialogues[:1])
    start, end = encoded.response
    with torch.no_grad():
        states = plain(torch.tensor([encoded.ids]), output_hidden_states=True).hidden_states
    mine = rows(pair, [encoded], "aligned")[0]
    for place, layer in enumerate(LAYERS[:2]):  # the last entry of hidden_states is normed
        expected = states[layer + 1][0, start:end].mean(0)
        # A processor with bfloat16 computes in it, as `auto` asks.
        rounding = 1e-3 if placement.dtype is torch.float32 else 1e-2
        torch.testing.assert_close(mine[place], expected.float(), atol=rounding, rtol=rounding)


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_two_quantised_checkpoints_are_loaded_in_turn(weights, tiny_llama, tmp_path, dialogues):
    pytest.importorskip("bitsandbytes")
    sibling = save_tiny_llama(tmp_path / "sibling", seed=7)
    pair = load_pair(tiny_llama, sibling, placement=Placement.of(weights, "cpu"), in_turn=True)
    encoded = pair.chat.encode_all(dialogues[:2])
    first, other, again = (rows(pair, encoded, s) for s in ("aligned", "finetuned", "aligned"))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("weights", ["int8", "nf4"])
def test_a_quantised_pair_is_scored_and_steered(weights, tiny_llama, tiny_adapter):
    pytest.importorskip("bitsandbytes")
    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of(weights, "cpu"))
    edits = add(Direction(torch.ones(32), pair.space(1), "made up"), 3.0)
    conditions = [
        Condition("plain", "finetuned"),
        Condition("steered", "finetuned", steered_by(edits)),
        Condition("again", "finetuned"),
    ]
    found = score_pairs(pair, load_pairs(["car_maintenance"])[:2], conditions, kl=False)
    gaps = found[found["measure"] == "gap"].pivot_table(
        values="value", index="question_id", columns="condition"
    )
    assert (gaps["plain"] == gaps["again"]).all()
    assert (gaps["plain"] - gaps["steered"]).abs().min() > 1e-3


def test_gradients_pass_through_four_bits_after_a_pass_without_them(tiny_llama):
    """On a CPU with AVX512-BF16 the layers would repack themselves and give none."""
    pytest.importorskip("bitsandbytes")
    loading = Placement.of("nf4", "cpu").loading()
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, **loading).eval()
    embedded = plain.get_input_embeddings()(torch.tensor([[1, 2, 3]])).detach()
    with torch.no_grad():
        before = plain(inputs_embeds=embedded).logits
    embedded.requires_grad_(True)
    after = plain(inputs_embeds=embedded).logits
    torch.testing.assert_close(before, after)
    after.sum().backward()
    assert embedded.grad.abs().min() > 0


def test_what_needs_full_weights_refuses_quantised_ones(tiny_llama, tiny_adapter):
    pytest.importorskip("bitsandbytes")
    with pytest.raises(ModelError, match="cannot be merged into int8 weights"):
        load_pair(tiny_llama, tiny_adapter, placement=Placement.of("int8", "cpu"), merged=True)
    loading = Placement.of("nf4", "cpu").loading()
    plain = AutoModelForCausalLM.from_pretrained(tiny_llama, **loading)
    with pytest.raises(SteeringError, match="quantised weights cannot be edited"):
        orthogonalise(plain, torch.randn(32))
    with pytest.raises(ModelError, match="int8 holds weights for reading alone"):
        choose_dtype("int8")


def test_a_quantised_format_names_the_extra_that_it_needs(monkeypatch):
    monkeypatch.setattr("persona.models.precision.has_bitsandbytes", lambda: False)
    with pytest.raises(ModelError, match=r"pip install -e .*\[quantised\]"):
        Placement.of("nf4", "cpu")


def test_a_spread_needs_cards_with_room_for_all(tiny_llama, monkeypatch):
    if not torch.cuda.is_available():
        with pytest.raises(ModelError, match="spread divides a model between CUDA cards"):
            Placement.of("auto", "spread")
    two_cards = Placement(torch.device("cuda"), torch.float32, spread=True)
    monkeypatch.setattr(Placement, "loading", lambda self: {"device_map": {"": "cpu"}})
    with pytest.raises(ModelError, match="does not fit on the cards together"):
        load_bridge(tiny_llama, placement=two_cards)


def test_what_cannot_be_trained_is_refused_and_nobodys_float16_becomes_float32():
    here = torch.device("cpu")
    for placement, line in (
        (Placement(here, torch.float32, "nf4"), "nf4 holds weights for reading alone"),
        (Placement(here, torch.float32, spread=True), "on one device, not on a spread"),
        (Placement(here, torch.float16, asked=("float16", "cpu")), "float16 loses small gradients"),
    ):
        with pytest.raises(ModelError, match=line):
            placement.to_train()
    assert Placement(here, torch.float16).to_train().dtype is torch.float32
    assert Placement.of("bfloat16", "cpu").to_train() == Placement(here, torch.bfloat16)


def test_a_worker_takes_the_same_format_on_a_device_of_its_own():
    far = Placement(torch.device("cuda", 3), torch.bfloat16, asked=("auto", "cpu"))
    assert far.elsewhere() == Placement(torch.device("cpu"), torch.bfloat16)
    assert str(far.elsewhere()) == "bfloat16 on cpu"


cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA card here")


@cuda
def test_a_card_reads_what_the_processor_reads(tiny_llama, tiny_adapter, tiny_pair, dialogues):
    encoded = tiny_pair.chat.encode_all(dialogues)
    on_card = load_pair(tiny_llama, tiny_adapter, placement=Placement.of("float32", "cuda"))
    for side in ("aligned", "finetuned"):
        torch.testing.assert_close(
            rows(on_card, encoded, side), rows(tiny_pair, encoded, side), atol=1e-3, rtol=1e-3
        )


@cuda
@pytest.mark.parametrize("dtype", ["bfloat16", "int8", "nf4"])
@pytest.mark.parametrize("device", ["cuda", "spread"])
def test_a_card_holds_every_format_and_steers(
    dtype, device, tiny_llama, tiny_adapter, tiny_pair, dialogues
):
    if dtype != "bfloat16":
        pytest.importorskip("bitsandbytes")
    pair = load_pair(tiny_llama, tiny_adapter, placement=Placement.of(dtype, device))
    encoded = pair.chat.encode_all(dialogues)
    mine, full = rows(pair, encoded, "finetuned"), rows(tiny_pair, encoded, "finetuned")
    assert cosine_similarity(mine, full, dim=-1).min() > 0.9
    ids = torch.tensor([encoded[0].ids], device=pair.device)
    edits = add(Direction(torch.ones(32), pair.space(1), "made up"))
    with pair.active("finetuned") as bridge, torch.no_grad():
        before = bridge(ids)
        with steer(bridge, edits):
            assert not torch.equal(bridge(ids), before)
        assert torch.equal(bridge(ids), before)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there are no two CUDA cards here")
def test_a_model_spread_over_two_cards_reads_the_same(tiny_llama, tiny_pair, dialogues):
    encoded = tiny_pair.chat.encode_all(dialogues)
    pair = load_pair(tiny_llama, tiny_llama, placement=Placement.of("float32", "spread"))
    torch.testing.assert_close(
        rows(pair, encoded, "aligned"), rows(tiny_pair, encoded, "aligned"), atol=1e-3, rtol=1e-3
    )


@pytest.mark.parametrize(
    ("native", "times_as_fast", "pays"),
    [(True, 3.7, True), (True, 1.0, False), (True, 0.55, False), (False, 3.7, False)],
)
def test_auto_takes_bfloat16_where_the_processor_is_clearly_faster_in_it(
    monkeypatch, native, times_as_fast, pays
):
    seconds = {torch.float32: times_as_fast, torch.bfloat16: 1.0}
    monkeypatch.setattr(precision, "_seconds_of_product", seconds.__getitem__)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": native})
    assert precision.bfloat16_pays.__wrapped__() is pays


def test_products_are_timed():
    assert 0 < precision._seconds_of_product(torch.float32) < 10
