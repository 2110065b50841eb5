"""A page of this package: templates, style, and the only scripts that its policy lets run."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import Any

from persona.report.page_figures import json_for_script
from persona.report.svg import page_colours
from persona.report.theme import template


def render_page(name: str, context: Mapping[str, Any], *, interactive: bool = False) -> str:
    """A template of this package as one HTML document that loads nothing.

    Its policy names the hash of each script, so that no other can run in it, whatever text of a
    model it holds.
    interactive: with plotly, and the figures' data.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("persona.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )

    def shipped(file: str) -> str:
        assert environment.loader is not None
        return environment.loader.get_source(environment, file)[0]

    scripts = [shipped("save.js")]
    if interactive:
        from plotly.offline import get_plotlyjs

        scripts += [get_plotlyjs(), shipped("interactive.js")]
    modes = {mode: template(mode) for mode in ("light", "dark")} if interactive else {}
    return environment.get_template(name).render(
        **context,
        interactive=interactive,
        # Written here and by plotly, so not escaped.
        style=Markup(shipped("report.css") + page_colours()),
        scripts=[Markup(script) for script in scripts],
        script_hashes=Markup(" ".join(map(_hash, scripts))),
        templates=json_for_script(modes),
    )


def _hash(script: str) -> str:
    """A script's text as a Content-Security-Policy names it."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"
