"""Both sides of a pair are what plain Transformers and PEFT compute, or the pair is refused."""

from __future__ import annotations

import shutil

import pytest
import torch
from tiny_models import save_tokenizer, tiny_causal_lm

from persona.errors import ModelError
from persona.models import load as loading
from persona.models import load_pair
from persona.models.precision import Placement

IDS = torch.arange(10, 30)[None]
MODULES = ["q_proj", "down_proj"]


def load(aligned, finetuned, **options):
    return load_pair(aligned, finetuned, placement=Placement.of("float32", "cpu"), **options)


@torch.no_grad()
def logits(pair, side):
    with pair.active(side) as bridge:
        return bridge(IDS).float()


def save_base(folder, family="llama", **options):
    tiny_causal_lm(family, **options).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_adapter(base, folder, config, **save):
    """An adapter of any kind, each of its trained tensors moved by a random step."""
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.2 * torch.randn_like(parameter))
    model.save_pretrained(folder, **save)
    return folder


@torch.no_grad()
def assert_right(pair, base, adapter, least=0.1):
    """Both sides to 1e-4, and an adapter that does something."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    plain = AutoModelForCausalLM.from_pretrained(base).eval()(IDS).logits
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), adapter)
    tuned = model.eval()(IDS).logits
    assert (tuned - plain).abs().max() > least
    for side in ("aligned", "finetuned", "aligned", "finetuned"):
        expected = plain if side == "aligned" else tuned
        torch.testing.assert_close(logits(pair, side), expected, atol=1e-4, rtol=1e-4)


def lora(modules=MODULES, **options):
    from peft import LoraConfig

    return LoraConfig(r=2, target_modules=modules, **options)


@pytest.mark.parametrize(
    ("family", "modules", "merged"),
    [
        ("gpt2", ["c_attn"], False),
        ("phi3", ["qkv_proj", "gate_up_proj"], None),
        ("gpt_neox", ["query_key_value"], False),
    ],
)
def test_an_adapter_on_a_fused_projection_is_held_as_two_models(tmp_path, family, modules, merged):
    base = save_base(tmp_path / "base", family)
    config = lora(modules, fan_in_fan_out=family == "gpt2")
    adapter = save_adapter(base, tmp_path / "adapter", config)
    pair = load(base, adapter, merged=merged)
    assert_right(pair, base, adapter)
    assert any("has no effect under the hooks" in note for note in pair.notes)
    assert not pair.one_copy_of_weights


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_an_adapter_that_changes_biases_leaves_the_aligned_side_the_base(tmp_path, bias):
    base = save_base(tmp_path / "base", "qwen2", tied=True)
    adapter = save_adapter(base, tmp_path / "adapter", lora(bias=bias))
    pair = load(base, adapter)
    assert_right(pair, base, adapter)
    assert "q_proj" in pair.notes[0] and "bias" in pair.notes[0]


@pytest.mark.parametrize(("start", "proof"), [("pissa", True), ("olora", False)])
def test_weights_that_an_adapter_took_from_its_base_are_given_back(
    tiny_llama, tmp_path, start, proof
):
    adapter = save_adapter(tiny_llama, tmp_path / start, lora(init_lora_weights=start))
    assert_right(load(tiny_llama, adapter, proof=proof), tiny_llama, adapter)


@pytest.mark.parametrize("start", ["mica", "orthogonal"])
def test_a_start_that_leaves_the_base_whole_is_one_copy(tiny_llama, tmp_path, start):
    adapter = save_adapter(tiny_llama, tmp_path / start, lora(init_lora_weights=start))
    pair = load(tiny_llama, adapter)
    assert_right(pair, tiny_llama, adapter)
    assert pair.notes == [] and pair.one_copy_of_weights


@pytest.mark.parametrize("in_turn", [False, True])
def test_a_base_that_an_adapter_changes_is_loaded_twice_and_no_more(
    tiny_llama, tmp_path, monkeypatch, in_turn
):
    adapter = save_adapter(tiny_llama, tmp_path / "pissa", lora(init_lora_weights="pissa"))
    loads, plain = [], loading._load_checkpoint
    monkeypatch.setattr(loading, "_load_checkpoint", lambda *a: loads.append(a) or plain(*a))
    pair = load(tiny_llama, adapter, in_turn=in_turn)
    assert len(loads) == (1 if in_turn else 2)  # in turn: the base again when it is asked for
    logits(pair, "aligned")
    assert len(loads) == 2


@pytest.mark.parametrize(("proof", "said"), [(True, 1), (False, 0)])
def test_a_side_that_is_not_loaded_yet_is_said_to_be_proven_later(
    tiny_llama, tmp_path, proof, said
):
    sibling = tmp_path / "sibling"
    shutil.copytree(tiny_llama, sibling)
    adapter = save_adapter(tiny_llama, tmp_path / "pissa", lora(init_lora_weights="pissa"))
    for finetuned in (sibling, adapter):
        pair = load(tiny_llama, finetuned, in_turn=True, proof=proof)
        notes = [note for note in pair.notes if "when first opened" in note]
        assert len(notes) == said


def test_two_models_of_one_adapter_can_be_loaded_in_turn(tiny_llama, tmp_path):
    adapter = save_adapter(tiny_llama, tmp_path / "pissa", lora(init_lora_weights="pissa"))
    pair = load(tiny_llama, adapter, in_turn=True)
    assert pair.one_copy_of_weights and "loaded in turn" in pair.notes[0]
    assert_right(pair, tiny_llama, adapter)


@pytest.mark.parametrize("where", ["embed_tokens", "lm_head"])
@pytest.mark.parametrize(
    ("tied", "saved", "merged"), [(True, False, None), (True, True, False), (False, True, True)]
)
def test_an_adapted_embedding_is_right_merged_or_not(tmp_path, where, merged, saved, tied):
    base = save_base(tmp_path / "base", tied=tied)
    adapter = save_adapter(
        base, tmp_path / "adapter", lora([*MODULES, where]), save_embedding_layers=saved
    )
    pair = load(base, adapter, merged=merged)
    assert_right(pair, base, adapter)
    assert pair.notes == []


@pytest.mark.parametrize("merged", [False, None])
@pytest.mark.parametrize("tied", [True, False])
def test_trained_tokens_are_taken_back_on_the_aligned_side(tmp_path, merged, tied):
    base = save_base(tmp_path / "base", tied=tied)
    config = lora(trainable_token_indices=[10, 12, 15])
    adapter = save_adapter(base, tmp_path / "adapter", config)
    pair = load(base, adapter, merged=merged)
    assert_right(pair, base, adapter)
    assert pair.notes == [] and pair.one_copy_of_weights


def save_mixtral(folder):
    import transformers

    torch.manual_seed(0)
    config = transformers.MixtralConfig(
        vocab_size=261,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        intermediate_size=32,
        num_local_experts=4,
        num_experts_per_tok=2,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
        initializer_range=0.2,
    )
    transformers.MixtralForCausalLM(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


@pytest.mark.parametrize("merged", [False, None, True])
def test_an_adapter_on_experts_is_right_merged_or_not(tmp_path, merged):
    base = save_mixtral(tmp_path / "base")
    config = lora(
        ["q_proj"], target_parameters=["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]
    )
    adapter = save_adapter(base, tmp_path / "adapter", config)
    pair = load(base, adapter, merged=merged)
    assert_right(pair, base, adapter)
    assert pair.notes == []


def test_an_adapter_of_biases_is_held_live_or_refused(tiny_llama, tmp_path):
    adapter = save_adapter(tiny_llama, tmp_path / "biased", lora(lora_bias=True))
    assert_right(load(tiny_llama, adapter), tiny_llama, adapter)
    with pytest.raises(ModelError, match="can be merged"):
        load(tiny_llama, adapter, merged=True)


def test_what_can_be_neither_switched_nor_merged_is_refused_by_name(tmp_path):
    base = save_base(tmp_path / "base", "phi3")
    adapter = save_adapter(base, tmp_path / "biased", lora(["qkv_proj"], lora_bias=True))
    with pytest.raises(ModelError, match=r"\(LORA\) can neither be switched nor merged") as caught:
        load(base, adapter)
    assert "\n" not in str(caught.value)


def prompt_tuning():
    from peft import PromptTuningConfig

    return PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)


def prefix_tuning():
    from peft import PrefixTuningConfig

    return PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)


@pytest.mark.parametrize(
    ("config", "words"), [(prompt_tuning, "PROMPT"), (prefix_tuning, "PREFIX")]
)
def test_a_kind_that_is_no_change_of_weights_is_refused_by_name(
    tiny_llama, tmp_path, config, words
):
    adapter = save_adapter(tiny_llama, tmp_path / "prompt", config())
    with pytest.raises(ModelError, match=f"of the kind {words}_TUNING"):
        load(tiny_llama, adapter)


def test_a_bridge_that_computes_something_else_is_refused_with_side_place_and_size(
    tiny_llama, tmp_path, monkeypatch
):
    sibling = tmp_path / "sibling"
    shutil.copytree(tiny_llama, sibling)
    built = loading.bridge_over

    def spoiled(model, *arguments):
        model.model.layers[2].mlp.down_proj.weight.data.mul_(1.5)
        return built(model, *arguments)

    monkeypatch.setattr(loading, "bridge_over", spoiled)
    with pytest.raises(ModelError, match=r"the aligned side .*differ by .*from blocks\.2 on"):
        load(tiny_llama, sibling)
    pair = load(tiny_llama, sibling, proof=False)
    assert any("not compared with plain Transformers" in note for note in pair.notes)


def test_a_side_that_is_loaded_again_is_proven_again(tiny_llama, tmp_path, monkeypatch):
    sibling = tmp_path / "sibling"
    shutil.copytree(tiny_llama, sibling)
    pair = load(tiny_llama, sibling, in_turn=True)
    logits(pair, "finetuned")
    loaded = loading._load_checkpoint

    def other(*arguments):
        model, tokenizer = loaded(*arguments)
        model.model.layers[0].mlp.down_proj.weight.data.mul_(2.0)
        return model, tokenizer

    monkeypatch.setattr(loading, "_load_checkpoint", other)
    with pytest.raises(ModelError, match="the aligned side"):
        logits(pair, "aligned")


@pytest.mark.parametrize("merged", [False, True])
def test_both_sides_of_an_adapter_pair_are_never_open_at_once(tiny_llama, tiny_adapter, merged):
    pair = load(tiny_llama, tiny_adapter, merged=merged)
    with pair.active("aligned"), pair.active("aligned"):
        with pytest.raises(ModelError, match="the aligned side is open"), pair.active("finetuned"):
            pass
    with pair.active("finetuned"):
        with pytest.raises(ModelError, match="the finetuned side is open"):
            logits(pair, "aligned")
    logits(pair, "aligned")


def test_nan_in_a_weight_is_named_where_it_stands(tiny_llama, tiny_adapter, tmp_path):
    import safetensors.torch as st

    broken = tmp_path / "broken"
    shutil.copytree(tiny_llama, broken)
    weights = st.load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 4] = float("nan")
    st.save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    for aligned, finetuned in ((broken, tiny_adapter), (tiny_llama, broken)):
        with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj\.weight has NaN"):
            load(aligned, finetuned, allow_mismatch=True)  # the adapter is of the whole weights


def test_the_text_of_the_proof_stays_within_vocabulary_and_context(tiny_chat):
    from persona.models.proof import proof_tokens

    config = tiny_causal_lm("llama").config
    config.max_position_embeddings = 6
    ids = proof_tokens(tiny_chat.tokenizer, config, [10, 12, 15, 400])
    assert ids.shape == (1, 6)
    assert ids[0, -3:].tolist() == [10, 12, 15]
    config.vocab_size = 3
    assert int(proof_tokens(tiny_chat.tokenizer, config).max()) < 3


def masked(model, first):
    """The model with -inf for all words from `first` on, as of a vocabulary that is padded."""
    inner = model.forward

    def forward(*args, **options):
        output = inner(*args, **options)
        output.logits[..., first:] = -torch.inf
        return output

    model.forward = forward
    return model


def test_a_model_that_rules_words_out_is_loaded_and_scored(tiny_chat):
    from persona.behaviour.scoring import Condition, score_dialogues
    from persona.models import pair_of
    from persona.models.chat.chat_format import TokenizedDialogue

    models = (masked(tiny_causal_lm("llama", seed=seed), 200) for seed in (0, 1))
    pair = pair_of(*models, tiny_chat.tokenizer)
    text = TokenizedDialogue(tuple(range(10, 30)), (5, 19))
    [read] = score_dialogues(pair, [text], [Condition("x", "finetuned")], kl_of=[True])
    assert 0 < read.kl[0] < 100 and read.log_prob[0] > -100


@pytest.mark.parametrize(("before", "under"), [(200, 199), (200, 201), (261, 200)])
def test_other_words_ruled_out_are_another_model(tiny_chat, monkeypatch, before, under):
    from persona.models import pair_of
    from persona.models.load import bridge_over

    def otherwise(plain, *args):
        return bridge_over(masked(tiny_causal_lm("llama"), under), *args)

    monkeypatch.setattr("persona.models.in_memory.bridge_over", otherwise)
    model = masked(tiny_causal_lm("llama"), before)
    with pytest.raises(ModelError, match="is not what the plain model computes: the logits differ"):
        pair_of(model, model, tiny_chat.tokenizer)


def test_a_model_that_rules_every_word_out_is_refused(tiny_chat):
    from persona.models import pair_of

    model = masked(tiny_causal_lm("llama"), 0)
    with pytest.raises(ModelError, match="logits that are not finite"):
        pair_of(model, model, tiny_chat.tokenizer)
