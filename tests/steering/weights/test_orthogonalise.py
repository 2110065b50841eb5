"""Permanent edits equal their hooks, as weights, as a folder and as an adapter."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import FAMILIES, MORE_FAMILIES, save_tokenizer, tiny_bridge, tiny_causal_lm

from persona.directions.direction import Direction
from persona.errors import SteeringError
from persona.models.space import ActivationSpace
from steering.edits import interventions
from steering.edits.edit import orthonormal_rows
from steering.edits.from_directions import ablate, add, edits_at
from steering.edits.places import EVERY_WRITE
from steering.edits.steer import steer
from steering.weights.as_adapter import save_bias_adapter, save_orthogonalising_adapter
from steering.weights.orthogonalise import add_bias, orthogonalise, save_model

IDS = torch.arange(10, 22).reshape(2, 6)
PLAIN = [family for family in FAMILIES if not family.startswith("gemma")]


def direction(layer=1):
    vector = torch.randn(16, generator=torch.Generator().manual_seed(3))
    space = ActivationSpace("tiny", "1", f"blocks.{layer}.hook_resid_post", layer, 16)
    return Direction(vector, space, "planted")


def log_probs(model):
    with torch.no_grad():
        return model(IDS).logits.log_softmax(-1)


def assert_equal(one, other):
    torch.testing.assert_close(one, other, atol=1e-4, rtol=0)


def bytes_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.fixture(params=PLAIN)
def model(request):
    return tiny_causal_lm(request.param)


@pytest.fixture
def llama():
    return tiny_causal_lm("llama")


def hooked_log_probs(model, edits):
    with steer(model, edits, first_token=True):
        return log_probs(model)


def test_orthogonalised_weights_are_the_ablation_of_every_write(model):
    before, plain = bytes_of(model), log_probs(model)
    d = direction()
    for embedding, sites in (
        (True, EVERY_WRITE),
        (False, [site for site in EVERY_WRITE if "resid_pre" not in site]),
    ):
        seen = log_probs(orthogonalise(model, d.vector, embedding=embedding))
        assert_equal(seen, hooked_log_probs(model, ablate(d, at=sites)))
        assert (seen - plain).abs().max() > 1e-2
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_subspace_and_chosen_blocks_are_removed(llama):
    basis = orthonormal_rows(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)))
    sites = ["blocks.1.hook_attn_out", "blocks.1.hook_mlp_out"]
    edits = edits_at(sites, lambda h: interventions.ablate(h, basis), 16, "ablate")
    edited = orthogonalise(llama, basis, embedding=False, layers=[1])
    assert_equal(log_probs(edited), hooked_log_probs(llama, edits))


@pytest.mark.parametrize("blocks", [[0], [1], [0, 1]])
def test_orthogonalised_weights_are_no_ablation_of_block_outputs(llama, blocks):
    """What came into a block stands in its output, and no weight of the block sees that; taken out
    of everything before it, it is missing from what the block itself reads."""
    d = direction()
    edits = ablate(d, at=[f"blocks.{block}.hook_resid_post" for block in blocks])
    wanted = hooked_log_probs(llama, edits)
    for embedding in (False, True):
        for layers in (blocks, range(max(blocks) + 1)):
            baked = orthogonalise(llama, d.vector, embedding=embedding, layers=list(layers))
            assert (log_probs(baked) - wanted).abs().max() > 0.5


def test_a_tied_head_still_reads_what_it_read(tmp_path):
    from transformers import AutoModelForCausalLM

    model = tiny_causal_lm("llama", tied=True)
    d = direction()
    edited = orthogonalise(model, d.vector)
    expected = hooked_log_probs(model, ablate(d, at=EVERY_WRITE))
    assert_equal(log_probs(edited), expected)
    assert model.config.tie_word_embeddings
    save_model(edited, tmp_path / "folder")
    assert_equal(log_probs(AutoModelForCausalLM.from_pretrained(tmp_path / "folder")), expected)


def test_an_adapter_of_a_tied_model_leaves_its_head_alone(tmp_path):
    from peft import PeftModel

    model = tiny_causal_lm("llama", tied=True)
    v = direction().vector
    adapter = save_orthogonalising_adapter(model, v, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), adapter).eval()
    assert_equal(log_probs(adapted), log_probs(orthogonalise(model, v)))


@pytest.mark.parametrize("merged", [False, None, True])
def test_an_adapter_of_a_tied_model_makes_a_right_pair_merged_or_not(tmp_path, merged):
    """The head of a model with gains in its final norm shows at once which table it reads."""
    from persona.models import load_pair
    from persona.models.precision import Placement

    model = tiny_causal_lm("llama", tied=True)
    for name, gains in model.named_parameters():
        if "norm" in name:
            gains.data += 0.5 * torch.randn(gains.shape, generator=torch.Generator().manual_seed(1))
    base, v = tmp_path / "base", direction().vector
    model.save_pretrained(base)
    save_tokenizer(base)
    adapter = save_orthogonalising_adapter(model, v, tmp_path / "adapter")
    pair = load_pair(base, adapter, placement=Placement.of("float32", "cpu"), merged=merged)
    assert pair.notes == []
    for side, expected in (("finetuned", orthogonalise(model, v)), ("aligned", model)):
        with pair.active(side) as bridge, torch.no_grad():
            assert_equal(bridge(IDS).log_softmax(-1), log_probs(expected))


MIXTURES = ("mixtral", "qwen3_moe", "olmoe", "gpt_oss")
NORMED = ("olmo2", "glm4")


@pytest.mark.parametrize("family", MORE_FAMILIES)
def test_more_families_have_edited_weights_that_equal_the_hook_or_are_refused(family, tmp_path):
    model, d = tiny_causal_lm(family), direction()
    sites = [site for site in EVERY_WRITE if "resid_pre" not in site]
    if family in NORMED:
        for edit in (lambda: add_bias(model, 1, d.vector), lambda: orthogonalise(model, d.vector)):
            with pytest.raises(SteeringError, match=r"normalises .* use the hooks"):
                edit()
        return
    edited = orthogonalise(model, d.vector, embedding=False)
    ablated = ablate(d, at=sites)
    assert_equal(log_probs(edited), hooked_log_probs(model, ablated))
    if family in MIXTURES:
        with pytest.raises(SteeringError, match="a mixture of experts without one output"):
            add_bias(model, 1, d.vector)
        with pytest.raises(SteeringError, match="experts of a mixture, which no LoRA adapter"):
            save_orthogonalising_adapter(model, d.vector, tmp_path / "ad", embedding=False)
        return
    added = hooked_log_probs(model, add(d))
    assert_equal(log_probs(add_bias(model, 1, d.vector)), added)


def test_a_bias_adapter_reckons_with_a_multiplier(tmp_path):
    from peft import PeftModel

    model, d = tiny_causal_lm("granite"), direction()
    adapter = save_bias_adapter(model, 1, d.vector, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), adapter).eval()
    assert_equal(log_probs(adapted), hooked_log_probs(model, add(d)))


def test_a_norm_after_the_embedding_is_seen_in_the_edited_copy():
    model = tiny_causal_lm("bloom")
    with pytest.raises(SteeringError, match=r"not all that writes at blocks\.0\.hook_resid_pre"):
        orthogonalise(model, direction().vector)


@pytest.mark.parametrize("family", ["gemma2", "gemma3_text"])
def test_gemma_has_the_hooks_in_place_of_the_weights(family):
    model = tiny_causal_lm(family)
    d = direction()
    before = bytes_of(model)
    with pytest.raises(SteeringError, match="use the hooks"):
        orthogonalise(model, d.vector, embedding=False)
    edits = ablate(d, at=EVERY_WRITE)
    assert (hooked_log_probs(model, edits) - log_probs(model)).abs().max() > 1e-2
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())


def test_an_added_bias_is_the_hook_that_adds(model):
    before = bytes_of(model)
    d = direction()
    seen = log_probs(add_bias(model, 1, d.vector))
    assert_equal(seen, hooked_log_probs(model, add(d)))
    assert (seen - log_probs(model)).abs().max() > 1e-2
    after = model.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_adapter_and_folder_are_the_orthogonalised_model(model, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    embedding = model.config.model_type not in ("gpt2", "gpt_neox")
    v = direction().vector
    edited = orthogonalise(model, v, embedding=embedding)
    folder = save_model(edited, tmp_path / "folder")
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert torch.equal(log_probs(loaded), log_probs(edited))
    adapter = save_orthogonalising_adapter(model, v, tmp_path / "adapter", embedding=embedding)
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), adapter)
    assert_equal(log_probs(adapted.eval()), log_probs(edited))
    assert_equal(log_probs(adapted.merge_and_unload()), log_probs(edited))


@pytest.mark.filterwarnings("ignore:.*has no bias")
def test_the_bias_adapter_is_the_added_bias(model, tmp_path):
    from peft import PeftModel

    v = direction().vector
    adapter = save_bias_adapter(model, 1, v, tmp_path / "adapter")
    adapted = PeftModel.from_pretrained(copy.deepcopy(model), adapter).eval()
    assert_equal(log_probs(adapted), log_probs(add_bias(model, 1, v)))


def test_a_folder_holds_an_added_bias_or_says_what_does(llama, tmp_path):
    from transformers import AutoModelForCausalLM

    v = direction().vector
    edited = add_bias(llama, 1, v)
    loaded = AutoModelForCausalLM.from_pretrained(save_model(edited, tmp_path / "folder"))
    assert_equal(log_probs(loaded), log_probs(edited))
    with pytest.raises(SteeringError, match=r"no place for model.layers.1.*save_bias_adapter"):
        save_model(add_bias(tiny_causal_lm("qwen2"), 1, v), tmp_path / "qwen2")
    assert not (tmp_path / "qwen2").exists()


def test_what_no_weights_can_equal_is_refused(llama, tiny_chat, tmp_path):
    v = direction().vector
    for family in ("gemma2", "gemma3_text"):
        with pytest.raises(SteeringError, match="normalises what attention and MLP write"):
            orthogonalise(tiny_causal_lm(family), v)
        with pytest.raises(SteeringError, match="normalises what attention and MLP write"):
            add_bias(tiny_causal_lm(family), 1, v)
    with pytest.raises(SteeringError, match="cannot change biases and an embedding"):
        save_orthogonalising_adapter(tiny_causal_lm("gpt2"), v, tmp_path / "gpt2")
    with pytest.raises(SteeringError, match="d_model=5 but the model has d_model=16"):
        orthogonalise(llama, torch.ones(5))
    with pytest.raises(SteeringError, match="finite and non-zero"):
        orthogonalise(llama, torch.zeros(16))
    with pytest.raises(SteeringError, match="layer 9 is out of range"):
        add_bias(llama, 9, v)
    with pytest.raises(SteeringError, match="not under a bridge"):
        orthogonalise(tiny_bridge("llama", tiny_chat.tokenizer), v)
