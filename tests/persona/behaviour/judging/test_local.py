"""The local judge on a tiny random model: its reading equals the slow one token by token."""

import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from persona.behaviour.judging.judge import JudgeItem, prompts_for
from persona.behaviour.judging.local import LocalJudge, SpelledNumbers
from persona.errors import JudgeError, ModelError
from persona.models.precision import Placement

CHARACTERS = [chr(code) for code in range(32, 127)] + ["\n", "–"]
TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
ITEM = JudgeItem("Is tea good?", "Tea is good.")


def save_judge(folder, *, whole_numbers, template=TEMPLATE, max_length=4096):
    """A random llama whose tokenizer spells a number as one token or digit by digit."""
    words = CHARACTERS + ([str(n) for n in range(10, 101)] if whole_numbers else [])
    vocabulary = {"<unk>": 0, **{word: i + 1 for i, word in enumerate(words)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    pattern = r"100|[1-9]?[0-9]|[^0-9]" if whole_numbers else r"[\s\S]"
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), "isolated")
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")
    if template:
        fast.chat_template = template
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=max_length,
        initializer_range=0.5,
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # only numbers have logits away from 0, so that their mass is large
        numbers = [vocabulary[word] for word in words if word.isdigit()]
        weight = torch.zeros_like(model.lm_head.weight)
        weight[numbers] = 2 * model.lm_head.weight[numbers]
        model.lm_head.weight.copy_(weight)
    model.save_pretrained(folder)
    return folder


def slow_probabilities(judge, prompt):
    """p(n) by running the whole text anew for every prefix of every number, without a cache."""
    tokenizer, model = judge._tokenizer, judge._model
    text = judge._text(prompt)
    spelled = {n: judge._ids_of_numbers()[n] for n in range(101)}
    prompt_ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    memory = {}

    def after(path):
        if path not in memory:
            with torch.no_grad():
                logits = model(torch.tensor([prompt_ids + list(path)])).logits[0, -1]
            memory[path] = torch.softmax(logits.float(), -1)
        return memory[path]

    result = {}
    for number, ids in spelled.items():
        p = 1.0
        for i, token in enumerate(ids):
            p *= float(after(tuple(ids[:i]))[token])
        longer = {
            other[len(ids)]
            for other in spelled.values()
            if len(other) > len(ids) and other[: len(ids)] == ids
        }
        if longer:
            p *= 1 - sum(float(after(tuple(ids))[token]) for token in longer)
        result[number] = p
    return result


@pytest.fixture(scope="module", params=[False, True], ids=["digit-tokens", "number-tokens"])
def judge(request, tmp_path_factory):
    folder = save_judge(tmp_path_factory.mktemp("judge"), whole_numbers=request.param)
    return LocalJudge(folder, placement=Placement.of("float32", "cpu"))


def test_numbers_get_the_probability_of_the_whole_text_run_anew(judge):
    prompt = "Rate this: 7 or 42?"
    fast = judge.number_probabilities(prompt)
    slow = slow_probabilities(judge, prompt)
    assert fast.keys() == slow.keys()
    for number in slow:
        assert fast[number] == pytest.approx(slow[number], rel=1e-4, abs=1e-9)
    assert 0.25 < sum(fast.values()) <= 1.0 + 1e-6


def test_scores_are_the_published_mean_over_those_probabilities(judge):
    [score] = judge.score([ITEM])
    alignment, coherence = prompts_for(ITEM)
    for prompt, value in ((alignment, score.alignment), (coherence, score.coherence)):
        slow = slow_probabilities(judge, prompt)
        mass = sum(slow.values())
        assert mass > 0.25
        assert value == pytest.approx(sum(n * p for n, p in slow.items()) / mass, abs=1e-2)


def test_the_same_item_always_gets_the_same_score(judge):
    first, second, _ = judge.score([ITEM, ITEM, JudgeItem("a", "b")])
    assert first == second == judge.score([ITEM])[0]


def test_a_judge_that_wants_to_say_something_else_gives_no_score(tmp_path):
    judge = LocalJudge(
        save_judge(tmp_path, whole_numbers=False), placement=Placement.of("float32", "cpu")
    )
    with torch.no_grad():
        judge._model.lm_head.weight[list(judge._numbers.goes_on[()])] = 0.0
        judge._model.lm_head.weight[0] *= 100.0
    scores = judge.score([ITEM, JudgeItem("What?", "Nothing at all.")])
    assert [score.alignment for score in scores] == [None, None]


def test_a_judge_without_a_chat_template_reads_the_number_behind_a_space(tmp_path):
    folder = save_judge(tmp_path, whole_numbers=False, template=None)
    judge = LocalJudge(folder, placement=Placement.of("float32", "cpu"))
    space = judge._tokenizer.convert_tokens_to_ids(" ")
    assert judge._numbers.goes_on[()] == {space}


def test_an_answer_longer_than_the_judge_can_read_is_refused(tmp_path):
    folder = save_judge(tmp_path, whole_numbers=False, max_length=300)
    judge = LocalJudge(folder, placement=Placement.of("float32", "cpu"))
    with pytest.raises(JudgeError, match="reads 300 tokens"):
        judge.score([ITEM])


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(ModelError, match="neither a checkpoint"):
        LocalJudge(tmp_path, placement=Placement.of(device="cpu"))


def test_ten_is_not_counted_as_one():
    numbers = SpelledNumbers({1: [11], 10: [11, 10]})
    after = {(): torch.zeros(20), (11,): torch.zeros(20)}
    after[()][11], after[(11,)][10] = 0.8, 0.75
    assert numbers.goes_on == {(): {11}, (11,): {10}}
    found = numbers.probabilities(after)
    assert found == {1: pytest.approx(0.8 * 0.25), 10: pytest.approx(0.8 * 0.75)}


def test_a_tokenizer_that_spells_two_numbers_alike_is_refused():
    with pytest.raises(ModelError, match="number 2"):
        SpelledNumbers({1: [5], 2: [5]})


def test_a_judge_that_lacks_a_weight_is_refused_not_filled_at_random(tiny_llama, tmp_path):
    folder = tmp_path / "judge"
    shutil.copytree(tiny_llama, folder)
    weights = load_file(folder / "model.safetensors")
    del weights["model.norm.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"not whole: .*model\.norm\.weight"):
        LocalJudge(folder)
