"""Every kind of edit through vLLM is what `steer` makes of it in Hugging Face, token by token."""

from __future__ import annotations

import pytest
import torch
from vllm_cases import D_MODEL, N_BLOCKS, OPTIONS, Toy, greedy, log_probs

from persona.directions import ActivationSpace, PersonaVector, Subspace
from persona.errors import EngineError, SteeringError
from persona.vllm import EditSet
from steering.edits import (
    ALL_BLOCKS,
    Edits,
    SteeredBy,
    ablate,
    add,
    edits_at,
    interventions,
    restore,
    set_coordinates,
)
from steering.edits.steer import steer

pytestmark = pytest.mark.vllm
MIDDLE = "blocks.2.hook_resid_post"


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return Toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def engine(toy):
    from persona.vllm import VllmEngine

    engine = VllmEngine(toy.base, options=OPTIONS)
    yield engine
    engine.close()


def drawn(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def vector_with_readout():
    """A persona vector of rank 2 in two blocks, whose coordinates are read by other rows."""
    subspaces = {}
    for layer in (1, 3):
        space = ActivationSpace("m", "r", f"blocks.{layer}.hook_resid_post", layer, D_MODEL)
        basis = torch.linalg.qr(drawn(D_MODEL, 2, seed=layer)).Q.T
        tilt = drawn(2, D_MODEL, seed=layer + 10) * 0.05
        readout = basis + tilt - tilt @ basis.T @ basis
        subspaces[layer] = Subspace(
            basis, torch.tensor([1.0, -2.0]), torch.tensor([4.0, 3.0]), space, readout=readout
        )
    return PersonaVector(subspaces, "made up")


KINDS = {
    "add": lambda: add(drawn(D_MODEL), 4.0, at=2),
    "add at many blocks, by block": lambda: add(drawn(D_MODEL), {0: 0.5, 2: -1.0, 3: 0.3}),
    "ablate at every write": lambda: ablate(drawn(D_MODEL)),
    "ablate after every block": lambda: ablate(drawn(D_MODEL), at=ALL_BLOCKS),
    "restore a rank of 2 by its readout": lambda: restore(vector_with_readout()),
    "restore a subspace": lambda: restore(drawn(2, D_MODEL), target=1.5, at=[0, 1]),
    "cap": lambda: set_coordinates(drawn(D_MODEL), interventions.cap, -0.5, at=ALL_BLOCKS),
    "attention and MLP outputs": lambda: ablate(
        drawn(D_MODEL), at=["blocks.1.hook_attn_out", "blocks.2.hook_mlp_out"]
    ),
    "two at one hook": lambda: (
        add(drawn(D_MODEL), 0.7, at=2) + ablate(drawn(D_MODEL, seed=4), at=2)
    ),
    "norm kept": lambda: edits_at(
        [MIDDLE],
        interventions.norm_preserving(lambda h: h + 6 * drawn(D_MODEL)),
        D_MODEL,
        "norm kept",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_answers_and_log_probabilities_are_those_of_hugging_face(toy, engine, kind):
    edits = KINDS[kind]()
    chosen = EditSet.of(edits)
    answers = [one.ids for one in engine.sample(toy.prompts, edits=chosen, max_new_tokens=8)]
    expected = [greedy(toy.aligned, prompt, edits) for prompt in toy.prompts]
    assert answers == expected
    assert expected != [greedy(toy.aligned, prompt) for prompt in toy.prompts]
    got = engine.log_probs(toy.prompts, edits=chosen)
    for one, prompt in zip(got, toy.prompts, strict=True):
        assert torch.allclose(one, log_probs(toy.aligned, prompt, edits), atol=2e-5, rtol=0)


@pytest.mark.parametrize("positions", ["asking", "answering", "answering:2", "last", "from:3"])
def test_positions_are_those_of_a_cached_answer(toy, engine, positions):
    by = SteeredBy(add(drawn(D_MODEL), 1.5, at=1), positions)
    prompts = [prompt for prompt in toy.prompts if len(prompt) > 3]
    answers = [one.ids for one in engine.sample(prompts, edits=EditSet.of(by), max_new_tokens=8)]
    assert answers == [greedy(toy.aligned, prompt, by) for prompt in prompts]


def test_requests_of_one_batch_have_edits_of_their_own(toy, engine):
    a, b = add(drawn(D_MODEL), 1.0, at=1), ablate(drawn(D_MODEL, seed=5), at=ALL_BLOCKS)
    each = [a, None, b, a]
    sets = {id(one): EditSet.of(one) for one in (a, b)}
    chosen = [None if one is None else sets[id(one)] for one in each]
    answers = engine.sample(toy.prompts, edits=chosen, max_new_tokens=8)
    expected = [greedy(toy.aligned, p, e) for p, e in zip(toy.prompts, each, strict=True)]
    assert [one.ids for one in answers] == expected
    n_written = [[step.n_written for step in one.steps] for one in answers]
    assert n_written == [
        [0] * 8 if edits is None else [len(prompt) - 1, *[1] * 7]  # the first token is left alone
        for prompt, edits in zip(toy.prompts, each, strict=True)
    ]
    assert [one.ids for one in engine.sample(toy.prompts, max_new_tokens=8)] == [
        greedy(toy.aligned, prompt) for prompt in toy.prompts
    ]


def test_each_row_has_a_coefficient_of_its_own(toy, engine):
    doses = torch.tensor([0.0, 0.5, -1.0, 2.0])
    chosen = EditSet.of(add(drawn(D_MODEL), doses, at=1))
    answers = [one.ids for one in engine.sample(toy.prompts, edits=chosen, max_new_tokens=8)]
    alone = [
        greedy(toy.aligned, prompt, add(drawn(D_MODEL), float(dose), at=1))
        for prompt, dose in zip(toy.prompts, doses, strict=True)
    ]
    assert answers == alone
    with pytest.raises(SteeringError, match="4 coefficients, .* the batch has 2"):
        engine.sample(toy.prompts[:2], edits=chosen)


def test_what_decides_row_by_row_sees_rows(toy, engine):
    """A condition that looks at a whole row would be another in a flattened batch."""
    fires = edits_at(
        [MIDDLE],
        interventions.where(lambda h: h[..., 0].mean(-1) > 0, lambda h: h + 2 * drawn(D_MODEL)),
        D_MODEL,
        "guarded",
    )
    answers = engine.sample(toy.prompts, edits=EditSet.of(fires), max_new_tokens=8)
    assert [a.ids for a in answers] == [greedy(toy.aligned, p, fires) for p in toy.prompts]


def test_a_hook_at_the_wrong_block_is_seen(toy, engine):
    right, wrong = add(drawn(D_MODEL), 1.0, at=1), add(drawn(D_MODEL), 1.0, at=2)
    answers = engine.sample(toy.prompts, edits=EditSet.of(wrong), max_new_tokens=8)
    assert [a.ids for a in answers] != [greedy(toy.aligned, p, right) for p in toy.prompts]


def test_an_edited_first_token_is_seen(toy, engine):
    edits = add(drawn(D_MODEL), 4.0, at=1)
    everywhere = EditSet(tuple(edits), lambda index, begins, n_prompt: index >= 0)
    answers = engine.sample(toy.prompts, edits=everywhere, max_new_tokens=8)
    assert [a.ids for a in answers] != [greedy(toy.aligned, p, edits) for p in toy.prompts]
    assert answers[0].steps[0].n_written == len(toy.prompts[0])

    def also_the_first(model):
        return steer(model, edits, first_token=True)

    assert [a.ids for a in answers] == [greedy(toy.aligned, p, also_the_first) for p in toy.prompts]


def test_edits_that_do_not_fit_are_refused_and_the_engine_goes_on(toy, engine):
    wrong = {
        "no hook 'blocks.9.hook_resid_post'": add(drawn(D_MODEL), at=9),
        "has d_model=64": add(drawn(64), at=1),
        "one undoes the other": Edits([*ablate(drawn(D_MODEL), at=1)] * 2),
    }
    for told, edits in wrong.items():
        with pytest.raises(SteeringError, match=told):
            engine.sample(toy.prompts, edits=EditSet.of(edits))
    nowhere = SteeredBy(add(drawn(D_MODEL), at=1), (90, 95))
    with pytest.raises(SteeringError, match="met no token to write"):
        engine.sample(toy.prompts, edits=EditSet.of(nowhere), max_new_tokens=2)
    assert engine.sample(toy.prompts[:1], max_new_tokens=2)[0].ids


def test_an_edit_that_raises_ends_in_the_caller(toy):
    from persona.vllm import VllmEngine

    def burst(h):
        raise ValueError("burst")

    engine = VllmEngine(toy.base, options=OPTIONS)
    chosen = EditSet.of(edits_at([1], burst, D_MODEL, "bursting"))
    with pytest.raises(EngineError, match="ValueError: burst"):
        engine.sample(toy.prompts, edits=chosen)
    with pytest.raises(EngineError, match="cannot be used any more: it ended with an error"):
        engine.sample(toy.prompts)


def test_a_row_that_goes_unsteered_is_an_error(toy, monkeypatch):
    """Planted: the worker forgets the rows of one request in one pass of decoding."""
    from persona.vllm import VllmEngine, worker_room

    true = worker_room.groups_of

    def forgetful(spans, written, rows, n_all, device):
        kept = [span for span in spans if not (span.told["request"] == 2 and span.first == 5)]
        return true(kept, written, rows, n_all, device)

    engine = VllmEngine(toy.base, options=OPTIONS)
    monkeypatch.setattr(worker_room, "groups_of", forgetful)
    with pytest.raises(
        SteeringError,
        match="text 2 in vLLM: 0 tokens were written .* from token 5 on, .* 1$",
    ):
        engine.sample(toy.prompts, edits=EditSet.of(add(drawn(D_MODEL), at=1)), max_new_tokens=8)


def test_an_edit_whose_hook_does_not_fire_is_an_error(toy):
    from persona.vllm import VllmEngine

    engine = VllmEngine(toy.base, options=OPTIONS)
    room = engine.llm.llm_engine.model_executor.driver_worker.worker.persona_room
    room.sites[MIDDLE].module._forward_hooks.clear()  # planted: lost by the model
    with pytest.raises(SteeringError, match="did not fire in a pass of vLLM"):
        engine.sample(toy.prompts, edits=EditSet.of(add(drawn(D_MODEL), at=2)))


def test_every_block_has_its_four_hooks(engine):
    assert len(engine.sites) == 4 * N_BLOCKS and not engine.untold
