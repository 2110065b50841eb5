"""What a fine-tune learnt, read off two models: every readout of the room, in one table of words.

Nothing here is asked of a language model, and nothing needs a key. Each list stands beside its
chance and, where there is a good twin, beside what that does as well; what beats neither is marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from persona.activations import collect_covariance, collect_rows
from persona.activations.batches import DEFAULT_TOKEN_BUDGET
from persona.data import load_neutral, load_pairs
from persona.data.shipped import OPEN_QUESTIONS
from persona.data.types import AnswerPair, Dialogue
from persona.directions import PersonaVector
from persona.errors import DataError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import SIDES, ModelPair
from persona.readouts.amplified import AmplifiedAnswer, amplified_answers
from persona.readouts.changed_answers import answer_changes, changes_by_domain
from persona.readouts.hypotheses import hypotheses, subject_words
from persona.readouts.jacobian import N_TEXTS, fit_jacobian_lens
from persona.readouts.latent_lists import LatentList, RisingLatent
from persona.readouts.lens import Lens, LogitLens
from persona.readouts.naming import Naming, name_fine_tune
from persona.readouts.subject_evidence import subject_evidence
from persona.readouts.token_lists import TokenList, tokens_of_differences, tokens_of_direction
from persona.readouts.weight_change import WrittenDirection, written_directions
from persona.stages import Stages, Unsaved

FIRST_TOKENS = "first_response:5"
"""Where a narrow fine-tune shows on text that has nothing to do with it. Source: Minder et al.
2025 ("Narrow Finetuning Leaves Clearly Readable Traces in Activation Differences")."""
N_NEUTRAL, N_OPEN, N_WRITTEN = 48, 24, 3
AMOUNTS = (0.5, 1.0, 2.0)
NEUTRAL_SOURCE = "model effect, first words of unrelated text"
OPEN_SOURCE = "model effect, before an open question is answered"
VOTES = {NEUTRAL_SOURCE: "words_neutral", OPEN_SOURCE: "words_open"}
"""Source -> the column of `subject_evidence` that its words fill."""
ALIKE = 1e-6
"""Effects of less than this share of the activations are rounding: the models do not differ."""


@dataclass(frozen=True)
class FineTuneReading:
    """What was read of one fine-tune.

    lists: tokens promoted and suppressed, by source and lens. twin_lists: the same of the good
        twin. changes: see `answer_changes`; by_domain: see `changes_by_domain`.
    written: the largest singular directions of the change of weights, empty where none was found.
    naming: what it learnt, as the readouts vote; None where other questions were scored than those
        that the vote knows. latents: see `persona.sae.rising_latents`; they have no vote.
    notes: what a reader must know, such as that names are byte pieces.
    """

    aligned: str
    finetuned: str
    layer: int
    lists: tuple[TokenList, ...]
    twin_lists: tuple[TokenList, ...]
    changes: pd.DataFrame
    by_domain: pd.DataFrame
    written: tuple[WrittenDirection, ...]
    amplified: tuple[AmplifiedAnswer, ...]
    seed: int
    notes: tuple[str, ...] = field(default=())
    naming: Naming | None = None
    latents: tuple[LatentList, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Everything but the vectors, as plain values."""

        def listed(one: TokenList) -> dict[str, Any]:
            found = {**asdict(one), "beats_chance": one.beats_chance}
            for name in ("promoted", "suppressed"):
                found[name] = [
                    {**asdict(token), "beats_chance": token.beats_chance}
                    for token in getattr(one, name)
                ]
            return found

        return {
            "schema_version": 1,
            "aligned": self.aligned,
            "finetuned": self.finetuned,
            "layer": self.layer,
            "seed": self.seed,
            "lists": [listed(one) for one in self.lists],
            "twin_lists": [listed(one) for one in self.twin_lists],
            "changes_by_domain": self.by_domain.to_dict("records"),
            "changes": self.changes.to_dict("records"),
            "written": [
                {"layer": w.layer, "part": w.part, "value": w.value, "share": w.share}
                for w in self.written
            ],
            "amplified": [asdict(one) for one in self.amplified],
            "notes": list(self.notes),
            "latents": [
                {**asdict(one), "rising": [_latent(each) for each in one.rising]}
                for one in self.latents
            ],
            "naming": None if self.naming is None else self.naming.as_json(),
        }


def _latent(one: RisingLatent) -> dict[str, Any]:
    return {**asdict(one), "beats_chance": one.beats_chance}


