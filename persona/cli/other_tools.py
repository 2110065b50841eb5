"""Commands that other tools have, and where here to find what they do."""

from __future__ import annotations

from difflib import get_close_matches

ELSEWHERE = {
    ("vector", "vectors", "extract", "train-vector", "direction"): (
        "a direction comes from two models: `persona diagnose --finetuned MODEL`, or of a "
        "sentence: `persona trait`, or `persona.extract` in Python; one from another toolkit is "
        "read by `persona convert`"
    ),
    ("show", "view", "open", "plot"): "`persona report DIR` draws the report of a run",
    ("generate", "ask", "prompt", "complete"): (
        '`persona steer "PROMPT"` answers at several coefficients, `persona chat` asks three '
        "models side by side"
    ),
    ("probe", "monitor", "project", "scan", "filter"): (
        "`persona screen` reads a file of samples; probes are `probes.fit` in Python, and "
        "examples/monitor_in_terminal.py reads while a model writes"
    ),
    ("train", "tune", "fine-tune", "lora", "retrain"): "`persona finetune` makes a fine-tune",
    ("evaluate", "benchmark", "bench", "lm-eval", "harness"): (
        "`persona eval` runs tasks on the aligned, the fine-tuned and the restored model"
    ),
    ("run", "compare", "diff", "analyze", "analyse"): (
        "`persona diagnose --finetuned MODEL` compares two models, "
        "`persona report DIR DIR` two runs"
    ),
    ("web", "ui", "gui", "browser", "playground"): "`persona app` serves the page",
    ("api", "server", "endpoint", "openai"): "`persona serve` is an OpenAI-compatible endpoint",
    ("download", "fetch", "pull"): "`persona models --fetch NAME` gets a model",
    ("list", "ls"): "`persona models` and `persona organisms` list what comes along",
    ("merge", "bake", "save"): (
        "`persona export FOLDER` writes the fine-tune with its removal inside, or a part of it"
    ),
    ("import", "gguf"): "`persona convert` writes vectors for other toolkits",
    ("ablate", "restore", "induce", "add"): '`persona steer "PROMPT" --mode MODE` does that',
    ("robustness", "attack", "red-team", "jailbreak", "relearn", "stress"): (
        "`persona audit DIR` asks the models of a diagnosis under cues, and lets them relearn"
    ),
    ("judge", "score", "annotate"): "`persona label` takes labels of answers",
    ("check", "test", "verify", "certify"): (
        "`persona doctor` checks the machine, `persona check-steering` that steering takes effect, "
        "`persona data check` a file of answer pairs"
    ),
    ("install", "setup", "info", "status"): "`persona doctor` says whether this machine is ready",
}
"""Names that people try -> the line that tells them where to go."""

_BY_NAME = {name: line for names, line in ELSEWHERE.items() for name in names}


def where_instead(name: str) -> str | None:
    """The line for a name that is no command here, None where nothing is known of it.

    Examples:
        >>> where_instead("fetch")
        '`persona models --fetch NAME` gets a model'
    """
    near = get_close_matches(name.lower(), _BY_NAME, n=1, cutoff=0.9)
    return _BY_NAME[near[0]] if near else None
