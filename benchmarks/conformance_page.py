"""docs/conformance.md, rendered from benchmarks/conformance.json."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

from conformance_models import FAMILIES
from conformance_verdicts import AGREES

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "conformance.md"
REPRODUCERS = HERE / "reproducers"

NAMES = {
    "hook": "hand-written hook, returns output + vector",
    "hook_first": "hand-written hook, changes `output[0]`",
    "hook_cache": "hand-written hook, asks `past_key_values`",
    "bridge": "TransformerBridge `generate`",
    "bridge_hf": "TransformerBridge `hf_generate`",
    "repeng": "repeng",
    "steering_vectors": "steering-vectors",
    "nnsight": "nnsight",
    "pyvene": "pyvene",
    "lm_eval": "lm-eval `steered`",
    "rotalabs_steer": "rotalabs-steer",
    "llama_cpp": "llama.cpp (llama-cpp-python)",
    "persona": "`steer` of this project",
}
BATCH = "steered everywhere; wrong in a padded batch"
REASONS = {
    ("hook_first", BATCH): "where the block returns a tensor, `output[0]` is its first row",
    ("hook_cache", BATCH): "the position 0 that it leaves alone is padding there",
    ("hook_cache", "prompt only"): "the model is given its cache as `cache`, and every pass looks "
    "like the start of a text",
    ("bridge", BATCH): "`generate` takes no attention mask in this release",
    **dict.fromkeys(
        ((path, "generates wrongly, steered or not") for path in ("bridge", "bridge_hf")),
        "attention does not find the cache, and forgets the prompt; without a cache it is right",
    ),
}
"""Why a path came to its verdict, where that was looked into."""
INTRODUCTION = """\
# Conformance: does a steering path steer?

The same vector, added to the residual stream after the same block of two tiny seeded models (llama
and gpt2, float32, CPU), {n_paths} ways in {n_cells} combinations of releases, each in an
environment of its own. What came out is measured from outside, not taken from the library:

- **tokens written**: what reaches the next block, minus the unsteered residual stream, is the
  vector or nothing. One number a forward pass: the prompt of {n_prompt} tokens first, then every
  decoding step, where 1 is due. llama.cpp cannot be looked into; there the log-probabilities tell.
- **to reference**: largest difference of a log-probability, in nats, to a float64 computation that
  reads the weights itself, has no cache and shares no code with any library.
- **cached − uncached**, **batch − single**: the same between two ways of running the path: with
  and without a key-value cache, and two left-padded prompts together against each alone.

Above {agrees:g} nats is a difference. Where padding is written this is only said: attention does
not see it. Releases marked * declare that they do not go together. Measured {dates}. The findings
are about these releases and this way of using them; corrections are welcome.
"""
AGAIN = """\
## Run it again

```
python benchmarks/conformance.py                 # what is not yet in benchmarks/conformance.json
python benchmarks/conformance.py --only repeng --again
python benchmarks/conformance.py --reproducers
```

