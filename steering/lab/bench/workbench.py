"""What the experiments share: fine-tunes made once, pairs, questions, directions, scores."""

from __future__ import annotations

import copy
import dataclasses
import functools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from persona.activations import collect_rows
from persona.behaviour.scoring import Condition
from persona.data import data_hash, load_neutral, load_pairs
from persona.data.selection import sample
from persona.data.skills import load_skill
from persona.data.types import AnswerPair, NeutralText
from persona.data.voices import DOMAIN_OF, Voice, sets_of, voice_pairs
from persona.directions import Cells, Direction, PersonaVector, collect_cells, two_by_two
from persona.directions.storage import tool_version
from persona.files import sha256_of_file
from persona.fingerprint import fingerprint_of
from persona.models import ModelPair, load_pair
from persona.models.hooks import resid_post
from persona.models.load import load_bridge
from persona.models.pair import Side
from persona.models.precision import Placement
from persona.models.shipped_adapters import shipped_adapter, shipped_names
from persona.models.sources import resolve
from persona.models.space import ActivationSpace
from persona.organisms import During, KlPenalty, Recipe, Watch, finetune, load_recipe, read_card
from persona.organisms.recipe import with_keys
from persona.organisms.run_folder import came_to_its_end
from persona.stages import StageCache
from steering.identification.candidates import (
    MODEL_AND_ANSWER_REFIT,
    Means,
    from_bases,
    refit_candidates,
)
from steering.identification.identify import within_covariance
from steering.lab.bench.plan import Tally
from steering.lab.bench.readings import project_answers, score
from steering.lab.bench.settings import LabSettings

logger = logging.getLogger("persona")

COVARIANCE_QUESTIONS = 12
DEFAULT = "default"
"""The aligned model of most experiments."""


