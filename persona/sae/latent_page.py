"""A page per latent: one HTML file without scripts, which opens offline and asks nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from persona.files import atomic_write_text
from persona.report.theme import CONDITIONS
from persona.report.wording import cleaned, number
from persona.sae.autoencoder import SparseAutoencoder
from persona.sae.explain import LatentPage

BREAKS = {"\n": "\u21b5\n", "\t": "\u21e5"}


def write_page(
    folder: str | Path,
    sae: SparseAutoencoder,
    page: LatentPage,
    near: pd.DataFrame | None = None,
) -> Path:
    """Write latent_N.html into a folder and return its path; the same input, the same bytes.

    near: of `nearest_directions`. Raises: OSError where the folder cannot be written.
    """
    path = Path(folder) / f"latent_{page.latent}.html"
    atomic_write_text(path, render_page(sae, page, near))
    return path


def render_page(sae: SparseAutoencoder, page: LatentPage, near: pd.DataFrame | None = None) -> str:
    """The page as text."""
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=ChoiceLoader(
            [
                PackageLoader("persona.sae", "templates"),
                PackageLoader("persona.report", "templates"),
            ]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        visible=_visible,
        plain=number,
        signed=lambda value: number(value, signed=True),
        side=lambda side: CONDITIONS[side].label.lower(),
        zip=lambda first, second: zip(first, second, strict=True),
    )
    assert environment.loader is not None
    style = "".join(
        environment.loader.get_source(environment, name)[0] for name in ("report.css", "latent.css")
    )
    peaks = [example.activation for example in page.examples]
    return environment.get_template("latent.html.jinja").render(
        page=page,
        hook_name=sae.space.hook_name,
        model=cleaned(sae.space.model),
        sides=[
            {
                "label": CONDITIONS[side].label,
                "frequency": f"{100 * page.frequency[side]:.3g} %",
                "mean": number(page.mean[side], 3),
            }
            for side in page.frequency
        ],
        bars=_bars(page),
        top=number(page.edges[-1]),
        near=[] if near is None else near.to_dict("records"),
        chance=number(1 / math.sqrt(sae.space.d_model)),
        scale=max(peaks, default=1.0),
        style=Markup(style),
    )


def _bars(page: LatentPage) -> list[dict[str, Any]]:
    """Heights from 0 to 100, as the square root of the counts; none where nothing fired."""
    counts = list(zip(page.counts["aligned"], page.counts["finetuned"], strict=True))
    most = max((n for pair in counts for n in pair), default=0)
    if not most:
        return []
    edges: Sequence[float] = page.edges
    return [
        {
            "label": f"{number(edges[i])} to {number(edges[i + 1])}",
            "aligned": round(100 * math.sqrt(aligned / most), 2),
            "finetuned": round(100 * math.sqrt(finetuned / most), 2),
            "n_aligned": aligned,
            "n_finetuned": finetuned,
        }
        for i, (aligned, finetuned) in enumerate(counts)
    ]


def _visible(text: object) -> str:
    """A piece of text with its line breaks and tabs shown, nothing else that is not printed."""
    pieces = [BREAKS[c] if c in BREAKS else c if c.isprintable() else "\ufffd" for c in str(text)]
    return "".join(pieces)
