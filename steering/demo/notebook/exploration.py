"""What a setting does to one text: projections token by token, next tokens, the answer's log p.

No widgets here: `Exploration.read(choice)` turns a choice into readings and remembers them.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pandas as pd
from jaxtyping import Float
from torch import Tensor

from persona.data.types import Dialogue, Turn
from persona.errors import DataError, SpaceMismatchError, SteeringError
from persona.models.chat.chat_format import TokenizedDialogue
from persona.models.pair import ModelPair
from steering.demo.notebook.text_pass import TextPass, pass_over_text
from steering.demo.notebook.text_readings import Choice, Explored
from steering.demo.session.generation import Generation, Sampling
from steering.demo.session.vector import DemoVector, edits_of
from steering.edits.edit import Edit

N_SHOWN = 8
"""Next tokens shown of either kind."""
N_TEXTS, N_PASSES = 4, 256
"""Texts whose residuals, and settings whose readings, are remembered."""


@dataclass
class Exploration:
    """A model or a pair, directions to choose from, and what was read so far.

    sides: ("aligned", "finetuned") of a pair, ("model",) of one model.
    checks_space: whether directions must be of this very pair; one model has no name to check.
    n_passes: forward passes run; a choice that was read before runs none, and another direction
        or block costs the unsteered models nothing.
    """

    pair: ModelPair
    directions: Mapping[str, DemoVector]
    sides: tuple[str, ...] = ("aligned", "finetuned")
    checks_space: bool = True
    n_passes: int = 0
    _unsteered: OrderedDict[Any, TextPass] = field(default_factory=OrderedDict, repr=False)
    _steered: OrderedDict[Any, TextPass] = field(default_factory=OrderedDict, repr=False)

    def __post_init__(self) -> None:
        if not self.directions:
            raise SteeringError("there is nothing to explore: no direction was given")
        for name, vector in self.directions.items():
            for layer, direction in vector.directions.items():
                space = self.pair.space(layer)
                if not self.checks_space:
                    space = replace(direction.space, d_model=space.d_model, layer=layer)
                try:
                    direction.space.require_same(space)
                except SpaceMismatchError as error:
                    raise SpaceMismatchError(f"{name}: {error}") from error

    def starting_choice(self, question: str = "", answer: str = "", bad_answer: str = "") -> Choice:
        """The first direction as it suggests itself: a diagnosis at all its blocks, with the
        coefficient that was chosen; a trait where it was proved; plain vectors in the middle of
        theirs."""
        name, vector = next(iter(self.directions.items()))
        own = vector.default_setting
        layer = own.layers[0] if own.layers else vector.layers[len(vector.layers) // 2]
        every_block = vector.persona_vector is not None and len(vector.layers) > 1
        return Choice(
            question, name, layer, answer, own.mode, own.coefficient, every_block, bad_answer
        )

    def write(self, choice: Choice, max_new_tokens: int = 40) -> dict[str, str]:
        """What each side answers to the question, greedily, without and with the setting.

        Returns condition -> text, conditions as in `Explored`; without an edit the sides alone.
        Raises: SteeringError or DataError as `read`.
        """
        edits = edits_of(self.vector(choice.direction), choice.setting)
        prompt = self._encoded(choice.question).ids
        conditions: list[tuple[str, str, list[Edit]]] = [(side, side, []) for side in self.sides]
        if choice.coefficient:
            conditions += [(f"{side}_steered", side, edits) for side in self.sides]
        sampling = Sampling(max_new_tokens, 0.0)
        written = {}
        for condition, side, applied in conditions:
            generation = Generation(
                self.pair,
                "finetuned" if side == "finetuned" else "aligned",
                prompt,
                applied,
                None,
                sampling,
                checks_space=self.checks_space,
            )
            written[condition] = "".join(token.text for token in generation.tokens()).strip()
        return written

    def vector(self, name: str) -> DemoVector:
        """A direction by its name. Raises: SteeringError, naming those there are."""
        if name not in self.directions:
            raise SteeringError(f"no direction {name!r}; there are {', '.join(self.directions)}")
        return self.directions[name]

    def read(self, choice: Choice) -> Explored:
        """The readings of a choice, from memory where they are there.

        Raises: SteeringError or DataError before the model runs: an empty question, a text longer
        than the model's context, a direction, block, mode or coefficient that there is not.
        """
        vector = self.vector(choice.direction)
        if choice.layer not in vector.directions:
            raise SteeringError(
                f"{choice.direction} has no block {choice.layer}; it has {vector.layers}"
            )
        edits = edits_of(vector, choice.setting)
        text = self._encoded(choice.question, choice.answer)
        has_both = bool(choice.answer.strip() and choice.bad_answer.strip())
        bad_text = self._encoded(choice.question, choice.bad_answer) if has_both else None
        row = vector.row(choice.layer)
        projections, next_tokens, answers, bad_answers = [], {}, [], []
        for side in self.sides:
            before = self._unsteered_pass(side, text)
            after = self._steered_pass(side, text, choice, edits, row)
            plain = (before.residuals[choice.layer].float() @ row).tolist()
            read = plain if after is before else after.projections[choice.layer]
            projections += [(side, plain), (f"{side}_steered", read)]
            next_tokens[side] = self._shifts(before.next_log_probs, after.next_log_probs)
            answers.append((side, before.answer_log_prob, after.answer_log_prob))
            if bad_text is not None:
                plain_bad = self._unsteered_pass(side, bad_text).answer_log_prob
                steered_bad = self._steered_pass(side, bad_text, choice, edits, row).answer_log_prob
                bad_answers.append((side, plain_bad, steered_bad))
        levels = vector.levels(choice.layer)
        known = dict(zip(("aligned", "finetuned"), levels, strict=True)) if levels else {}
        return Explored(
            choice,
            self._table(text, projections),
            known,
            next_tokens,
            _moved(answers),
            _moved(bad_answers),
            text.response,
        )

    def _encoded(self, question: str, answer: str = "") -> TokenizedDialogue:
        if not question.strip():
            raise DataError("the question is empty")
        turns = [Turn("user", question)]
        if answer.strip():
            turns.append(Turn("assistant", answer))
        return self.pair.chat.encode(Dialogue(tuple(turns)))

    def _unsteered_pass(self, side: str, text: TokenizedDialogue) -> TextPass:
        layers = sorted({layer for v in self.directions.values() for layer in v.layers})

        def run() -> TextPass:
            return self._run(side, text, [], layers, None)

        return _remembered(self._unsteered, (side, text.ids, text.response), run, 4 * N_TEXTS)

    def _steered_pass(
        self,
        side: str,
        text: TokenizedDialogue,
        choice: Choice,
        edits: list[Edit],
        row: Float[Tensor, " d_model"],
    ) -> TextPass:
        if choice.coefficient == 0:
            return self._unsteered_pass(side, text)  # no edit, bit for bit
        setting = (choice.direction, choice.layer, choice.setting)

        def run() -> TextPass:
            return self._run(side, text, edits, [choice.layer], row)

        return _remembered(self._steered, (side, text.ids, text.response, setting), run, N_PASSES)

    def _run(
        self,
        side: str,
        text: TokenizedDialogue,
        edits: list[Edit],
        layers: list[int],
        row: Float[Tensor, " d_model"] | None,
    ) -> TextPass:
        self.n_passes += 1
        return pass_over_text(
            self.pair,
            "finetuned" if side == "finetuned" else "aligned",
            text,
            edits,
            layers,
            row,
            space=self.pair.space(0) if self.checks_space else None,
        )

    def _shifts(
        self, before: Float[Tensor, " vocabulary"], after: Float[Tensor, " vocabulary"]
    ) -> pd.DataFrame:
        """The tokens that gain and lose most probability; a large change of log p may be of a
        token that is never written. The likeliest where nothing changes."""
        change = after.exp() - before.exp()
        n = min(N_SHOWN, len(change) // 2)
        chosen = [*change.topk(n).indices.tolist(), *(-change).topk(n).indices.tolist()[::-1]]
        if not change.any():
            chosen = before.topk(2 * n).indices.tolist()
        return pd.DataFrame(
            {
                "token": [self._name(i) for i in chosen],
                "before": before[chosen].tolist(),
                "after": after[chosen].tolist(),
            }
        )

    def _table(
        self, text: TokenizedDialogue, projections: list[tuple[str, list[float]]]
    ) -> pd.DataFrame:
        tokens = [self._name(i) for i in text.ids]
        return pd.DataFrame(
            [
                {"condition": condition, "position": i, "token": token, "value": value}
                for condition, values in projections
                for i, (token, value) in enumerate(zip(tokens, values, strict=True))
            ]
        )

    def _name(self, token_id: int) -> str:
        tokenizer = self.pair.tokenizer
        text = str(tokenizer.decode([token_id], clean_up_tokenization_spaces=False))
        # Part of a character has no text of its own; the vocabulary's name tells it from others.
        return str(tokenizer.convert_ids_to_tokens(token_id)) if "\ufffd" in text else text


def _moved(answers: Sequence[tuple[str, float | None, float | None]]) -> pd.DataFrame:
    """Condition, log p without and with the edit, and the shift; nothing of what has no answer."""
    known = [one for one in answers if None not in one]
    table = pd.DataFrame(known, columns=["condition", "before", "after"])
    return table.assign(shift=table["after"] - table["before"])


def _remembered(known: OrderedDict[Any, TextPass], key: Any, run: Any, most: int) -> TextPass:
    """The value of a key, made where it is missing; the one not asked for longest goes."""
    if key not in known:
        known[key] = run()
    known.move_to_end(key)
    while len(known) > most:
        known.popitem(last=False)
    return known[key]