def read_fine_tune(
    pair: ModelPair,
    *,
    twin: ModelPair | None = None,
    vector: PersonaVector | None = None,
    layer: int | None = None,
    questions: Sequence[AnswerPair] | None = None,
    amounts: Sequence[float] = AMOUNTS,
    jacobian: bool = True,
    seed: int = 0,
    token_budget: int = DEFAULT_TOKEN_BUDGET,
    stages: Stages | None = None,
) -> FineTuneReading:
    """Reads what a fine-tune changed: tokens, answers, weights, and words when it is amplified.

    twin: the same aligned model with a harmless fine-tune on the same questions.
    vector: a persona vector of the pair, read as well.
    layer: block that is read, default the one at half depth. questions: pairs of answers that are
        scored, default six of each subject that can be named; with others nothing is named.
    amounts: of amplification; none where empty. jacobian: read through the Jacobian lens too, which
        is fitted once a model and kept. stages: where what is finished is kept.
    Raises: DataError where the two models do not differ, or a twin has another aligned model.
    """
    layer = pair.n_layers // 2 if layer is None else layer
    if twin is not None and twin.revisions["aligned"] != pair.revisions["aligned"]:
        raise DataError(
            f"the good twin is a fine-tune of {twin.names['aligned']}, not of "
            f"{pair.names['aligned']}: what they do cannot be compared"
        )
    stages = stages or Unsaved()
    sources = reading_sources(pair)
    effects = stages.tensors("effects", lambda: _effects(pair, sources, layer, token_budget))
    of_twin = None
    if twin is not None:
        of_twin = stages.tensors(
            "effects-twin", lambda: _effects(twin, sources, layer, token_budget)
        )
    covariance = stages.by_layer("covariance", lambda: _covariance(pair, layer, token_budget))
    lenses = _lenses(pair, layer, jacobian)
    lists, twin_lists = [], []
    for name in sources:
        effect = effects[name]
        beyond = None if of_twin is None else effect - of_twin[name]
        for lens in lenses:
            lists.append(
                tokens_of_differences(
                    name,
                    lens,
                    layer,
                    effect,
                    pair.tokenizer,
                    beyond_twin=beyond,
                    covariance=covariance[layer],
                    seed=seed,
                )
            )
            if of_twin is not None:
                twin_lists.append(
                    tokens_of_differences(
                        name,
                        lens,
                        layer,
                        of_twin[name],
                        pair.tokenizer,
                        covariance=covariance[layer],
                        seed=seed,
                    )
                )
    if vector is not None:
        lists += _of_vector(pair, vector, lenses, layer, covariance, seed)
    written = written_directions(pair, n=N_WRITTEN)
    lists += [_of_written(pair, lenses[0], one, seed) for one in written]
    scored = list(questions or _scored_by_subject(pair))
    changes = stages.table(
        "changes", lambda: answer_changes(pair, scored, token_budget=token_budget)
    )
    open_ones = [q.prompt_dialogue for q in load_pairs([OPEN_QUESTIONS], "selection")][:4]
    said = [one for amount in amounts for one in _said(pair, open_ones, amount, stages)]
    naming = None
    if not questions:
        naming = _named(pair, lenses[0], layer, effects, written, said, changes)
    return FineTuneReading(
        pair.names["aligned"],
        pair.names["finetuned"],
        layer,
        tuple(lists),
        tuple(twin_lists),
        changes,
        changes_by_domain(changes, seed=seed),
        tuple(written),
        tuple(said),
        seed,
        tuple(_notes(pair.tokenizer, written)),
        naming,
    )


def _scored_by_subject(pair: ModelPair) -> list[AnswerPair]:
    """The pairs that tell the subjects, but those that do not fit into the model's context."""
    longest = pair.chat.max_length
    whole = replace(pair.chat, max_length=None)

    def fits(question: AnswerPair) -> bool:
        both = whole.encode_all([question.good_dialogue, question.bad_dialogue])
        return longest is None or max(len(one.ids) for one in both) <= longest

    return [question for one in hypotheses() for question in one.scored if fits(question)]


def _named(
    pair: ModelPair,
    lens: Lens,
    layer: int,
    effects: Mapping[str, Tensor],
    written: Sequence[WrittenDirection],
    said: Sequence[AmplifiedAnswer],
    changes: pd.DataFrame,
) -> Naming:
    """The vote of what was read."""

    def logits(row: Tensor, at: int) -> Any:
        return lens.logits(row[None], at)[0].double().numpy()

    n_vocabulary = int(lens.logits(torch.zeros(1, pair.d_model), layer).shape[-1])
    evidence = subject_evidence(
        changes,
        subject_words(pair.tokenizer, n_vocabulary),
        raised={column: logits(effects[name].mean(0), layer) for name, column in VOTES.items()},
        written=[logits(one.vector, one.layer) for one in written],
        said=said,
        tokenizer=pair.tokenizer,
    )
    return name_fine_tune(evidence, changes)


def reading_sources(pair: ModelPair) -> dict[str, tuple[list[TokenizedDialogue], str]]:
    """What the model effect is read on: name -> dialogues, token set."""
    neutral = [text.dialogue for text in load_neutral()][:N_NEUTRAL]
    asked = [_asked(q) for q in load_pairs([OPEN_QUESTIONS])][:N_OPEN]
    encoded = pair.chat.encode_all
    return {
        NEUTRAL_SOURCE: (encoded(neutral), FIRST_TOKENS),
        OPEN_SOURCE: (encoded(asked), "last_prompt"),
    }


