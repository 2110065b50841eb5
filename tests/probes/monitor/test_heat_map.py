"""The heat map stands alone, shows every token, and never runs what a token says."""

from __future__ import annotations

import base64
import io
import re
import sys
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from probes.monitor import TokenHeatMap, token_heat_map
from probes.monitor.heat_map import UP


def table():
    return pd.DataFrame(
        {
            "token": ["<s>", "<script>alert(1)</script>", " calm\n", '"&amp;', "\x00"],
            "position": range(5),
            "turn": [-1, 0, 0, 1, 1],
            "role": ["template", "user", "user", "assistant", "assistant"],
            "score": [np.nan, 2.0, -1.0, 4.0, 0.0],
        }
    )


class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags, self.tokens = [], set(), []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "i":
            self.tokens.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, "tags are closed in order"

    def handle_data(self, data):
        if self.open and self.open[-1] == "i":
            self.tokens[-1] += data


def parsed(html):
    reader = Text()
    reader.feed(html)
    reader.close()
    assert reader.open == []
    return reader


def test_every_token_is_shown_as_it_is_and_runs_nothing():
    reader = parsed(token_heat_map(table()))
    assert reader.tokens == ["<s>", "<script>alert(1)</script>", " calm\n", '"&amp;', "\ufffd"]
    assert reader.tags == {"style", "div", "p", "small", "i"}


def test_it_needs_no_network_and_follows_light_and_dark():
    html = token_heat_map(table())
    assert not re.search(r"https?:|src=|href=|url\(|@import", html)
    assert "prefers-color-scheme:dark" in html


def test_colour_says_sign_and_size():
    html = token_heat_map(table())
    marks = re.findall(
        r'<i class="(\w+)" style="--o:([\d.]+);[^"]*" title="(\d): ([-+.\d]+)"', html
    )
    assert marks == [
        ("up", "0.350", "1", "+2.000"),
        ("down", "0.175", "2", "-1.000"),
        ("up", "0.700", "3", "+4.000"),
        ("down", "0.000", "4", "+0.000"),
    ]
    about = re.findall(r'class="(\w+)"[^>]*title="2', token_heat_map(table(), centre=-3.0))
    assert about == ["up"]


def test_colours_stay_where_the_style_sheet_is_dropped():
    """As in a notebook that is not trusted; only simple inline styles pass its sanitiser."""
    html = re.sub(r"<style>.*?</style>", "", token_heat_map(table()), flags=re.DOTALL)
    grounds = re.findall(r"background-color:rgba\((\d+,\d+,\d+),([\d.]+)\)", html)
    assert grounds == [
        ("200,59,53", "0.350"),
        ("77,130,176", "0.175"),
        ("200,59,53", "0.700"),
        ("77,130,176", "0.000"),
    ]
    assert html.count('<p style="white-space:pre-wrap">') == 3
    assert "var(" not in html and "!important" not in html


def test_a_notebook_shows_the_same():
    assert TokenHeatMap(table())._repr_html_() == token_heat_map(table())


def test_where_styles_are_stripped_a_picture_with_the_colours_shows():
    from PIL import Image

    shown = TokenHeatMap(table())._repr_mimebundle_()
    html = shown["text/html"]
    assert '<img style="display:none" alt="The same' in html
    assert html.count(shown["image/png"]) == 1
    picture = Image.open(io.BytesIO(base64.b64decode(shown["image/png"]))).convert("RGB")
    seen = {colour for _, colour in picture.getcolors(1 << 24)}
    strongest = tuple(round(0.7 * of + 0.3 * 255) for of in UP)
    assert min(max(abs(a - b) for a, b in zip(one, strongest, strict=True)) for one in seen) <= 2
    assert picture.width == 860 and picture.height > 4 * 26  # three speakers


def test_without_pillow_there_is_no_picture(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert TokenHeatMap(table())._repr_mimebundle_() == {"text/html": token_heat_map(table())}


def test_in_jupyter_its_theme_decides_and_not_the_system():
    html = token_heat_map(table())
    assert "background:var(--jp-layout-color0,var(--ground))" in html
    assert "color:var(--jp-content-font-color1,var(--ink))" in html
    light, dark = (
        html.index(f'[data-jp-theme-light="{is_light}"]') for is_light in ("true", "false")
    )
    assert html.index("prefers-color-scheme:dark") < min(light, dark)


def test_a_table_of_another_kind_is_refused():
    with pytest.raises(DataError, match="it has no score"):
        token_heat_map(table().drop(columns="score"))
    with pytest.raises(DataError, match="it is empty"):
        token_heat_map(table().iloc[:0])