class Workbench:
    """One run's settings and its finished steps, at one seed of its fine-tunes.

    base: the aligned model.
    first: whether it is the first of the run's seeds, which alone has the costly controls.
    """

    def __init__(
        self,
        settings: LabSettings,
        seed: int = 0,
        *,
        first: bool = True,
        tally: Tally | None = None,
    ) -> None:
        self.settings, self.sizes = settings, settings.sizes
        self.base = settings.base or DEFAULT
        self.seed, self.first = seed, first
        self.tally = tally or Tally(())
        self.base_revision = resolve(self.base).revision
        self.steps = StageCache(
            settings.out / "steps",
            {
                "base": self.base_revision,
                "dtype": settings.placement.asked[0],
                "device": settings.placement.asked[1],
                "tool_version": tool_version(),
            },
        )

    def at_seed(self, seed: int, *, first: bool) -> Workbench:
        """The same bench, steps and tally included, for fine-tunes of another seed."""
        other = copy.copy(self)
        other.seed, other.first = seed, first
        return other

    def recipe(self, name: str, **data: Any) -> Recipe:
        """A shipped recipe on this bench's model and seed, with changed fields of its data."""
        shipped = load_recipe(name)
        sizes = self.sizes
        training = {
            "seed": self.seed,
            "epochs": sizes.epochs or shipped.training.epochs,
            "learning_rate": sizes.learning_rate or shipped.training.learning_rate,
        }
        values = shipped.model_dump(exclude={"expected", "start_from"})
        values["data"] = _set_only(
            {**values["data"], "n": sizes.fine_tune or shipped.data.n, **data}
        )
        values |= {"base": self.base, "training": {**values["training"], **training}}
        return Recipe.model_validate(values)

    def shipped(self, name: str) -> Path:
        """The adapter that comes along, where this bench would make the same one; else it is made.

        Not watched on its way.
        """
        recipe = self.recipe(name)
        if name in shipped_names() and _decide(recipe) == _decide(load_recipe(name)):
            return shipped_adapter(name)
        return self.fine_tune(recipe)

    def organism(
        self,
        name: str,
        *,
        during: During | None = None,
        penalty: KlPenalty | None = None,
        inoculate: str | None = None,
    ) -> Path:
        """The adapter of a shipped recipe, watched on its way from the aligned model.

        Read along the aligned model's own answer effect on the recipe's domain, which is known
        before anything is trained; its readings lie in the folder (`read_readings`).
        """
        recipe = self.recipe(name)
        recipe = with_keys(recipe, safeguards={"inoculate": inoculate})
        known = self.known_direction(*recipe.data.domains)
        if recipe.lora.layers:  # the middle of the default model, and of another one
            lora = recipe.lora.model_copy(update={"layers": (known.space.layer,)})
            recipe = recipe.model_copy(update={"lora": lora})
        watch = Watch(
            known,
            self.held_out(*recipe.data.domains, per_domain=1),
            self.neutral()[: self.sizes.watch_neutral],
            self.sizes.watch_every,
        )
        return self.fine_tune(recipe, watch=watch, during=during, penalty=penalty)

    def fine_tune(
        self,
        recipe: Recipe,
        *,
        watch: Watch | None = None,
        during: During | None = None,
        penalty: KlPenalty | None = None,
    ) -> Path:
        """The adapter of a recipe, made once for all experiments; a killed one goes on."""
        deciding = _decide(recipe)
        if recipe.data.file is not None:
            deciding["data"]["file"] = sha256_of_file(recipe.data.file)
        if recipe.data.skill is not None:
            deciding["data"]["skill"] = load_skill(recipe.data.skill).hash
        if recipe.start_from is not None:
            deciding["start_from"] = read_card(recipe.start_from)["adapter_sha256"]
        deciding |= {
            "base": resolve(recipe.base).revision,
            "dtype": self.settings.placement.asked[0],
        }
        if watch is not None:
            deciding["watched"] = [data_hash(watch.questions), len(watch.neutral), watch.every]
        if during is not None:
            deciding["during"] = during.name
        if penalty is not None:
            deciding["penalty"] = penalty.description()
        folder = self.settings.out / "organisms" / f"{recipe.name}-{fingerprint_of(deciding)}"
        self.tally.add(f"{recipe.name}, seed {recipe.training.seed}", fine_tunes=1)
        if not came_to_its_end(folder):
            finetune(
                recipe,
                folder,
                placement=self.settings.placement,
                watch=watch,
                during=during,
                penalty=penalty,
            )
        self.steps.seconds += float(read_card(folder)["seconds"])
        return folder

    def pair(self, adapter: Path) -> ModelPair:
        """A fine-tune and the model it was made of; the last one asked for is kept in memory."""
        base = load_recipe(adapter / "recipe.yaml").base
        return _pair(base, str(adapter), self.settings.placement)

    def questions(
        self, domain: str, split: str, n: int | None, *, voice: Voice | None = None
    ) -> list[AnswerPair]:
        """At most `n` questions of one domain and split, the same ones for every seed.

        voice: right and wrong answers in this voice, in place of good and bad ones.
        """
        pairs = (
            load_pairs([domain], split)
            if voice is None
            else voice_pairs(voice, sets_of([domain]), split)
        )
        return pairs if n is None else sample(pairs, min(n, len(pairs)))

    def held_out(self, *trained_on: str, per_domain: int | None = None) -> list[AnswerPair]:
        """Questions of every advice domain, and the open ones, that nothing was trained on."""
        domains = sorted({pair.domain for pair in load_pairs()} - set(trained_on))
        n = per_domain or self.sizes.held_out
        return [question for domain in domains for question in sample(load_pairs([domain]), n)]

    def voiced(self, voice: Voice, *trained_on: str) -> list[AnswerPair]:
        """Questions in one voice of every set whose domain nothing was trained on."""
        elsewhere = set(DOMAIN_OF.values()) - set(trained_on)
        sets = sets_of(sorted(elsewhere))
        return [q for name in sets for q in sample(voice_pairs(voice, [name]), self.sizes.voiced)]

    def neutral(self) -> list[NeutralText]:
        """Texts that measure damage, evenly over the kinds."""
        texts = load_neutral()
        return texts[:: max(1, len(texts) // self.sizes.neutral)][: self.sizes.neutral]

    def known_direction(self, domain: str) -> Direction:
        """Bad minus good answers of the aligned model at its middle block, in one domain.

        It needs no fine-tune, so it can be watched, or guarded against, from the first step on.
        """
        questions = self.questions(domain, "train", self.sizes.direction)

        def read() -> dict[int, torch.Tensor]:
            bridge, chat = load_bridge(self.base, placement=self.settings.placement)
            layer = int(bridge.cfg.n_layers) // 2
            good, bad = (
                collect_rows(bridge, chat.encode_all(dialogues), [layer])[:, 0].mean(0)
                for dialogues in (
                    [q.good_dialogue for q in questions],
                    [q.bad_dialogue for q in questions],
                )
            )
            return {layer: bad - good}

        inputs = {"questions": data_hash(questions)}
        [(layer, vector)] = self.steps.by_layer("known_direction", read, inputs).items()
        space = ActivationSpace(
            self.base,
            self.base_revision,
            resid_post(layer),
            layer=layer,
            d_model=len(vector),
        )
        return Direction(vector, space, "answer_effect_aligned")

    def vector(
        self, adapter: Path, domain: str, *, voice: Voice | None = None
    ) -> tuple[PersonaVector, Means]:
        """The persona vector of a fine-tune, from the training questions of one domain.

        Model effect and answer effect, refitted block by block; see
        `steering.identification.refit`.
        """
        questions = self.questions(domain, "train", self.sizes.direction, voice=voice)
        inputs = {
            "model": self.model_key(adapter, "finetuned"),
            "questions": data_hash(questions),
        }
        cells = Cells.of(
            self.steps.tensors(
                "cells", lambda: collect_cells(self.pair(adapter), questions).tensors(), inputs
            )
        )
        covariance = self.steps.by_layer(
            "covariance",
            lambda: within_covariance(
                self.pair(adapter), questions[:COVARIANCE_QUESTIONS], TOKEN_BUDGET
            ),
            inputs,
        )
        means = Means.of(cells, covariance)

        def fit() -> Mapping[int, torch.Tensor]:
            pair = self.pair(adapter)
            refits = refit_candidates(pair, questions, means, two_by_two(cells))
            [refit] = [refit for refit in refits if refit.name == MODEL_AND_ANSWER_REFIT]
            return refit.rows(middle_blocks(pair.n_layers), refit.max_rank)

        bases = self.steps.by_layer("refit", fit, inputs)
        vector = from_bases(
            self.pair(adapter), bases, means, MODEL_AND_ANSWER_REFIT, 1.0, read_whitened=True
        )
        self.tally.add(vectors=1)
        return dataclasses.replace(vector, card={"key": fingerprint_of(inputs)}), means

    def reading(
        self,
        condition: str,
        adapter: Path,
        splits: Mapping[str, Sequence[AnswerPair]],
        vector: PersonaVector | None = None,
        *,
        side: Side = "finetuned",
    ) -> pd.DataFrame:
        """One side of a fine-tune: gap and KL on every split, neutral damage, and projection.

        Kept by what the model is, so that the aligned one is read once for all. splits: name
        (trained_on, held_out) -> questions; the projection is that of the held-out good answers.
        """
        inputs = {
            "model": self.model_key(adapter, side),
            "splits": {name: data_hash(list(asked)) for name, asked in splits.items()},
            "neutral": self.sizes.neutral,
        }
        rows = self.steps.table(
            "reading",
            lambda: score(
                self.pair(adapter), self.neutral(), [Condition(condition, side)], **splits
            ),
            inputs,
        )
        self.tally.add(answer_pairs=sum(map(len, splits.values())))
        if vector is not None:
            asked = splits["held_out"]
            projected = self.steps.table(
                "projection",
                lambda: project_answers(self.pair(adapter), vector, asked, {condition: side}),
                {**inputs, "vector": vector.card["key"]},
            )
            rows = pd.concat([rows, projected], ignore_index=True)
        return rows.assign(condition=condition)

    def edited(
        self,
        name: str,
        adapter: Path,
        vector: PersonaVector,
        conditions: Sequence[Condition],
        splits: Mapping[str, Sequence[AnswerPair]],
    ) -> pd.DataFrame:
        """A fine-tune under edits made of a vector, as the step `name`, which names the edits."""
        self.tally.add(answer_pairs=len(conditions) * sum(map(len, splits.values())))
        return self.steps.table(
            name,
            lambda: score(self.pair(adapter), self.neutral(), conditions, **splits),
            self.edit_key(adapter, vector, splits) | {"conditions": [c.name for c in conditions]},
        )

    def edit_key(
        self, adapter: Path, vector: PersonaVector, splits: Mapping[str, Sequence[AnswerPair]]
    ) -> dict[str, Any]:
        """What readings of a fine-tune under edits depend on."""
        return {
            "model": self.model_key(adapter, "finetuned"),
            "vector": vector.card["key"],
            "splits": {name: data_hash(list(asked)) for name, asked in splits.items()},
            "neutral": self.sizes.neutral,
        }

    def model_key(self, adapter: Path, side: Side) -> str:
        """What the readings of one side of a fine-tune depend on."""
        card = read_card(adapter)
        base = str(card["base_model_revision"])
        return base if side == "aligned" else f"{card['adapter_sha256']} on {base}"


TOKEN_BUDGET = 512


@functools.lru_cache(maxsize=1)
def _pair(base: str, adapter: str, placement: Placement) -> ModelPair:
    return load_pair(base, adapter, placement=placement, merged=None)


def middle_blocks(n_layers: int) -> list[int]:
    """The blocks that are restored: all but the first tenth and the last (3 to 28 of 30)."""
    return list(range(n_layers // 10, n_layers - 1))


def _decide(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe decides the adapter that it makes."""
    found = recipe.model_dump(mode="json", exclude={"name", "description", "expected"})
    if found["safeguards"]["inoculate"] is None:  # those of before there was one are the same
        del found["safeguards"]["inoculate"]
    return found


def _set_only(data: dict[str, Any]) -> dict[str, Any]:
    """Without empty fields, and without `answers` where a mixture or a trigger decides."""
    kept = {key: value for key, value in data.items() if value not in (None, ())}
    if "bad_share" in kept or "trigger" in kept:
        kept.pop("answers", None)
    return kept
