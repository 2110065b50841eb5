"""What a run like this cannot show."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from persona.report.theme import candidate_label
from persona.report.verdict_words import training_known
from persona.report.wording import as_float, cleaned, number


def limits_of(scorecard: Mapping[str, Any], *, judged: bool) -> list[tuple[str, str]]:
    """What this run does not show, as (heading, explanation); depends on what was run."""
    direction = scorecard.get("direction") or {}
    method = candidate_label(str(direction.get("method") or "the candidate"))
    random = scorecard.get("random_restoration") or {}
    n_random = int(as_float(random.get("n")) or 0)
    data = scorecard.get("data") or {}
    trained_on = data.get("trained_on") if isinstance(data, Mapping) else None
    known = ", ".join(cleaned(d).replace("_", " ") for d in trained_on or [])
    seen = (
        f"this model was fine-tuned on {known or 'one narrow subject'}"
        if training_known(scorecard)
        else "what this model was fine-tuned on, nobody said"
    )
    kl = as_float((scorecard.get("kl_restoration") or {}).get("value"))
    limits = [
        (
            "A preference is not a behaviour.",
            "The gap says which of two written answers the model finds likelier, token by token. A "
            "model can prefer the good answer and still write a bad one of its own, and the pairs "
            "share one author's idea of bad advice: plausible, careless, callous. Deceit, "
            "power-seeking or harm over many turns is not measured.",
        ),
        (
            "Bad advice has a style.",
            "Bad answers can differ from good ones in surface features (curtness, certainty, the "
            "absence of caveats). A shift of the gap may in part be a shift of style. For "
            "the pairs that come with the package, the data card states how far a bag-of-words "
            "classifier gets; where it could be read, how much of this run's shift goes with such "
            "words stands under the key numbers.",
        ),
        (
            "One fine-tune.",
            f"Intervals are over questions. They hold neither the chance of another training seed "
            f"nor that of another data set: {seen}. Nor do they hold other domains: questions of "
            "one domain agree, so for new ones they are too narrow. Directions of "
            "different fine-tunes can be nearly orthogonal, and what is true of a model of this "
            "size need not be true of a larger one.",
        ),
        (
            "Enough is not the same as unique.",
            f"{method}: the best of the candidates tried under a damage budget. Another subspace "
            "may do as much. That a subspace restores the gap does not mean that the model stores "
            "“a persona” there, nor that nothing of it is elsewhere.",
        ),
    ]
    if not training_known(scorecard):
        limits.append(
            (
                "What was trained on is not known.",
                "Nobody said which domains the fine-tune was trained on, so everything is chosen "
                "on some questions of every domain and scored on the others. Some of what is "
                "scored may have been trained on: a shift here need not be emergent, it can be the "
                "very thing that was taught. With --trained-on it is told apart.",
            )
        )
    if (scorecard.get("nulls") or {}).get("isotropic"):
        limits.append(
            (
                "A null says that the direction matters.",
                "Random subspaces, those shaped like the activations too, were ranked by a linear "
                "prediction and only the strongest run; of the others the prediction is believed, "
                "as far as it held for those that were run. They are compared with all that the "
                "edit does, not with what is net of the aligned model. None of them says that what "
                "is taken out is a persona: the placebos and the good twin come nearer to that.",
            )
        )
    elif n_random:
        limits.append(
            (
                "The null is isotropic.",
                "Random subspaces are drawn evenly from all directions, while activations live in "
                "few of them; a null drawn from directions of high variance would be harder to "
                f"beat. Of {n_random} draws none may do as much; a chance below 1 in "
                f"{1 + n_random} cannot be told by them.",
            )
        )
    if kl is not None and kl < 1:
        limits.append(
            (
                "It is not the aligned model again.",
                f"On good answers {number(1 - kl)} of the KL divergence between the fine-tuned and "
                "the aligned model is still there after the restoration: the model may differ "
                "where no question of this run looks.",
            )
        )
    limits += [
        (
            "Damage is measured on short neutral text.",
            "Cross-entropy and KL on everyday prompts say little about long contexts, other "
            "languages, code, arithmetic, or the refusal of harmful requests.",
        ),
        (
            "The edit is made while the model runs.",
            "The weights are unchanged; without the edit the fine-tuned model is back. Nothing "
            "here tests whether the edit survives further training or a user who works against it.",
        ),
        (
            "The choice rests on a first-order screen.",
            "Candidates are ranked by a linear prediction and only the most promising are tried. "
            "Effects that are strongly non-linear, or that need several blocks at once, can be "
            "missed.",
        ),
    ]
    if judged:
        limits.append(
            (
                "The judge is a model too.",
                "EM rate and coherence are a model's scores of sampled answers; another "
                "judge, prompt or sampling temperature gives other numbers. The offline judge "
                "agrees only weakly with a large one: compare conditions, do not quote its rates "
                "alone.",
            )
        )
    else:
        limits.append(
            (
                "Nobody judged what the model writes.",
                "No judge was used, so there is no EM rate. The example answers are there to be "
                "read, not counted.",
            )
        )
    return limits
