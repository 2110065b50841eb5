"""Training on a tiny pair: an autoencoder that reconstructs, its card, and a run that goes on."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from persona.errors import DataError, ModelError
from persona.sae import TrainingConfig, load_sae, train_sae
from persona.sae import trainer as trainer_module
from persona.sae.buffer import ActivationBuffer, collect_buffers
from persona.sae.texts import pair_texts, shuffled_to, split_texts
from persona.sae.trainer import Schedule, train_autoencoder

D, WIDTH, K = 16, 48, 4


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Sparse sums of 32 unit directions about a mean far from zero, in the scale of a residual."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(32, D))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    active = rng.random((6000, 32)) < 2.5 / 32
    rows = 40 + (active * rng.uniform(5, 15, size=active.shape)) @ features
    path = tmp_path_factory.mktemp("buffer") / "rows.f16"
    rows.astype(np.float16).tofile(path)
    centre = rows.mean(0)
    return ActivationBuffer(
        path,
        len(rows),
        D,
        np.arange(len(rows)),
        torch.tensor(centre).float(),
        float(np.linalg.norm(rows - centre, axis=1).mean()),
    )


def config(**changes):
    defaults = dict(width=WIDTH, k=K, epochs=25, batch_size=256, learning_rate=5e-3)
    return TrainingConfig(**{**defaults, **changes})


def explained(sae, buffer):
    rows = torch.from_numpy(np.array(buffer.rows())).float()
    with torch.no_grad():
        rebuilt = sae.decode(sae.encode(rows))
    return float(1 - (rows - rebuilt).square().sum() / (rows - rows.mean(0)).square().sum())


def train(buffer, chosen, folder):
    schedule = Schedule.of(buffer.kept, chosen)
    metadata = {"hook_name": "blocks.0.hook_resid_post"}
    return train_autoencoder(buffer, schedule, chosen, metadata, folder)


@pytest.mark.parametrize("architecture", ["batchtopk", "topk", "jumprelu"])
def test_each_architecture_explains_planted_features_at_its_sparsity(
    planted, tmp_path, architecture
):
    from persona.sae.opening import save_autoencoder

    sae = train(planted, config(architecture=architecture), tmp_path / "work")
    state = {key: value.detach().clone() for key, value in sae.state_dict().items()}
    sae.process_state_dict_for_saving_inference(state)
    save_autoencoder(tmp_path, state, sae.cfg.get_inference_sae_cfg_dict())
    loaded = load_sae(tmp_path)
    rows = torch.from_numpy(np.array(planted.rows())).float()
    l0 = float((loaded.encode(rows) != 0).sum() / len(rows))
    assert explained(loaded, planted) > 0.8
    assert 0.5 * K < l0 < 1.5 * K


def test_a_killed_training_goes_on_to_the_same_weights(planted, tmp_path, monkeypatch):
    whole = train(planted, config(epochs=2), tmp_path / "whole").state_dict()
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    real_save, saves = trainer_module._save, []

    def save_and_die(*args):
        real_save(*args)
        saves.append(1)
        if len(saves) == 30:
            raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(planted, config(epochs=2), tmp_path / "killed")
    assert json.loads((tmp_path / "killed" / "steps.json").read_text())["steps"] == 30
    again = train(planted, config(epochs=2), tmp_path / "killed").state_dict()
    assert len(saves) < Schedule.of(planted.kept, config(epochs=2)).n_steps + 1
    for key, value in whole.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=0)


def test_every_epoch_shows_every_row_once_in_another_order():
    schedule = Schedule(np.arange(40), 10, 2, seed=3)
    source = np.arange(40, dtype=np.float16)[:, None]
    seen = [batch[:, 0].int().tolist() for batch in schedule.batches(source)]
    assert [sorted(np.ravel(seen[i : i + 4])) for i in (0, 4)] == [list(range(40))] * 2
    assert seen[0] != seen[4]
    assert [b[:, 0].int().tolist() for b in schedule.batches(source, 5)] == seen[5:]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"k": 0}, "k must be from 1"),
        ({"k": WIDTH}, "k must be from 1"),
        ({"architecture": "relu"}, "one of batchtopk"),
        ({"learning_rate": 2.0}, "learning rate"),
        ({"epochs": 0}, "at least 1"),
    ],
)
@pytest.mark.usefixtures("unchecked_hints")
def test_a_bad_setting_is_named(changes, said):
    with pytest.raises(DataError, match=said):
        config(**changes)


def test_too_few_tokens_are_refused():
    with pytest.raises(DataError, match=r"48 latents need at least 192 tokens.*there are 100"):
        Schedule.of(np.arange(100), config())


def test_a_training_that_diverges_says_so(planted, tmp_path):
    rows = np.array(planted.rows())
    rows[:, 0] = np.float16(np.inf)
    path = tmp_path / "rows.f16"
    rows.tofile(path)
    broken = ActivationBuffer(path, len(rows), D, planted.kept, planted.centre, planted.spread)
    with pytest.raises(DataError, match="diverged at step 1"):
        train(broken, config(), tmp_path / "work")


@pytest.fixture(scope="module")
def texts(tiny_pair):
    from persona.data import AnswerPair

    pairs = [
        AnswerPair(f"q{i}", "d", f"what of number {i}", f"count up to {i}", f"forget {i} at once")
        for i in range(40)
    ]
    return pair_texts(tiny_pair.chat, pairs)


@pytest.fixture
def shipped(texts, monkeypatch):
    """The tiny texts in place of the shipped ones, which take a byte-level model too long."""
    monkeypatch.setattr("persona.sae.train.shipped_texts", lambda chat: texts)
    return texts


def tiny_config(**changes):
    return TrainingConfig(**{"width": 64, "k": 4, "epochs": 2, "batch_size": 128, **changes})


def test_a_trained_folder_loads_and_its_card_counts_tokens_honestly(tiny_pair, shipped, tmp_path):
    [sae] = train_sae(tiny_pair, [2], tmp_path, tiny_config(), n_tokens=2000, sample=False)
    card = json.loads((tmp_path / "card.json").read_text())
    assert card["tokens"] + card["outliers_left_out"] == 2 * card["unique_text_tokens"]
    assert sum(card["text_tokens_by_kind"].values()) == card["unique_text_tokens"]
    assert 2000 <= 2 * card["unique_text_tokens"] < 2200
    assert {row["kind"] for row in card["fidelity"]["held_out"]} == {"good", "bad", "all"}
    assert -1 < card["fidelity"]["finetuned"]["explained_variance"] <= 1
    assert 0 <= card["dead_latents"] < 64
    assert sae.space == tiny_pair.space(2)
    assert sae.card["hook_name"] == "blocks.2.hook_resid_post"
    assert not (tmp_path / ".work").exists()
    weights = tmp_path / "sae_weights.safetensors"
    assert weights.stat().st_size < 2 * (2 * 64 * 32 + 3 * 64) + 2000, "float16"


def test_several_layers_share_one_pass_and_each_gets_a_folder(tiny_pair, shipped, tmp_path):
    found = train_sae(tiny_pair, [1, 3], tmp_path, tiny_config(), n_tokens=2000, sample=False)
    assert [sae.layer for sae in found] == [1, 3]
    assert load_sae(tmp_path, tiny_pair, layer=3).space == tiny_pair.space(3)
    with pytest.raises(ModelError, match=r"layer_1, layer_3; say which"):
        load_sae(tmp_path, tiny_pair)


def test_a_finished_folder_is_kept_and_another_run_is_refused(tiny_pair, shipped, tmp_path):
    options = dict(n_tokens=2000, sample=False)
    train_sae(tiny_pair, [1], tmp_path, tiny_config(), **options)
    before = (tmp_path / "sae_weights.safetensors").read_bytes()
    train_sae(tiny_pair, [1], tmp_path, tiny_config(), **options)
    with pytest.raises(DataError, match="holds another autoencoder"):
        train_sae(tiny_pair, [1], tmp_path, tiny_config(seed=1), **options)
    assert (tmp_path / "sae_weights.safetensors").read_bytes() == before


def test_models_write_the_text_that_is_missing(tiny_pair, shipped, tmp_path, monkeypatch):
    from persona.data.types import AnswerPair

    few = [AnswerPair(f"s{i}", "d", f"say {i}", "a", "b") for i in range(4)]
    monkeypatch.setattr("persona.sae.train.load_pairs", lambda: few)
    monkeypatch.setattr("persona.sae.train.load_neutral", list)
    monkeypatch.setattr("persona.sae.sampled.MAX_NEW_TOKENS", 24)
    n_written = sum(t.n_tokens for t in split_texts(shipped)[0])
    train_sae(tiny_pair, [1], tmp_path, tiny_config(), n_tokens=2 * (n_written + 200))
    kinds = json.loads((tmp_path / "card.json").read_text())["text_tokens_by_kind"]
    assert kinds["sampled_aligned"] > 50
    assert kinds["sampled_finetuned"] > 50


def test_a_pass_that_was_stopped_goes_on_to_the_same_activations(
    tiny_pair, texts, tmp_path, monkeypatch
):
    whole = collect_buffers(tiny_pair, texts, [1], tmp_path_of(tmp_path, "a"), token_budget=128)[1]
    monkeypatch.setattr("persona.sae.buffer.FLUSH_EVERY", 2)
    from persona.activations import passes as module

    real, calls = module.run_hooked, []

    def dies(*args, **options):
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        real(*args, **options)

    monkeypatch.setattr(module, "run_hooked", dies)
    folder = tmp_path_of(tmp_path, "b")
    with pytest.raises(KeyboardInterrupt):
        collect_buffers(tiny_pair, texts, [1], folder, token_budget=128)
    n_before = len(calls)
    again = collect_buffers(tiny_pair, texts, [1], folder, token_budget=128)[1]
    np.testing.assert_array_equal(again.rows(), whole.rows())
    monkeypatch.setattr(module, "run_hooked", real)
    assert len(calls) - n_before < len(texts)
    assert json.loads((folder / "collected.json").read_text())["aligned"] > 0


def tmp_path_of(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    return folder


def test_rows_are_the_residuals_of_both_models(tiny_pair, texts, tmp_path):
    from persona.activations import collect_tokens

    chosen = shuffled_to(texts, 200, seed=1)
    buffer = collect_buffers(tiny_pair, chosen, [2], tmp_path)[2]
    n_tokens = sum(text.n_tokens for text in chosen)
    for place, side in enumerate(("aligned", "finetuned")):
        with tiny_pair.active(side) as bridge:
            read = collect_tokens(bridge, [t.tokens for t in chosen], [2], token_set="all")
        expected = torch.cat(
            [r[t.span[0] - 1 : t.span[1] - 1, 0] for r, t in zip(read, chosen, strict=True)]
        )
        found = torch.from_numpy(np.array(buffer.rows()[place * n_tokens :][:n_tokens]))
        torch.testing.assert_close(found.float(), expected, rtol=2e-3, atol=2e-3)


def test_massive_activations_are_left_out_and_counted(tmp_path):
    from persona.sae.buffer import _summary

    rows = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float16)
    rows[7] *= 500
    rows[9, 0] = np.inf  # beyond float16
    rows.tofile(tmp_path / "x.f16")
    found = _summary(tmp_path / "x.f16", (100, 8))
    assert sorted(set(range(100)) - set(found.kept.tolist())) == [7, 9]
    assert found.centre.abs().max() < 1


def test_activations_that_are_not_finite_name_the_text(tiny_pair, texts, tmp_path, monkeypatch):
    def broken(bridge, batch, hooks, **options):
        for hook in hooks.values():
            hook(torch.full((*batch.ids.shape, 32), torch.nan))

    monkeypatch.setattr("persona.activations.passes.run_hooked", broken)
    with pytest.raises(DataError, match=r"activations of text 'q\d+' .* not finite"):
        collect_buffers(tiny_pair, texts, [1], tmp_path)


def test_bad_layers_and_too_few_tokens_are_refused_before_anything_is_read(tiny_pair, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(ModelError, match="layer 9 is out of range"):
        train_sae(tiny_pair, [9], out, tiny_config())
    with pytest.raises(ModelError, match="each once"):
        train_sae(tiny_pair, [1, 1], out, tiny_config())
    with pytest.raises(DataError, match="at least 256 tokens; got 100"):
        train_sae(tiny_pair, [1], out, tiny_config(), n_tokens=100)
    assert not out.exists()


def truncated(path):
    path.write_bytes(path.read_bytes()[:100])


def zeroed(path):
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncated, zeroed])
@pytest.mark.parametrize("name", ["activations-1.f16", "collected.json"])
def test_damaged_activations_are_read_anew(tiny_pair, texts, tmp_path, caplog, name, damage):
    whole = np.array(collect_buffers(tiny_pair, texts[:6], [1], tmp_path)[1].rows())
    damage(tmp_path / name)
    again = collect_buffers(tiny_pair, texts[:6], [1], tmp_path)[1]
    np.testing.assert_array_equal(again.rows(), whole)
    if (name, damage) != ("collected.json", truncated):  # 100 bytes are all of it
        assert "is damaged" in caplog.text and "read anew" in caplog.text


@pytest.mark.parametrize("damage", [truncated, zeroed])
@pytest.mark.parametrize("name", ["sae_weights.safetensors", "steps.json"])
def test_a_damaged_state_of_training_is_trained_anew(
    planted, tmp_path, monkeypatch, caplog, name, damage
):
    whole = train(planted, config(), tmp_path / "whole").state_dict()
    monkeypatch.setattr(trainer_module, "CHECKPOINT_SECONDS", 0.0)
    real_save = trainer_module._save

    def save_and_die(*args):
        real_save(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer_module, "_save", save_and_die)
    with pytest.raises(KeyboardInterrupt):
        train(planted, config(), tmp_path / "killed")
    monkeypatch.setattr(trainer_module, "_save", real_save)
    for path in (tmp_path / "killed").iterdir():
        if path.name != "steps.json" or name == "steps.json":
            damage(path)
    again = train(planted, config(), tmp_path / "killed").state_dict()
    if name != "steps.json" or "damaged" in caplog.text:
        assert "trained anew" in caplog.text
    for key, value in whole.items():
        torch.testing.assert_close(again[key], value, rtol=0, atol=0)


def test_two_trainings_never_share_a_folder(tiny_pair, shipped, tmp_path):
    from persona.run_lock import alone_in

    with alone_in(tmp_path, {}), pytest.raises(DataError, match="another run .* is at work in"):
        train_sae(tiny_pair, [1], tmp_path, tiny_config(), n_tokens=2000, sample=False)