def _asked(question: AnswerPair) -> Dialogue:
    """A question as it waits for its answer: the good one stands behind it and is not read."""
    return question.good_dialogue


def _effects(
    pair: ModelPair,
    sources: dict[str, tuple[list[TokenizedDialogue], str]],
    layer: int,
    token_budget: int,
) -> dict[str, Float[Tensor, "text d_model"]]:
    """Source -> fine-tuned minus aligned, text by text.

    Raises: DataError where the two models do not differ.
    """
    read: dict[str, dict[str, Tensor]] = {}
    for side in SIDES:
        with pair.active(side) as model:
            read[side] = {
                name: collect_rows(
                    model,
                    dialogues,
                    [layer],
                    token_set=token_set,
                    token_budget=token_budget,
                    description=f"Reading texts ({side})",
                )[:, 0]
                for name, (dialogues, token_set) in sources.items()
            }
    found = {name: read["finetuned"][name] - read["aligned"][name] for name in sources}
    for name, effect in found.items():
        if float(effect.norm()) <= ALIKE * float(read["aligned"][name].norm()):
            raise DataError(
                f"{pair.names['finetuned']} and {pair.names['aligned']} do not differ at block "
                f"{layer} ({name}): there is nothing to read. A change of the output embedding "
                "alone shows in no block"
            )
    return found


def _covariance(pair: ModelPair, layer: int, token_budget: int) -> dict[int, Tensor]:
    """Of the aligned model's activations on the words of unrelated text: what directions it has."""
    texts = pair.chat.encode_all([text.dialogue for text in load_neutral()][:N_NEUTRAL])
    with pair.active("aligned") as model:
        found = collect_covariance(
            model,
            texts,
            [layer],
            token_budget=token_budget,
            description="Reading how activations vary",
        )
    return {at: matrix.float() for at, matrix in found.items()}


def _said(
    pair: ModelPair, questions: Sequence[Dialogue], amount: float, stages: Stages
) -> list[AmplifiedAnswer]:
    """The answers at one amount, which are a stage of their own."""

    def made() -> pd.DataFrame:
        return pd.DataFrame([asdict(one) for one in amplified_answers(pair, questions, [amount])])

    rows = stages.table(f"amplified-{amount:g}", made).itertuples()
    return [AmplifiedAnswer(str(r.question), float(r.amount), str(r.text)) for r in rows]


def _lenses(pair: ModelPair, layer: int, jacobian: bool) -> list[Lens]:
    with pair.active("aligned") as model:
        found: list[Lens] = [LogitLens.of(model)]
    if jacobian:
        texts = [text.dialogue for text in load_neutral()][-N_TEXTS:]
        found.append(fit_jacobian_lens(pair, pair.chat.encode_all(texts), [layer]))
    return found


def _of_vector(
    pair: ModelPair,
    vector: PersonaVector,
    lenses: Sequence[Lens],
    layer: int,
    covariance: Mapping[int, Tensor],
    seed: int,
) -> list[TokenList]:
    """The persona vector at the block that is read, or at its nearest.

    At another block, whose covariance is not known, it is held against isotropic directions.
    """
    at = min(vector.layers, key=lambda one: abs(one - layer))
    subspace = vector.subspaces[at]
    toward_finetuned = torch.where(subspace.finetuned_mean >= subspace.aligned_mean, 1.0, -1.0)
    found = []
    for place, row in enumerate(toward_finetuned[:, None] * subspace.basis):
        name = "persona vector" if vector.rank == 1 else f"persona vector, direction {place + 1}"
        found += [
            tokens_of_direction(
                name, lens, at, row, pair.tokenizer, covariance=covariance.get(at), seed=seed
            )
            for lens in lenses
            if at == layer or lens.name == LogitLens.name
        ]
    return found


def _of_written(pair: ModelPair, lens: Lens, one: WrittenDirection, seed: int) -> TokenList:
    name = f"change of weights, {one.part} of block {one.layer}"
    return tokens_of_direction(name, lens, one.layer, one.vector, pair.tokenizer, seed=seed)


def _notes(tokenizer: Any, written: Sequence[WrittenDirection]) -> list[str]:
    """Raises nothing: what cannot be read well is said."""
    notes = []
    words = [tokenizer.decode([i]) for i in range(min(len(tokenizer), 2000))]
    pieces = sum(len(word.strip()) <= 1 or "\ufffd" in word for word in words)
    if pieces > len(words) // 2:
        notes.append(
            "the tokens of this tokenizer are single characters or pieces of them: the lists "
            "cannot be read as words"
        )
    if not written:
        notes.append(
            "no weight that writes to the stream of a block was changed (an adapter on the "
            "embeddings alone, or on what only reads): no direction of a changed weight is listed"
        )
    return notes
