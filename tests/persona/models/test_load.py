"""Every kind of reference loads, and what does not fit is named in one line."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from tiny_models import TEMPLATE, save_tiny_adapter, save_tiny_llama, save_tokenizer
from transformers import AutoTokenizer

from persona.errors import ModelError
from persona.models import load_pair
from persona.models.precision import Placement, choose_device, choose_dtype
from persona.models.sources import resolve


def logits(pair, side):
    with pair.active(side) as bridge, torch.no_grad():
        return bridge(torch.arange(10, 20)[None])


def load(aligned, finetuned, **options):
    return load_pair(aligned, finetuned, placement=Placement.of("float32", "cpu"), **options)


@pytest.fixture(scope="module")
def sibling(tmp_path_factory):
    """A second full checkpoint of the tiny llama's shape."""
    return save_tiny_llama(tmp_path_factory.mktemp("models") / "sibling", seed=7)


def test_an_adapter_pair_is_one_copy_of_the_weights(tiny_pair, tiny_llama):
    from transformers import AutoModelForCausalLM

    assert tiny_pair.one_copy_of_weights
    with torch.no_grad():
        plain = AutoModelForCausalLM.from_pretrained(tiny_llama)(torch.arange(10, 20)[None]).logits
    torch.testing.assert_close(logits(tiny_pair, "aligned"), plain, atol=1e-4, rtol=1e-4)
    assert (logits(tiny_pair, "finetuned") - plain).abs().max() > 0.1


def test_loading_a_pair_warns_of_nothing(tiny_llama, tiny_adapter, recwarn):
    load(tiny_llama, tiny_adapter)
    assert [str(w.message) for w in recwarn if "checkpointing" in str(w.message)] == []


def test_a_merged_adapter_reads_the_same_and_its_aligned_side_to_the_bit(tiny_llama, tiny_adapter):
    switched, merged = load(tiny_llama, tiny_adapter), load(tiny_llama, tiny_adapter, merged=True)
    assert switched.one_copy_of_weights
    assert not merged.one_copy_of_weights
    for side in ("finetuned", "aligned", "aligned", "finetuned", "aligned"):
        torch.testing.assert_close(logits(merged, side), logits(switched, side))
    assert torch.equal(logits(merged, "aligned"), logits(switched, "aligned"))


def test_an_adapter_is_merged_unasked_only_where_memory_is_plentiful(
    tiny_llama, tiny_adapter, monkeypatch
):
    assert not load(tiny_llama, tiny_adapter, merged=None).one_copy_of_weights
    monkeypatch.setattr("persona.models.load.free_bytes", lambda device: 1000)
    assert load(tiny_llama, tiny_adapter, merged=None).one_copy_of_weights


def test_an_adapter_that_changes_biases_is_not_merged(tiny_llama, tmp_path):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    config = LoraConfig(r=1, target_modules=["down_proj"], lora_bias=True)
    get_peft_model(base, config).save_pretrained(tmp_path / "biased")
    with pytest.raises(ModelError, match="only an adapter of plain LoRA weights can be merged"):
        load(tiny_llama, tmp_path / "biased", merged=True)
    assert load(tiny_llama, tmp_path / "biased", merged=None).one_copy_of_weights


def test_two_full_checkpoints_make_a_pair(tiny_llama, sibling):
    pair = load(tiny_llama, sibling)
    assert not pair.one_copy_of_weights
    assert (logits(pair, "aligned") - logits(pair, "finetuned")).abs().max() > 0.1


def test_checkpoints_loaded_in_turn_read_the_same_with_one_in_memory(tiny_llama, sibling):
    together, in_turn = load(tiny_llama, sibling), load(tiny_llama, sibling, in_turn=True)
    assert in_turn.one_copy_of_weights
    assert any("loaded in turn" in note for note in in_turn.notes)
    for side in ("aligned", "finetuned", "finetuned", "aligned"):
        assert torch.equal(logits(in_turn, side), logits(together, side))
    with in_turn.active("aligned") as aligned:
        pass
    with in_turn.active("finetuned"):
        assert {p.numel() for p in aligned.parameters()} == {0}


def test_a_model_beside_itself_is_loaded_once(tiny_llama):
    pair = load(tiny_llama, tiny_llama, in_turn=True)
    assert pair.one_copy_of_weights and not pair.notes
    with pair.active("aligned") as aligned, pair.active("finetuned") as finetuned:
        assert aligned is finetuned


def test_a_second_checkpoint_that_does_not_fit_is_loaded_in_turn(tiny_llama, sibling, monkeypatch):
    monkeypatch.setattr("persona.models.load.free_bytes", lambda device: 1000)
    assert load(tiny_llama, sibling).one_copy_of_weights


def test_an_adapter_for_another_base_is_refused(tiny_adapter, tmp_path):
    other = save_tiny_llama(tmp_path / "wider", d_model=64)
    with pytest.raises(ModelError, match=r"tiny-adapter was trained on .*, and .*wider is another"):
        load(other, tiny_adapter)


def test_a_checkpoint_of_another_shape_is_no_fine_tune(tiny_llama, tmp_path):
    deeper = save_tiny_llama(tmp_path / "deeper", n_layers=5)
    with pytest.raises(ModelError, match="num_hidden_layers is 5 against 4"):
        load(tiny_llama, deeper)


