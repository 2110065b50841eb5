"""The heat map as a picture, for pages that strip every style, as code-hosting pages do."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.ImageDraw import ImageDraw

Colour = tuple[int, int, int]

WIDTH, MARGIN = 860, 14
FONT_SIZE, LINE = 15, 26
INK, QUIET, GROUND = (34, 39, 46), (89, 97, 107), (255, 255, 255)
FONTS = ("DejaVuSans.ttf", "Arial.ttf", "arial.ttf", "LiberationSans-Regular.ttf")
"""Looked for on the machine; Pillow's own has letters of few languages."""
COLOURS = 64
"""Of the palette that the picture is stored with; it takes a third of the bytes."""


@dataclass(frozen=True)
class Shaded:
    """A token's text, the colour of its side (None: without a score) and the opacity of it.

    heading: who speaks from here on, where that is new.
    """

    text: str
    colour: Colour | None
    opacity: float
    is_above: bool
    heading: str = ""


def tokens_png(tokens: Sequence[Shaded], legend: str) -> bytes | None:
    """The tokens line by line on a white ground, red underlined, blue with dots below.

    None without Pillow, which comes with the extras `app` and `notebooks`.
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        return None
    font = _font(FONT_SIZE)
    placed = list(_placed(tokens, font))
    height = round(placed[-1][1] + 2 * LINE + MARGIN) if placed else 2 * LINE
    image = Image.new("RGB", (WIDTH, height), GROUND)
    draw = ImageDraw.Draw(image)
    for x, y, words, token in placed:
        _draw(draw, font, (x, y), words, token)
    draw.text((MARGIN, height - LINE), legend, QUIET, _font(FONT_SIZE - 3))
    kept = io.BytesIO()
    image.quantize(COLOURS).save(kept, format="PNG", optimize=True)
    return kept.getvalue()


def _font(size: int) -> Any:
    from PIL import ImageFont

    for name in FONTS:
        with contextlib.suppress(OSError):
            return ImageFont.truetype(name, size)
    return ImageFont.load_default(size)


def _placed(
    tokens: Sequence[Shaded], font: Any
) -> Iterator[tuple[float, float, str, Shaded | None]]:
    """Where each piece of text stands; a heading belongs to no token."""
    x, y = float(MARGIN), float(MARGIN - LINE)
    for token in tokens:
        if token.heading:
            yield MARGIN, y + LINE, token.heading, None
            x, y = MARGIN, y + 2 * LINE
        for place, part in enumerate(token.text.split("\n")):
            width = font.getlength(part)
            if place or x + width > WIDTH - MARGIN:
                x, y = MARGIN, y + LINE
            if part:
                yield x, y, part, token
            x += width


def _draw(
    draw: ImageDraw, font: Any, at: tuple[float, float], words: str, token: Shaded | None
) -> None:
    x, y = at
    if token is None or token.colour is None:
        draw.text((x, y), words, QUIET, font)
        return
    end, below = x + font.getlength(words), y + FONT_SIZE + 5
    red, green, blue = (
        round(token.opacity * of + (1 - token.opacity) * ground)
        for of, ground in zip(token.colour, GROUND, strict=True)
    )
    draw.rectangle((x, y - 1, end, below), (red, green, blue))
    if token.is_above:
        draw.line((x, below, end, below), token.colour, 2)
    else:
        for dot in range(round(x), round(end), 5):
            draw.line((dot, below, min(dot + 2, end), below), token.colour, 2)
    draw.text((x, y), words, INK, font)
