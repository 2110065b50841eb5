"""YAML from strangers: values only, and no more of them than the file has."""

from __future__ import annotations

from typing import Any

import yaml

MAX_DEPTH = 100


class YamlError(ValueError):
    """A text that is no YAML, or not read here; `place` is ", line N" where that is known."""

    def __init__(self, reason: str, place: str = "") -> None:
        super().__init__(reason)
        self.place = place


class _PlainLoader(yaml.SafeLoader):
    """The safe loader without merge keys and with a bound on nested brackets.

    `<<: [*a, *a]` copies the entries of `a` twice, and thirty such lines make a billion; an alias
    alone (`*a`) names the same value again and costs nothing. The time that brackets take grows
    with the square of their depth: 10 s for 5,000.
    """

    def fetch_flow_collection_start(self, TokenClass: Any) -> None:
        if self.flow_level >= MAX_DEPTH:
            raise yaml.scanner.ScannerError(None, None, "nested too deeply", self.get_mark())
        super().fetch_flow_collection_start(TokenClass)

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(
                    None, None, "merge keys (<<) are not read", key.start_mark
                )


def parse_yaml(text: str) -> tuple[Any, yaml.Node | None]:
    """The value of a YAML text and the node it came from, which knows the lines.

    Raises: YamlError.
    """
    try:
        loader = _PlainLoader(text)
        try:
            node = loader.get_single_node()
            return (None if node is None else loader.construct_document(node)), node
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}" if mark is not None else ""
        reason = getattr(error, "problem", None) or str(error)
        raise YamlError(" ".join(reason.split())[:200], place) from error
    except Exception as error:  # a date of month 13, !!int of nothing, nesting: any type there is
        raise YamlError(f"{type(error).__name__}: {str(error)[:120]}") from error
