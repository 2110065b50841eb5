"""Which theme a notebook has: a widget without a face that looks, and looks again when it changes.

The reader's notebook decides, not the operating system: JupyterLab and VS Code say it on the page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

LOOKS = """
function isDark() {
  const said = document.body.dataset;
  if (said.jpThemeLight) return said.jpThemeLight === "false";
  if (said.vscodeThemeKind) return !said.vscodeThemeKind.includes("light");
  const ground = getComputedStyle(document.body).backgroundColor.match(/[\\d.]+/g) || [];
  const seen = ground.length === 3 || Number(ground[3]) > 0;
  return seen && 0.3 * ground[0] + 0.6 * ground[1] + 0.1 * ground[2] < 100;
}
function initialize({ model }) {
  const look = () => {
    model.set("is_dark", isDark());
    model.save_changes();
  };
  look();
  const watching = new MutationObserver(look);
  watching.observe(document.body, { attributes: true });
  return () => watching.disconnect();
}
export default { initialize, render({ el }) { el.style.display = "none"; } };
"""


def theme_reader(changed: Callable[[bool], None]) -> Any:
    """A widget that calls `changed(is_dark)` whenever what it sees is not what it saw.

    It begins with a light ground, and stays there where no page answers.
    """
    import anywidget
    import traitlets

    class ThemeReader(anywidget.AnyWidget):
        _esm = LOOKS
        is_dark = traitlets.Bool(False).tag(sync=True)

    reader = ThemeReader()
    reader.observe(lambda change: changed(bool(change["new"])), names="is_dark")
    return reader
