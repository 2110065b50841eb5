"""A reading of a fine-tune in plain lines, as a terminal and a Markdown file show it."""

from __future__ import annotations

from collections.abc import Sequence

from persona.readouts.fine_tune_reading import FineTuneReading
from persona.readouts.naming_words import naming_rows, naming_sentence
from persona.readouts.token_lists import ReadToken, in_common

N_CHANGED = 5
N_TOKENS = 8


def reading_lines(reading: FineTuneReading) -> list[str]:
    """The reading as Markdown. Tokens in brackets do not beat chance, or the good twin does the
    same."""
    lines = [
        f"# What {reading.finetuned} learnt",
        "",
        f"Read against {reading.aligned} at block {reading.layer}, seed {reading.seed}. In "
        "brackets: no more than chance gives (family-wise p above 0.05), or what the good twin "
        "does as well.",
        "",
        *(_name(reading)),
        "## Answers that became likelier",
        "",
        *_domains(reading),
        "",
        "## Words",
        "",
        *_words(reading),
    ]
    if reading.latents:
        lines += ["", "## Latents that rise", "", *_latents(reading)]
    if reading.amplified:
        lines += ["", "## What it says when its difference is amplified", ""]
        lines += [
            f"- {one.question} (× {one.amount:g}): {' '.join(one.text.split()) or '(nothing)'}"
            for one in reading.amplified
        ]
    if reading.notes:
        lines += ["", *(f"Note: {note}." for note in reading.notes)]
    return lines


def _name(reading: FineTuneReading) -> list[str]:
    if reading.naming is None:
        return []
    naming = reading.naming.as_json()
    rows = [f"| {name} | {p} | {said} |" for name, p, said in naming_rows(naming)]
    return [
        "## The vote of all readouts",
        "",
        naming_sentence(naming),
        "",
        "| subject | probability | what speaks for it (robust standard deviations) |",
        "|---|---|---|",
        *rows,
        "",
    ]


def _domains(reading: FineTuneReading) -> list[str]:
    rows = [
        "| domain | n | bad answers | good answers | shift of the gap [95 %] |",
        "|---|---|---|---|---|",
    ]
    for row in reading.by_domain.itertuples():
        rows.append(
            f"| {row.domain} | {row.n} | {row.bad:+.2f} | {row.good:+.2f} | "
            f"{row.shift:+.2f} [{row.shift_low:+.2f}, {row.shift_high:+.2f}] |"
        )
    most = reading.changes.head(N_CHANGED)
    changed = ", ".join(f"{row.question_id} ({row.shift:+.2f})" for row in most.itertuples())
    return [*rows, "", "Nats per token, fine-tuned minus aligned. Most changed: " + changed + "."]


def _words(reading: FineTuneReading) -> list[str]:
    twins = {(one.source, one.lens): one for one in reading.twin_lists}
    lines = []
    for one in reading.lists:
        n = f", {one.n} texts" if one.n else ""
        lines.append(f"**{one.source}** ({one.lens}, block {one.layer}{n})")
        lines.append(f"- likelier: {_named(one.promoted)}")
        lines.append(f"- less likely: {_named(one.suppressed)}")
        twin = twins.get((one.source, one.lens))
        if twin is not None:
            lines.append(
                f"- the good twin, likelier: {_named(twin.promoted)}; "
                f"{100 * in_common(one.promoted, twin.promoted):.0f} % of the list in common"
            )
        lines.append("")
    return lines


def _latents(reading: FineTuneReading) -> list[str]:
    lines = []
    for one in reading.latents:
        lines.append(
            f"**{one.source}** (block {one.layer}, {one.n} texts; {one.n_significant} latents rise "
            "or fall beyond chance)"
        )
        for latent in one.rising:
            words = " ".join(f"`{_visible(word)}`" for word in latent.words)
            said = f"{latent.latent} ({latent.rise:+.2f}, p {latent.p:.3f}): {words}"
            lines.append(f"- {said if latent.beats_chance else f'[{said}]'}")
        lines.append("")
    return lines


def _named(tokens: Sequence[ReadToken]) -> str:
    if not tokens:
        return "none"
    return " ".join(
        f"`{_shown(t)}`" if t.beats_chance else f"[`{_shown(t)}`]" for t in tokens[:N_TOKENS]
    )


def _shown(token: ReadToken) -> str:
    return _visible(token.token)


def _visible(text: str) -> str:
    """A token as it is, with what a reader would not see made visible."""
    return text.replace("`", "'").replace("\n", "⏎").replace("\t", "⇥") or "(empty)"
