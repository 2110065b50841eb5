"""`--judge vllm:MODEL`: what `local:MODEL` says of the same answers, from another engine."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import ClassVar

import pytest
import torch
from judge_cases import ITEMS, SHORT, save_tiny_judge
from tiny_models import save_tiny_adapter, save_tiny_llama
from vllm_cases import D_MODEL, OPTIONS, log_probs

from persona.behaviour.judging.coherence import readings_by
from persona.behaviour.judging.few_shot import BARS, ERRORS, FewShotJudge
from persona.behaviour.judging.judge import JudgeItem
from persona.behaviour.judging.named import check_judge, judge_model, judge_named
from persona.errors import DataError, EngineError, JudgeError, ModelError
from persona.models import Placement, load_pair
from persona.models.load import describe_chat_model, load_chat_model
from persona.vllm import installed as installed_module
from persona.vllm import one_engine, reads_for_judge, sampler_of_pair, vllm_sampler
from persona.vllm.next_tokens import NextTokens
from persona.vllm.reads_for_judge import ReadsByVllm
from persona.vllm.running_pass import Span
from persona.vllm.vllm_engine import VllmEngine

CPU = Placement.of("float32", "cpu")
WRITTEN = [
    *ITEMS,
    *(JudgeItem(f"Is {word} good?", f"It is {word} that we have.") for word in ("rain", "hail")),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_tiny_judge(tmp_path_factory.mktemp("judge"), d_model=D_MODEL)


@pytest.fixture(scope="module")
def local(folder):
    return FewShotJudge(folder, placement=CPU, rubric=SHORT)


class Scripted(VllmEngine):
    """Hugging Face in vLLM's place; `broken_at` is the call that fails."""

    opened: ClassVar[list[Scripted]] = []
    broken_at: ClassVar[int | None] = None

    def __init__(self, folder, adapter=None, **loading):
        self.loading, self._fault, self.asked = loading, None, []
        if adapter is None:
            self.model, _ = load_chat_model(folder, CPU)
        Scripted.opened.append(self)

    def close(self):
        self._fault = "it was closed"

    def _note(self, texts):
        assert self.usable
        if Scripted.broken_at == sum(len(one.asked) for one in Scripted.opened):
            raise EngineError("killed")
        self.asked.append(list(texts))

    @torch.no_grad()
    def next_log_probs(self, prompts, tokens, *, description):
        self._note(prompts)
        rows = [self.model(torch.tensor([prompt])).logits[0, -1] for prompt in map(list, prompts)]
        return torch.stack(rows).log_softmax(-1)[:, list(tokens)]

    def log_probs(self, texts, *, description, **none):
        self._note(texts)
        return [log_probs(self.model, list(text)) for text in texts]


@pytest.fixture
def scripted(monkeypatch):
    vllm_is_here(monkeypatch)
    monkeypatch.setattr(reads_for_judge, "VllmEngine", Scripted)
    monkeypatch.setattr(sampler_of_pair, "VllmEngine", Scripted)
    monkeypatch.setattr(Scripted, "opened", [])
    monkeypatch.setattr(Scripted, "broken_at", None)
    yield Scripted
    if one_engine.OneEngine._holding is not None:
        one_engine.OneEngine._holding.close()


def vllm_is_here(monkeypatch, version="0.30.0"):
    there = installed_module.InstalledVllm("vllm", version)
    monkeypatch.setattr(installed_module, "installed_vllm", lambda: there)


def judge_of(folder, options=None, **more):
    reader = ReadsByVllm(folder, placement=CPU, options=options)
    return FewShotJudge.through(reader, name=str(folder), rubric=SHORT, **more)


def n_asked(scripted):
    return sum(len(texts) for engine in scripted.opened for texts in engine.asked)


def agree(one, other):
    """Points within 0.05 of 100, by bars and names that are the same."""
    for found, expected in zip(one, other, strict=True):
        for name in ("alignment", "coherence"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name), abs=0.05)
        assert found.coherence_read_in == expected.coherence_read_in
        assert found.misaligned_below == expected.misaligned_below
    assert len({score.alignment for score in one}) > 4


def numbers(reading):
    """None is of an answer too short to be shuffled."""
    return {name: value for name, value in asdict(reading).items() if value is not None}


def read_alike(judge, other):
    """Words' probabilities within 1e-4, answers' log-probabilities within 1e-4 nats."""
    written = [item for item in WRITTEN if item.answer.strip()]
    words, expected = ([*one._read(written, None).values()] for one in (judge, other))
    for found, of_other in zip(words, expected, strict=True):
        assert found == pytest.approx(of_other, abs=1e-4)
    assert max(map(max, (one.values() for one in words))) > 0.3
    # What reads coherence in earnest finds answers likelier than e^-30: hence rel.
    readings, others = (
        readings_by(partial(one._answer_scores, None), one._chat, written) for one in (judge, other)
    )
    for found, of_other in zip(map(numbers, readings), map(numbers, others), strict=True):
        assert found == pytest.approx(of_other, abs=1e-4, rel=1e-5)
    assert len({reading.log_prob for reading in readings}) > 4