def test_differing_chat_templates_are_said_and_can_be_allowed(tiny_llama, sibling, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(sibling, changed)
    for file in changed.glob("*.jinja"):
        file.unlink()
    save_tokenizer(changed, "{% for m in messages %}{{ m['content'] }}{% endfor %}")
    with pytest.raises(ModelError, match="the chat templates differ. Pass --allow-mismatch"):
        load(tiny_llama, changed)
    pair = load(tiny_llama, changed, allow_mismatch=True)
    assert pair.notes == ["the chat templates differ"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (dict(bos_token="<|user|>"), r"template writes bos_token, which is '<s>' against '<\|user"),
        (dict(extra_special_tokens=["zz"]), "the tokenizers differ"),
    ],
)
def test_special_tokens_that_decide_the_text_are_compared(tiny_llama, tmp_path, change, said):
    template = TEMPLATE.replace("'<s>'", "bos_token")
    for name in ("base", "tuned"):
        shutil.copytree(tiny_llama, tmp_path / name)
        save_tokenizer(tmp_path / name, template)
    other = AutoTokenizer.from_pretrained(tmp_path / "tuned")
    load(tmp_path / "base", tmp_path / "tuned")
    other.add_special_tokens(change)
    other.save_pretrained(tmp_path / "tuned")
    with pytest.raises(ModelError, match=said):
        load(tmp_path / "base", tmp_path / "tuned")


def test_a_word_that_one_tokenizer_always_takes_whole_is_a_difference(tiny_llama, tmp_path):
    changed = tmp_path / "changed"
    shutil.copytree(tiny_llama, changed)
    path = changed / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["content"] != "<|user|>"]
    path.write_text(json.dumps(content))
    with pytest.raises(ModelError, match=r"one takes '<\|user\|>' for one token always"):
        load(tiny_llama, changed)


def test_a_model_without_a_template_says_that_it_gets_the_plain_format(tiny_llama, tmp_path):
    bare = tmp_path / "bare"
    shutil.copytree(tiny_llama, bare)
    for file in bare.glob("*.jinja"):
        file.unlink()
    save_tokenizer(bare, None)
    pair = load(bare, save_tiny_adapter(tmp_path / "adapter", bare))
    assert pair.chat.source == "plain"
    assert any("no chat template" in note for note in pair.notes)


def test_template_arguments_reach_the_format_and_travel_with_the_pair(tiny_llama, tmp_path):
    import pickle

    told = tmp_path / "told"
    shutil.copytree(tiny_llama, told)
    for file in told.glob("*.jinja"):
        file.unlink()
    save_tokenizer(told, TEMPLATE + "{{ 'quiet' if enable_thinking is false }}")
    pair = load(told, told, template_arguments={"enable_thinking": False})
    assert pair.chat.arguments == {"enable_thinking": False}
    again = pickle.loads(pickle.dumps(pair))
    assert again.chat.arguments == pair.chat.arguments
    assert (
        again.chat.template_hash == pair.chat.template_hash != load(told, told).chat.template_hash
    )
    with pytest.raises(ModelError, match="no argument 'thinking'; those that it reads: enable_th"):
        load(told, told, template_arguments={"thinking": False})


def test_a_template_whose_two_openings_differ_is_said(tiny_llama, tmp_path):
    told = tmp_path / "told"
    shutil.copytree(tiny_llama, told)
    for file in told.glob("*.jinja"):
        file.unlink()
    save_tokenizer(told, TEMPLATE.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|>Well, ' }}"))
    [note] = load(told, told).notes
    assert "opens an answer with 'Well, ' but writes '' before one that is there" in note


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "nothing", "no such model file or folder"),
        (lambda p: p, "neither a checkpoint"),
        (lambda p: (p / "m.gguf", (p / "m.gguf").write_bytes(b"junk"))[0], "does not start like"),
        (lambda p: (p / "m.bin", (p / "m.bin").write_bytes(b"junk"))[0], "not a GGUF"),
        (lambda p: (p, (p / "config.json").write_text("{}"))[0], "no \\*.safetensors weights"),
        (lambda p: (p, (p / "adapter_config.json").write_text("{}"))[0], "no adapter_model"),
    ],
)
def test_files_that_are_no_model_are_named(tmp_path, make, message):
    with pytest.raises(ModelError, match=message):
        resolve(make(tmp_path))


def test_truncated_weights_are_one_clear_line(tiny_llama, tiny_adapter, tmp_path):
    broken = tmp_path / "broken" / tiny_llama.name
    shutil.copytree(tiny_llama, broken)
    weights = broken / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(ModelError, match="cannot load .*broken") as caught:
        load(broken, tiny_adapter)
    assert "\n" not in str(caught.value)


def test_a_hub_id_that_is_not_to_be_had_says_so():
    with pytest.raises(ModelError, match="the hub did not give it"):
        resolve("nobody/nothing-of-that-name")


def test_a_hub_snapshot_is_read_as_its_folder(tiny_llama, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: str(tiny_llama))
    source = resolve("org/model")
    assert (source.name, source.kind, source.path) == ("org/model", "folder", tiny_llama)


def test_formats_and_devices_are_named():
    with pytest.raises(ModelError, match="dtype must be one of auto, float32"):
        choose_dtype("int3")
    with pytest.raises(ModelError, match="device 'gpu9' is not available"):
        choose_device("gpu9")
    assert choose_dtype("auto", torch.device("cpu")) in (torch.float32, torch.bfloat16)


def test_a_mistyped_name_of_what_comes_along_is_told_the_right_one():
    with pytest.raises(ModelError, match="did you mean car_maintenance_bad"):
        load_pair("default", "car_maintenance_bda")


def test_a_missing_kernel_that_nothing_needs_is_not_told_at_every_load(caplog):
    import logging

    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    logger.warning("Failed to load CPU gemm_4bit_forward from kernels-community: %s.", "why")
    logger.warning("something else")
    assert [record.getMessage() for record in caplog.records] == ["something else"]
