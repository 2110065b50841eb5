"""Models that are in memory make a pair as those loaded by name do."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny_models import FAMILIES, TEMPLATE, tiny_causal_lm
from transformers import AutoModelForCausalLM, AutoTokenizer

from persona import pair_of
from persona.behaviour.scoring import Condition, score_dialogues
from persona.data.types import Dialogue, Turn
from persona.errors import ModelError
from persona.models import load_pair
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.in_memory import fingerprint
from persona.models.load import bridge_over

IDS = torch.arange(10, 30)[None]


@pytest.fixture(scope="module")
def tokenizer(tiny_llama):
    return AutoTokenizer.from_pretrained(tiny_llama)


@pytest.fixture
def model(tiny_llama):
    return AutoModelForCausalLM.from_pretrained(tiny_llama)


@pytest.fixture
def adapted(tiny_llama, tiny_adapter):
    from peft import PeftModel

    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tiny_adapter)


@torch.no_grad()
def logits(pair, side):
    with pair.active(side) as bridge:
        return bridge(IDS)


@torch.no_grad()
def plain_logits(model):
    return model.eval()(IDS).logits


def test_two_models_are_the_two_sides(tokenizer):
    one, two = tiny_causal_lm("llama"), tiny_causal_lm("llama", seed=1)
    expected = plain_logits(one), plain_logits(two)
    pair = pair_of(one, two, tokenizer, names={"aligned": "one", "finetuned": "two"})
    assert not pair.one_copy_of_weights
    assert pair.names == {"aligned": "one", "finetuned": "two"}
    for side, logit in zip(("aligned", "finetuned"), expected, strict=True):
        torch.testing.assert_close(logits(pair, side), logit, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("aligned", ["none", "itself", "the model under it"])
def test_a_peft_models_aligned_side_is_its_adapter_off(adapted, tiny_pair, tokenizer, aligned):
    given = {"none": None, "itself": adapted, "the model under it": adapted.get_base_model()}
    pair = pair_of(given[aligned], adapted, tokenizer)
    assert pair.one_copy_of_weights
    for side in ("aligned", "finetuned", "aligned"):
        torch.testing.assert_close(logits(pair, side), logits(tiny_pair, side))


def test_an_untouched_base_beside_a_peft_model_is_two_models(model, adapted, tokenizer, tiny_pair):
    pair = pair_of(model, adapted, tokenizer)
    assert not pair.one_copy_of_weights
    for side in ("aligned", "finetuned"):
        torch.testing.assert_close(logits(pair, side), logits(tiny_pair, side))


def test_an_aligned_model_that_carries_an_adapter_is_refused(adapted, model, tokenizer):
    with pytest.raises(ModelError, match="carries an adapter that PEFT put into it; pass the Peft"):
        pair_of(adapted.get_base_model(), model, tokenizer)


def test_bridges_are_taken_as_they_are(model, tokenizer):
    bridge = bridge_over(model, tokenizer, "m", torch.float32)
    pair = pair_of(bridge, bridge, tokenizer)
    assert pair.one_copy_of_weights
    with pair.active("finetuned") as opened:
        assert opened is bridge


def test_without_wrapping_the_models_are_handed_out_and_left_as_they_are(adapted, tokenizer):
    modules = [type(m) for m in adapted.modules()]
    pair = pair_of(None, adapted, tokenizer, wrap=False)
    with pair.active("finetuned") as opened:
        assert opened is adapted
    assert [type(m) for m in adapted.modules()] == modules
    assert (pair.n_layers, pair.d_model) == (4, 32)


def test_models_are_put_into_evaluation_mode(tokenizer):
    model = tiny_causal_lm("gpt2").train()
    pair_of(model, model, tokenizer)
    assert not model.training
    assert not any(p.requires_grad for p in model.parameters())


def test_the_tokenizer_is_copied_and_gets_padding(model, tokenizer):
    bare = copy.deepcopy(tokenizer)
    bare.pad_token = None
    pair = pair_of(model, model, bare)
    assert pair.tokenizer.pad_token == "</s>"
    assert bare.pad_token is None


def test_a_template_may_be_given_as_text_or_as_a_file(model, tokenizer, tmp_path):
    text = TEMPLATE.replace("<|", "[").replace("|>", "]")
    (tmp_path / "t.jinja").write_text(text)
    dialogue = Dialogue((Turn("user", "Hi"),), "d")
    pairs = [
        pair_of(model, model, tokenizer, chat_template=t, wrap=False)
        for t in (text, tmp_path / "t.jinja", str(tmp_path / "t.jinja"))
    ]
    assert {pair.chat.render(dialogue) for pair in pairs} == {"<s>[user]Hi</s>"}
    assert tokenizer.chat_template == TEMPLATE


def test_the_pair_answers_and_its_space_names_the_models_hash(tokenizer):
    model = tiny_causal_lm("llama")
    pair = pair_of(model, model, tokenizer)
    assert isinstance(pair.ask("Hi", max_new_tokens=3), str)
    assert pair.space(1).revision == pair.revisions["aligned"] == pair.revisions["finetuned"]


def test_one_changed_weight_is_another_model():
    one, two = tiny_causal_lm("llama"), tiny_causal_lm("llama")
    assert fingerprint(one) == fingerprint(two)
    two.model.layers[1].mlp.down_proj.weight[3, 5] += 1e-3
    assert fingerprint(one) != fingerprint(two)


def test_another_setting_is_another_model():
    one, two = tiny_causal_lm("llama"), tiny_causal_lm("llama")
    two.config.rms_norm_eps = 1e-3
    assert fingerprint(one) != fingerprint(two)


def test_a_model_has_one_hash_plain_and_under_an_adapter(model, adapted, tokenizer):
    pair = pair_of(None, adapted, tokenizer, wrap=False)
    assert pair.revisions["aligned"] == fingerprint(model) != pair.revisions["finetuned"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi3"])
def test_a_model_keeps_its_hash_under_the_bridge_of_a_pair(tokenizer, family):
    model = tiny_causal_lm(family)
    first = pair_of(model, model, tokenizer)
    again = pair_of(model, model, tokenizer)
    assert again.revisions == first.revisions
    assert fingerprint(model) == fingerprint(tiny_causal_lm(family)) == first.revisions["aligned"]
    with again.active("aligned") as bridge, torch.no_grad():
        bridge.blocks[1].attn.q.weight[0, 0] += 1e-3  # of gpt2 and phi3 the bridge's own
    changed = fingerprint(model)
    assert changed != first.revisions["aligned"]
    with torch.no_grad():
        model.get_input_embeddings().weight[3, 5] += 1e-3
    assert fingerprint(model) not in (changed, first.revisions["aligned"])


def test_an_adapter_put_on_later_is_another_model(model, tokenizer):
    first = pair_of(model, model, tokenizer).revisions["aligned"]
    for scale in (1.0, 2.0):
        layer = model.model.layers[0].mlp
        layer.register_parameter("lora_A", torch.nn.Parameter(torch.full((2, 2), scale)))
        assert fingerprint(model) != first


def test_the_strength_of_an_adapter_is_part_of_its_model(adapted):
    before = fingerprint(adapted)
    adapted.peft_config["default"].lora_alpha *= 2
    assert fingerprint(adapted) != before


def test_a_pair_in_memory_does_not_travel(model, tokenizer):
    import pickle

    with pytest.raises(ModelError, match="put together by hand"):
        pickle.dumps(pair_of(model, model, tokenizer, wrap=False))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda m: (None, m), "without an aligned model the fine-tuned one has to be a PeftModel"),
        (lambda m: (m, "m"), "causal LMs, PeftModels or bridges; got a str"),
        (lambda m: (m, m.model), "LlamaModel has no LM head"),
        (lambda m: (m, tiny_causal_lm("llama")), "hidden_size is 16 against 32"),
        (lambda m: (m, copy.deepcopy(m).to("meta")), "not in memory|move them to one device"),
        (
            lambda m: (
                None,
                get_peft_model(m, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)),
            ),
            "PROMPT_TUNING puts tokens before the text",
        ),
    ],
)
def test_what_makes_no_pair_is_one_line(model, tokenizer, make, says):
    with pytest.raises(ModelError, match=says) as error:
        pair_of(*make(model), tokenizer)
    assert "\n" not in str(error.value)


def test_something_else_in_the_tokenizers_place_is_named(model):
    with pytest.raises(ModelError, match="the third argument is the models' tokenizer; got a int"):
        pair_of(model, model, 3)


def test_load_pair_names_the_function_for_models_in_memory(model, unchecked_hints):
    with pytest.raises(
        ModelError, match=r"this is a LlamaForCausalLM; for models in memory: persona"
    ):
        load_pair("default", model)


def test_an_architecture_that_no_bridge_knows_is_one_line(tokenizer, model, monkeypatch):
    def refuse(*args):
        raise ValueError("unknown\narchitecture")

    monkeypatch.setattr("persona.models.in_memory.bridge_over", refuse)
    with pytest.raises(ModelError, match=r"no bridge can be put over a Llama.*wrap=False"):
        pair_of(model, model, tokenizer)


def test_a_lora_of_another_start_is_right_too(model, tokenizer):
    torch.manual_seed(1)
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], use_dora=True))
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    on = plain_logits(tuned)
    with tuned.disable_adapter():
        off = plain_logits(tuned)
    pair = pair_of(None, tuned, tokenizer)
    torch.testing.assert_close(logits(pair, "finetuned"), on, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(pair, "aligned"), off, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("options", [{"bias": "all"}, {"init_lora_weights": "pissa"}])
def test_an_adapter_that_leaves_changes_behind_needs_the_untouched_model(
    model, tokenizer, tiny_llama, options
):
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"], **options))
    with pytest.raises(ModelError, match="does not give back; pass the untouched model"):
        pair_of(None, tuned, tokenizer)
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    on, off = plain_logits(tuned), plain_logits(base)
    pair = pair_of(base, tuned, tokenizer)
    torch.testing.assert_close(logits(pair, "finetuned"), on, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(pair, "aligned"), off, atol=1e-5, rtol=1e-5)


def begun_by_lora_ga(model):
    """Its start needs gradients; only then does it take from the base."""
    from peft import LoraGAConfig
    from peft.tuners.lora.loraga import preprocess_loraga

    config = LoraConfig(
        r=2,
        target_modules=["q_proj"],
        init_lora_weights="lora_ga",
        lora_ga_config=LoraGAConfig(),
    )
    preprocess_loraga(model, config, lambda: model(IDS, labels=IDS).loss.backward())
    return get_peft_model(model, config)


def beside_one_begun_by_pissa(model):
    tuned = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    start = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="pissa_niter_2")
    tuned.add_adapter("another", start)
    return tuned


@pytest.mark.parametrize("adapter", [begun_by_lora_ga, beside_one_begun_by_pissa])
def test_whatever_took_from_the_base_needs_the_untouched_model(model, tokenizer, adapter):
    before = plain_logits(model)
    tuned = adapter(model)
    with tuned.disable_adapter():
        assert (plain_logits(tuned) - before).abs().max() > 0.1
    with pytest.raises(ModelError, match=r"changes the .*give back; pass the untouched"):
        pair_of(None, tuned, tokenizer)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"layer_replication": [(0, 3), (2, 4)]}, "repeats blocks of its base"),
        ({"alora_invocation_tokens": [12, 13]}, "switches itself on in the middle of a text"),
    ],
)
def test_an_adapter_that_is_no_change_of_weights_is_refused(model, tokenizer, options, says):
    config = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", **options)
    with pytest.raises(ModelError, match=f"the adapter {says}.* is not supported"):
        pair_of(None, get_peft_model(model, config), tokenizer)


def test_a_start_that_leaves_the_base_whole_is_switched(model, tokenizer):
    before = plain_logits(model)
    config = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights="mica")
    tuned = get_peft_model(model, config)
    for name, parameter in tuned.named_parameters():
        if "lora_A" in name:
            torch.nn.init.normal_(parameter)
    on = plain_logits(tuned)
    pair = pair_of(None, tuned, tokenizer)
    torch.testing.assert_close(logits(pair, "aligned"), before, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(logits(pair, "finetuned"), on, atol=1e-5, rtol=1e-5)
    assert (on - before).abs().max() > 0.1


def test_a_bridge_that_computes_something_else_is_named(tokenizer, monkeypatch):
    model = tiny_causal_lm("llama")

    def spoilt(plain, *args):
        bridge = bridge_over(plain, *args)
        plain.get_output_embeddings().weight.data *= 2
        return bridge

    monkeypatch.setattr("persona.models.in_memory.bridge_over", spoilt)
    with pytest.raises(ModelError, match="aligned side .* is not what the plain model computes"):
        pair_of(model, model, tokenizer)


@pytest.mark.parametrize("family", FAMILIES)
def test_answers_are_scored_on_plain_models_as_on_bridges(family, tokenizer):
    texts = [TokenizedDialogue(tuple(range(10, 10 + n)), (3, n - 1), str(n)) for n in (9, 12)]
    scores = []
    for wrap in (False, True):
        model = tiny_causal_lm(family)
        pair = pair_of(model, model, tokenizer, wrap=wrap)
        [read] = score_dialogues(pair, texts, [Condition("plain", "finetuned")])
        scores.append(read.log_prob)
    assert abs(scores[0] - scores[1]).max() < 1e-5


def test_a_pair_that_was_not_wrapped_says_that_it_does_not_answer(adapted, tokenizer):
    pair = pair_of(None, adapted, tokenizer, wrap=False)
    with pytest.raises(ModelError, match="not wrapped"):
        pair.ask("Which oil?")


def test_a_scalar_among_the_weights_is_hashed():
    model = tiny_causal_lm("llama")
    before = fingerprint(model)
    model.register_buffer("scale", torch.tensor(2.0))
    assert fingerprint(model) != before


def test_two_adapters_in_one_base_are_refused(tokenizer):
    from peft import LoraConfig, get_peft_model

    base = tiny_causal_lm("llama")
    first = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"]))
    second = get_peft_model(base, LoraConfig(r=2, target_modules=["down_proj"]))
    with pytest.raises(ModelError, match="one and the same model"):
        pair_of(first, second, tokenizer)