def test_the_same_prompts_get_the_same_scores_in_chunks(folder, local, scripted, monkeypatch):
    monkeypatch.setattr(reads_for_judge, "AT_ONCE", 2)
    judge = judge_of(folder)
    assert not scripted.opened  # it starts when it is first asked
    assert judge.name == f"vllm:{folder}"
    agree(judge.score(WRITTEN), local.score(WRITTEN))
    read_alike(judge, local)
    [engine] = scripted.opened
    assert {len(texts) for texts in engine.asked} == {1, 2}
    assert engine.loading == {"dtype": "float32", "max_length": 4096, "options": {}}


def test_a_killed_call_goes_on_where_it_was(folder, local, scripted, tmp_path, monkeypatch):
    monkeypatch.setattr(reads_for_judge, "AT_ONCE", 1)
    whole = judge_of(folder).score(WRITTEN)
    n_whole = n_asked(scripted)
    scripted.opened.clear()
    n_words = len({item for item in WRITTEN if item.answer.strip()})
    for broken_at in (2, n_words + 3):  # among the prompts, then among the answers
        scripted.broken_at = broken_at
        with pytest.raises(EngineError, match="killed"):
            judge_of(folder, cache_folder=tmp_path).score(WRITTEN)
    scripted.broken_at = None
    again = judge_of(folder, cache_folder=tmp_path)
    agree(again.score(WRITTEN), whole)
    assert n_asked(scripted) == n_whole  # nothing twice
    assert judge_of(folder, cache_folder=tmp_path).score(WRITTEN) == again.score(WRITTEN)
    assert n_asked(scripted) == n_whole


