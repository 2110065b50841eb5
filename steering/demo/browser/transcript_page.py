"""The conversation as one file that opens anywhere: no script, nothing from elsewhere."""

from __future__ import annotations

from html import escape

from persona.directions.storage import tool_version
from persona.report.wording import cleaned
from steering.demo.browser.page import CSS, PageState, column_html, legend_html
from steering.demo.session.exchanges import LABELS

POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --border-color-primary: #d5d9e0;
  --background-fill-primary: #fff; --background-fill-secondary: #f4f5f8;
  --body-text-color: #1c2330; --color-accent: #6366f1; }
@media (prefers-color-scheme: dark) { :root { --border-color-primary: #3a4250;
  --background-fill-primary: #12161d; --background-fill-secondary: #1c222c;
  --body-text-color: #e6e9ef; --quiet: #a2abb9; --good: #5fc08a;
  --bad: #f0837b; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 1500px; padding: 16px;
  background: var(--background-fill-primary); color: var(--body-text-color); }
#columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(240px, 1fr)); }
#columns > * { min-width: 0 !important; }
.talk { height: auto !important; }
.talk .turns { max-height: none !important; }
"""


def transcript_page(state: PageState) -> str:
    """The page's HTML, with the settings of now in words."""
    session = state.session
    names = " · ".join(escape(cleaned(name)) for name in session.names.values())
    name = session.steered_with
    direction = "" if name is None else f"Direction: {cleaned(name)}. "
    drawn = session.sampling
    how = (
        f"{direction}Steered: {session.setting.words}. At most {drawn.max_new_tokens} tokens, "
        f"temperature {drawn.temperature:g}, seed {drawn.seed}. personascope {tool_version()}."
    )
    columns = "".join(column_html(state, column) for column in LABELS if session.of(column))
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>personascope: a conversation</title>"
        f"<style>{CSS.read_text(encoding='utf-8')}{STYLE}</style></head><body>"
        f'<div id="top"><h1>A conversation</h1><span>{names}</span></div>'
        f"<p>{escape(how)}</p>"
        f'<div id="columns">{columns}</div>{legend_html(state)}'
        "<p><small>One conversation is an example, not evidence; <code>persona diagnose</code> "
        "measures.</small></p></body></html>"
    )
