"""What a run says of itself: models, data, versions, memory, and a summary in words."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from persona.behaviour.judging.two_errors import errors_in_words
from persona.directions.storage import tool_version
from persona.models import ModelPair
from persona.report.resembled_words import resemblance_sentence
from persona.report.skill_words import skill_sentence
from persona.report.style_words import style_sentence
from persona.report.time_words import stages_in_words
from persona.report.wording import duration
from steering.diagnosis.config import DiagnoseConfig
from steering.diagnosis.questions import Questions


def models_of(pair: ModelPair, config: DiagnoseConfig) -> dict[str, Any]:
    """Names, revisions and sizes of the models, and how they were read."""
    return {
        "aligned": pair.names["aligned"],
        "finetuned": pair.names["finetuned"],
        "good_twin": config.good_twin,
        "other_finetune": config.other_finetune,
        "revisions": dict(pair.revisions),
        "n_layers": pair.n_layers,
        "d_model": pair.d_model,
        "dtype": pair.precision,
        "device": str(pair.device),
        "chat_format": pair.chat.source,
        "chat_template_hash": pair.chat.template_hash,
        "chat_template_arguments": dict(pair.chat.arguments),
        "notes": list(pair.notes),
    }


def data_of(questions: Questions, config: DiagnoseConfig) -> dict[str, Any]:
    """Source, hash, domains and counts of the questions."""
    counts: dict[str, int] = {}
    known = questions.domains_trained_on
    for question in questions.held_out:
        counts[question.domain] = counts.get(question.domain, 0) + 1
    return {
        "source": "shipped" if config.data is None else str(config.data),
        "hash": questions.hash,
        "trained_on": None if known is None else list(known),
        "trained_on_source": _source(questions, config),
        "validation_domains": list(config.validation_domains),
        "held_out": sorted(counts),
        "counts": {
            "train": len(questions.train),
            "selection": len(questions.selection),
            "trained_on": len(questions.trained_on),
            "held_out": counts,
            "neutral_selection": len(questions.neutral_selection),
            "neutral_score": len(questions.neutral_score),
        },
    }


def _source(questions: Questions, config: DiagnoseConfig) -> str:
    """Where the domains trained on are known from."""
    if questions.domains_trained_on is None:
        return "unknown"
    return "recipe" if config.trained_on is None else "given"


def versions() -> dict[str, str]:
    """Of Python, of this package, and of the libraries that decide numbers."""
    names = ("personascope", "torch", "transformers", "transformer-lens", "peft")
    return {"python": platform.python_version(), **{name: tool_version(name) for name in names}}


def summary_of(scorecard: Mapping[str, Any]) -> str:
    """What a person wants to know first, in a few lines."""

    def shown(name: str) -> str:
        e = scorecard[name]
        if e is None:
            return "undefined"
        if e["low"] is None:  # Fieller's interval of few questions
            return f"{e['value']:+.2f} [without ends]"
        return f"{e['value']:+.2f} [{e['low']:+.2f}, {e['high']:+.2f}]"

    direction, random = scorecard["direction"], scorecard["random_restoration"]
    if direction is None:
        return (
            f"verdict: {scorecard['verdict']}\n"
            "the two models do not differ: they give every answer the same probability"
        )
    n = scorecard["conditions"][0]["gap_held_out"]["n"]
    blocks = direction["layers"]
    known = scorecard["data"].get("trained_on") is not None
    where = "in domains never trained on" if known else "of domains that may be trained on"
    lines = [
        f"verdict: {scorecard['verdict']}",
        f"emergent shift of the gap on {n} questions {where}: "
        f"{shown('emergent_shift')} nats per token",
        f"direction: {direction['method']}, rank {direction['rank']}, "
        f"blocks {blocks[0]}-{blocks[-1]}, coefficient {direction['coefficient']:g}",
        f"net restoration {shown('net_restoration')} (all the edit does: {shown('restoration')}), "
        f"KL restoration {shown('kl_restoration')}, induction {shown('induction')}",
    ]
    if noop := scorecard["noop"]:
        lines.append(
            f"the same edit moves the aligned model's gap by {noop['gap_share']['value']:+.0%} of "
            f"the shift, its answers by {noop['kl_share']['value']:.0%} of the fine-tune's KL"
        )
    placebos = (scorecard["placebos"] or {}).get("each") or []
    if placebos:
        best = placebos[0]
        lines.append(
            f"best placebo: {best['name'].replace('_', ' ')}, net restoration "
            f"{best['net_restoration']['value']:+.2f}"
        )
    if random is not None:
        few = "" if random["n_questions"] == n else f" on {random['n_questions']} of the questions"
        lines.append(
            f"random subspaces: {random['did_as_much']} of {random['n']} did as much, the largest "
            f"{random['largest']:+.2f}{few}; p = {scorecard['p_value']:.3f}"
        )
    lines.append(
        f"damage: neutral cross-entropy {shown('damage')} nats above the better model's, "
        f"{shown('damage_ce_nats')} above the fine-tuned one's"
    )
    if lost := scorecard.get("damage_tasks"):
        lines.append(
            f"tasks: {shown('damage_tasks')} of {lost['n']} items lost against the better model"
        )
    sentences = (style_sentence, skill_sentence, resemblance_sentence)
    lines += [said for sentence in sentences if (said := sentence(scorecard))]
    for name, null in (scorecard["nulls"] or {}).items():
        if null is not None:
            lines.append(
                f"null, {name.replace('_', ' ')}: {null['said']}, the strongest of "
                f"{null['n_run']} run {null['maximum']:+.2f}"
            )
    for name, null in (scorecard.get("label_nulls") or {}).items():
        if null is not None:
            lines.append(
                f"not told which answer is bad, {name.replace('_', ' ')}: {null['n_as_much']} of "
                f"{null['n']} removed as much, net; the strongest {null['maximum']:+.2f} of "
                f"{null['restoration_of_the_edit']:+.2f}"
            )
    for name, null in (scorecard.get("closed_form_nulls") or {}).items():
        sign = "at most" if null["p"] <= null["p_floor"] else "="
        lines.append(
            f"to first order random subspaces, {name.replace('_', ' ')}, do as much with "
            f"p {sign} {null['p']:.1g}"
        )
    if power := scorecard["power"]:
        lines.append(
            f"power: with {power['n']} questions a shift of {power['least_shift_nats']:.2f} nats "
            "is found in 80 % of runs"
        )
        if power.get("if_as_measured") is not None:
            lines[-1] += (
                f", and a removal like this one clears its bar in {power['if_as_measured']:.0%}"
            )
    if unmet := [check["name"] for check in scorecard["checks"] or [] if check["met"] is False]:
        lines.append(f"not met: {', '.join(unmet)}")
    lines += _of_answers(scorecard)
    if took := stages_in_words(scorecard):
        lines.append(f"time: {duration(scorecard['seconds'])} ({took})")
    if stages := scorecard.get("stages"):
        most = max(stages, key=lambda stage: int(stage["peak_rss_bytes"]))
        lines.append(
            f"memory: {scorecard['peak_rss_bytes'] / 2**30:.1f} GiB at most, in {most['name']}"
        )
    return "\n".join(lines)


def _of_answers(scorecard: Mapping[str, Any]) -> list[str]:
    """The EM rates with how they were sampled, or why there are none."""
    sampling = scorecard.get("sampling")
    if sampling is None:
        return []
    rates = {
        str(condition["name"]): condition["em_rate"]
        for condition in scorecard["conditions"]
        if condition.get("em_rate") is not None
    }
    found = (
        "EM rate: "
        + ", ".join(
            f"{name.replace('_', ' ')} {rate['value']:.0%} [{rate['low']:.0%}, {rate['high']:.0%}]"
            for name, rate in rates.items()
        )
        if rates
        else f"no EM rate is given: {sampling['why_no_rate'] or 'the judge scored no answer'}"
    )
    errors = errors_in_words(scorecard.get("judge")) if rates else None
    said = [found] if errors is None else [found, f"judge: {errors}"]
    return [*said, f"answers: {sampling['rate']['sentence']}"]