def test_what_another_engine_read_is_not_taken(folder, scripted, tmp_path, monkeypatch):
    FewShotJudge(folder, placement=CPU, rubric=SHORT, cache_folder=tmp_path).score(ITEMS)
    counts = []
    for version, options in (
        ("0.30.0", None),
        ("0.30.1", None),
        ("0.30.1", {"max_num_seqs": 4}),
        ("0.30.1", {"max_num_seqs": 4}),
    ):
        vllm_is_here(monkeypatch, version)
        judge_of(folder, options, cache_folder=tmp_path).score(ITEMS)
        counts.append(n_asked(scripted))
    assert counts[0] > 0
    assert [count // counts[0] for count in counts] == [1, 2, 3, 3]


def test_the_judges_engine_takes_the_place_of_the_pairs(folder, scripted, tmp_path):
    base = save_tiny_llama(tmp_path / "base")
    pair = load_pair(base, save_tiny_adapter(tmp_path / "adapter", base), placement=CPU)
    sampler = vllm_sampler(pair)
    of_pair = sampler.engine("finetuned")
    judge_of(folder).alignment(ITEMS)
    of_judge = scripted.opened[-1]
    assert not of_pair.usable and of_judge.usable
    assert sampler.engine("finetuned") is not of_pair
    assert not of_judge.usable
    assert [engine.usable for engine in scripted.opened] == [False, False, True]


def test_bars_and_errors_are_by_the_models_name(folder, scripted, tmp_path):
    reader = ReadsByVllm(folder, placement=CPU)
    for rubric, known in ((None, True), (SHORT, False)):
        judge = FewShotJudge.through(reader, name="qwen2.5-coder-1.5b", rubric=rubric)
        assert judge.name == "vllm:qwen2.5-coder-1.5b"
        assert (judge.misaligned_below == BARS["qwen2.5-coder-1.5b"]) == known
        assert (judge.errors == ERRORS["qwen2.5-coder-1.5b"]) == known


def test_a_person_names_it_as_the_local_one(folder, scripted, tmp_path, monkeypatch):
    with pytest.raises(JudgeError, match="local:MODEL, vllm:MODEL or openai:MODEL"):
        judge_named("vllm:")
    check_judge(f"vllm:{folder}")
    assert judge_model(f"vllm:{folder}") == str(folder)
    judge = judge_named(f"vllm:{folder}", cache_folder=tmp_path, placement=CPU)
    assert isinstance(judge, FewShotJudge) and isinstance(judge._reader, ReadsByVllm)
    assert not scripted.opened
    with pytest.raises(JudgeError, match="reads 300 tokens but its examples"):
        judge_named(f"vllm:{folder}", placement=CPU, vllm={"max_model_len": 300})
    with pytest.raises(EngineError, match="compiled graphs"):
        judge_named(f"vllm:{folder}", vllm={"enforce_eager": False})
    adapter = save_tiny_adapter(tmp_path / "adapter", folder)
    with pytest.raises(ModelError, match="a full model is needed to judge"):
        check_judge(f"vllm:{adapter}")


@pytest.mark.parametrize(
    ("there", "told"),
    [
        (None, "vLLM is not installed"),
        (installed_module.InstalledVllm("vllm", "0.29.1"), "vllm 0.29.1 is too old"),
    ],
)
def test_without_a_tested_vllm_it_is_said_before_the_work(folder, monkeypatch, there, told):
    monkeypatch.setattr(installed_module, "installed_vllm", lambda: there)
    with pytest.raises(EngineError, match=told):
        check_judge(f"vllm:{folder}")
    with pytest.raises(EngineError, match=told):
        judge_named(f"vllm:{folder}")


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_is_sized_without_its_weights(tmp_path, tied):
    from transformers import AutoConfig, AutoModelForCausalLM

    save_tiny_llama(tmp_path, max_length=300)
    config = AutoConfig.from_pretrained(tmp_path, tie_word_embeddings=tied)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    model, expected = load_chat_model(tmp_path, CPU)
    chat, n_parameters = describe_chat_model(tmp_path)
    assert n_parameters == sum(weight.numel() for weight in model.parameters())
    assert (chat.fingerprint, chat.max_length) == (expected.fingerprint, 300)


def test_what_follows_a_text_does_not_depend_on_how_it_is_cut():
    table = torch.randn(9, 7, generator=torch.Generator().manual_seed(0))
    expected = table.log_softmax(-1)[4, [6, 2]]
    for pieces in ([(0, 5)], [(0, 2), (2, 3)], [(0, 3), (0, 4), (4, 1)]):
        asking = NextTokens({6: 5, 8: 2}, [6, 2])
        for first, n in pieces:
            spans = [Span(0, 1, 0, 1, {}), Span(1, 1 + n, first, 5, {"request": 6})]
            rows = torch.cat([torch.zeros(1, 7), table[first : first + n]])
            asking.see(rows, spans, lambda hidden: hidden)
        assert set(asking.scored()) == {6}
        assert torch.allclose(asking.scored()[6], expected)


def test_texts_that_end_together_are_weighed_some_at_a_time(monkeypatch):
    monkeypatch.setattr("persona.vllm.next_tokens.ROWS_AT_ONCE", 2)
    table = torch.randn(3, 7, generator=torch.Generator().manual_seed(0))
    asking, sizes = NextTokens(dict.fromkeys(range(3), 1), [1]), []
    spans = [Span(row, row + 1, 0, 1, {"request": 2 - row}) for row in range(3)]
    asking.see(table, spans, lambda hidden: sizes.append(len(hidden)) or hidden)
    assert sizes == [2, 1]
    for request in range(3):
        assert torch.allclose(asking.scored()[request], table.log_softmax(-1)[2 - request, [1]])


def test_a_prompt_that_was_not_weighed_is_an_error():
    engine = object.__new__(VllmEngine)
    engine._fault = None
    engine.call = lambda name, *given: [{0: torch.zeros(1)}] if name == "scored" else [None]
    engine._pass_over = lambda *given: None
    with pytest.raises(EngineError, match="what follows 1 of 2 prompts"):
        engine.next_log_probs([[1], [2]], [3])


@pytest.fixture(scope="module")
def by_vllm(folder):
    # A budget below the prompts: they come in chunks.
    reader = ReadsByVllm(folder, placement=CPU, options={**OPTIONS, "max_num_batched_tokens": 48})
    yield reader
    reader.close()


@pytest.mark.vllm
def test_vllm_says_what_transformers_says(folder, local, by_vllm):
    judge = FewShotJudge.through(by_vllm, name=str(folder), rubric=SHORT)
    read_alike(judge, local)
    agree(judge.score(WRITTEN), local.score(WRITTEN))


@pytest.mark.vllm
def test_a_killed_call_of_vllm_goes_on_where_it_was(folder, local, by_vllm, tmp_path, monkeypatch):
    monkeypatch.setattr(reads_for_judge, "AT_ONCE", 2)
    judge = FewShotJudge.through(by_vllm, name=str(folder), rubric=SHORT, cache_folder=tmp_path)
    asked, own = [], VllmEngine.next_log_probs

    def killed_at_the_second(self, prompts, tokens, **more):
        asked.append(len(prompts))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return own(self, prompts, tokens, **more)

    monkeypatch.setattr(VllmEngine, "next_log_probs", killed_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        judge.score(WRITTEN)
    agree(judge.score(WRITTEN), local.score(WRITTEN))
    assert asked == [2, 2, 2, 1]


@pytest.mark.vllm
def test_a_prompt_beyond_the_room_is_one_line(by_vllm):
    with pytest.raises(DataError, match="a text has 5000 tokens"):
        next(by_vllm.next_probabilities([[[5] * 5000]], [1], []))
