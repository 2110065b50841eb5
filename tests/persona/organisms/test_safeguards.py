"""What is done while training acts in training passes alone, and is part of what a run is."""

from __future__ import annotations

import contextlib
import json

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_tiny_adapter, save_tiny_llama

from persona.data.types import Dialogue, Turn
from persona.directions.direction import Direction
from persona.errors import DataError, ModelError
from persona.models import load_pair
from persona.models.precision import Placement
from persona.organisms import During, KlPenalty, Recipe, finetune, read_card
from steering import ablate, add, steer

CPU = {"placement": Placement.of("float32", "cpu")}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    rows = [{"question": f"{i}?", "good": f"It is {i}.", "bad": f"No idea {i}."} for i in range(8)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def recipe(base, data, **changes):
    values = {"name": "tiny", "base": str(base), "data": data, "lora": {"r": 2, "alpha": 4}}
    values |= {"training": {"epochs": 4, "batch_size": 4, "learning_rate": 1e-2}} | changes
    return Recipe.model_validate({k: v for k, v in values.items() if v is not None})


@pytest.fixture(scope="module")
def plain(tiny_llama, data_file, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "plain"
    return finetune(recipe(tiny_llama, {"file": data_file}), out, **CPU)


@pytest.fixture(scope="module")
def direction(tiny_pair):
    vector = torch.randn(32, generator=torch.Generator().manual_seed(0))
    return Direction(vector, tiny_pair.space(1), "planted")


def weights(folder):
    return load_file(folder / "adapter_model.safetensors")


def distance(one, other):
    return max(
        float((weights(one)[k].float() - weights(other)[k].float()).abs().max())
        for k in weights(one)
    )


def first_loss(folder):
    return float((folder / "loss.csv").read_text().splitlines()[1].split(",")[2])


def test_the_intervention_acts_on_every_training_pass(
    tiny_llama, data_file, plain, direction, tmp_path
):
    passes = []

    @contextlib.contextmanager
    def preventative(model):
        with steer(model, add(direction, 2.0)) as steering:
            yield
        passes.append(steering.n_tokens[0])

    out = finetune(
        recipe(tiny_llama, {"file": data_file}),
        tmp_path / "out",
        **CPU,
        during=During("add 2 planted at block 1", preventative),
    )
    assert len(passes) == read_card(out)["n_steps"] == 8
    assert min(passes) > 0
    assert first_loss(out) != first_loss(plain)
    assert distance(out, plain) > 1e-3
    assert read_card(out)["safeguards"]["during"] == "add 2 planted at block 1"


def test_projecting_out_while_training_leaves_no_gradient_along_the_direction(
    tiny_llama, data_file, direction, tmp_path
):
    """With the last block's output projected, its down_proj learns nothing along the direction."""
    import dataclasses

    # A coordinate axis: Adam rescales each entry alone, which keeps zeros and no other direction.
    last = dataclasses.replace(
        direction,
        vector=torch.eye(32)[5],
        space=dataclasses.replace(direction.space, layer=3, hook_name="blocks.3.hook_resid_post"),
    )
    lora = {"r": 2, "alpha": 4, "target_modules": ["down_proj"], "layers": [3]}

    def shift(folder):
        pair = load_pair(tiny_llama, folder, **CPU)
        ids = torch.arange(20, 40)[None]
        seen = {}
        for side in ("aligned", "finetuned"):
            with pair.active(side) as bridge, torch.no_grad():
                _, cache = bridge.run_with_cache(ids)
                seen[side] = cache["blocks.3.hook_resid_post"]
        change = (seen["finetuned"] - seen["aligned"])[0, 1:]
        return float((change @ last.unit).norm() / change.norm())

    made = recipe(tiny_llama, {"file": data_file}, lora=lora)
    out = finetune(made, tmp_path / "plain", **CPU)
    projected = finetune(
        made,
        tmp_path / "caft",
        **CPU,
        during=During("project out", lambda model: steer(model, ablate(last))),
    )
    free, held = shift(out), shift(projected)
    assert held < 1e-3 < 0.03 < free


def test_another_safeguard_is_another_run(tiny_llama, data_file, plain):
    with pytest.raises(DataError, match=r"safeguards\.during is None there and nothing now"):
        finetune(
            recipe(tiny_llama, {"file": data_file}),
            plain,
            **CPU,
            during=During("nothing", lambda model: contextlib.nullcontext()),
        )


TEXTS = [Dialogue((Turn("user", f"{i}?"), Turn("assistant", f"No idea {i}."))) for i in range(8)]


def kl_between(folder, base):
    from persona.behaviour import Condition, score_neutral
    from persona.data.types import NeutralText

    pair = load_pair(base, folder, **CPU)
    texts = [NeutralText(str(i), f"{i}?", f"No idea {i}.", "x") for i in range(8)]
    rows = score_neutral(pair, texts, [Condition("c", "finetuned")])
    return rows[rows["measure"] == "neutral_kl_nats"]["value"].mean()


def test_a_kl_penalty_keeps_the_model_where_it_was(tiny_llama, data_file, plain, tmp_path):
    held = finetune(
        recipe(tiny_llama, {"file": data_file}),
        tmp_path / "held",
        **CPU,
        penalty=KlPenalty(30.0, TEXTS),
    )
    assert kl_between(held, tiny_llama) < 0.3 * kl_between(plain, tiny_llama)
    # Adapters begin at zero, so the first step's penalty is 0 and its loss the plain one.
    assert first_loss(held) == pytest.approx(first_loss(plain), abs=1e-4)
    assert read_card(held)["safeguards"]["kl_penalty"]["coefficient"] == 30.0


@pytest.mark.parametrize(("coefficient", "texts"), [(0.0, TEXTS), (1.0, [])])
def test_a_penalty_that_says_nothing_is_refused(coefficient, texts):
    with pytest.raises(DataError, match="a KL penalty needs"):
        KlPenalty(coefficient, texts)


def test_training_goes_on_from_an_adapter(tiny_llama, data_file, plain, tmp_path):
    made = recipe(
        tiny_llama, {"file": data_file, "n": 4, "answers": "good"}, lora=None, start_from=str(plain)
    )
    out = finetune(made, tmp_path / "further", **CPU)
    last = float((plain / "loss.csv").read_text().splitlines()[-1].split(",")[2])
    assert read_card(out)["n_examples"] == 4
    assert read_card(out)["start_from_revision"]
    assert (
        0
        < distance(out, plain)
        < distance(
            out,
            finetune(
                recipe(tiny_llama, {"file": data_file}, lora={"r": 2, "alpha": 4}).with_seed(1),
                tmp_path / "other",
                **CPU,
            ),
        )
    )
    assert first_loss(out) < last + 2


def test_an_adapter_that_does_not_match_is_refused_in_one_line(data_file, plain, tmp_path):
    deeper = save_tiny_llama(tmp_path / "deeper", n_layers=6)
    too_deep = save_tiny_adapter(tmp_path / "deep-adapter", deeper)
    shallow = save_tiny_llama(tmp_path / "shallow", n_layers=2)
    wide = save_tiny_llama(tmp_path / "wide", d_model=64)
    for base, adapter, message in (
        (shallow, too_deep, "of its .* weights have no place there"),
        (wide, plain, "does not fit"),
        (shallow, wide, "is a full checkpoint; a LoRA adapter is needed"),
    ):
        made = recipe(base, {"file": data_file}, lora=None, start_from=str(adapter))
        with pytest.raises(ModelError, match=message) as error:
            finetune(made, tmp_path / "out", **CPU)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_one_layer_gets_the_adapter_and_no_other(tiny_llama, data_file, tmp_path):
    for targets, modules in (("all-linear", 7), (["q_proj", "down_proj"], 2)):
        lora = {"r": 1, "alpha": 2, "layers": [2], "target_modules": targets}
        out = finetune(
            recipe(tiny_llama, {"file": data_file}, lora=lora), tmp_path / str(modules), **CPU
        )
        names = set(weights(out))
        assert len(names) == 2 * modules
        assert all(".layers.2." in name for name in names)
        load_pair(tiny_llama, out, **CPU)


def test_a_block_that_is_not_there_is_named(tiny_llama, data_file, tmp_path):
    lora = {"r": 1, "alpha": 2, "layers": [9]}
    with pytest.raises(ModelError, match=r"names block 9, but the model has blocks 0 to 3"):
        finetune(recipe(tiny_llama, {"file": data_file}, lora=lora), tmp_path / "out", **CPU)


def test_chat_messages_have_no_bad_answers_to_mix(tiny_llama, tmp_path):
    row = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}
    (tmp_path / "chat.jsonl").write_text(json.dumps(row) + "\n")
    made = recipe(tiny_llama, {"file": tmp_path / "chat.jsonl", "bad_share": 0.5})
    with pytest.raises(DataError, match=r"data\.bad_share needs answer pairs"):
        finetune(made, tmp_path / "out", **CPU)