Environments are kept in the user's cache folder (or `--env-root`); each is an overlay that reuses
the torch of the environment in which the script runs.
"""


def render(rows: Mapping[str, dict], reproduced: Mapping[str, dict]) -> str:
    """The page. rows: benchmarks/conformance.json. reproduced: what each reproducer ended with."""
    lines = [_introduction(rows), "## Who is unsteered, and when", ""]
    lines += [*_findings(rows), "", "## The table", "", *_table(rows), ""]
    lines += ["## How each path was used", "", *_ways(rows), ""]
    if reproduced:
        lines += ["## Reproducers", "", *_reproducers(reproduced), ""]
    return "\n".join([*lines, AGAIN])


def _introduction(rows: Mapping[str, dict]) -> str:
    days = sorted({cell["date"] for cell in rows.values()})
    n_prompt = max((row["facts"]["n_prompt"] for _, _, row in _each(rows)), default=0)
    return INTRODUCTION.format(
        n_paths=len({cell["path"] for cell in rows.values()}),
        n_cells=len(rows),
        n_prompt=n_prompt,
        agrees=AGREES,
        dates=" to ".join(dict.fromkeys([days[0], days[-1]])) if days else "never",
    )


def _each(rows: Mapping[str, dict]) -> Iterator[tuple[dict, str, dict]]:
    """Every measured (cell, families, row); families that came out alike are one."""
    for cell in rows.values():
        groups: dict[str, list[str]] = {}
        for family, row in cell["families"].items():
            if "facts" in row:
                shown = [row["verdict"], _written(row["facts"]), row["errors"]]
                groups.setdefault(repr(shown), []).append(family)
        for families in groups.values():
            yield cell, ", ".join(families), _worst([cell["families"][f] for f in families])


def _worst(rows: list[dict]) -> dict:
    """The first row with the largest distance of all."""
    facts = dict(rows[0]["facts"])
    for name, value in facts.items():
        values = [row["facts"][name] for row in rows]
        if isinstance(value, float) and None not in values:
            facts[name] = max(values)
    return rows[0] | {"facts": facts}


def releases(cell: Mapping) -> str:
    text = ", ".join(pin.replace("==", " ") for pin in cell["pins"]) or "this environment"
    return text + (" *" if cell["loose"] else "")


def _findings(rows: Mapping[str, dict]) -> list[str]:
    """One line for each path and verdict that is not `steered everywhere`, with its releases."""
    found: dict[tuple[str, str, str], dict[str, list[str]]] = {}
    for cell in rows.values():
        for family, row in cell["families"].items():
            if row["verdict"] != "steered everywhere":
                reason = "; ".join(f"`{_cell(e)}`" for e in dict.fromkeys(row["errors"].values()))
                reason = reason or REASONS.get((cell["path"], row["verdict"]), "")
                at = found.setdefault((NAMES[cell["path"]], row["verdict"], reason), {})
                at.setdefault(releases(cell), []).append(family)
    lines = []
    for (name, said, reason), places in found.items():
        why = f" ({reason})" if reason else ""
        both = sorted(FAMILIES)
        where = [
            release if sorted(families) == both else f"{release} ({', '.join(families)} alone)"
            for release, families in places.items()
        ]
        lines.append(f"- **{name}**: {said}{why}. Under {'; '.join(where)}.")
    return lines or ["None of these was."]


def _table(rows: Mapping[str, dict]) -> list[str]:
    lines = [
        "| path | releases | model | tokens written | to reference | cached − uncached "
        "| batch − single | padding written | verdict |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for cell, families, row in _each(rows):
        facts = row["facts"]
        cells = [NAMES[cell["path"]], releases(cell), families, _written(facts)]
        cells += [_nats(facts[name]) for name in ("reference", "cached_uncached", "batch_single")]
        cells += [{None: "–", True: "yes", False: "no"}[facts["pads"]], row["verdict"]]
        lines.append(f"| {' | '.join(cells)} |")
    for cell in rows.values():
        failed = {f: row for f, row in cell["families"].items() if "facts" not in row}
        if failed:
            row = next(iter(failed.values()))
            reason = _cell("; ".join(row["errors"].values()))
            start = [NAMES[cell["path"]], releases(cell), ", ".join(failed)]
            lines.append(f"| {' | '.join(start)} | | | | | | {row['verdict']}: {reason} |")
    return lines


def _written(facts: Mapping) -> str:
    text = ", ".join(map(str, facts["written"])) or "–"
    return f"{text} (and {facts['partly']} with something else)" if facts["partly"] else text


def _nats(value: float | None) -> str:
    if value is None:
        return "–"
    return "0" if value == 0 else f"{value:.0e}" if value < 0.01 else f"{value:.2f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'")


def _ways(rows: Mapping[str, dict]) -> list[str]:
    ways: dict[str, str] = {}
    for cell, _, row in _each(rows):
        ways.setdefault(NAMES[cell["path"]], row["way"])
    return [f"- {name}: {way}." for name, way in ways.items()]


def _reproducers(reproduced: Mapping[str, dict]) -> list[str]:
    """What each script says it shows, and whether it did."""
    lines = []
    for name, result in reproduced.items():
        tree = ast.parse((REPRODUCERS / name).read_text(encoding="utf-8"))
        said = " ".join((ast.get_docstring(tree) or "").split("Needs:")[0].split())
        shows = "shown" if result["shown"] else "not shown"
        pins = " ".join(result["pins"])
        lines.append(
            f"- `benchmarks/reproducers/{name}` ({pins}; {shows} {result['date']}): {said}"
        )
        lines += ["", "    ```text", *(f"    {line}" for line in result["output"]), "    ```", ""]
    return lines
