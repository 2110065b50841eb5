"""YAML is values alone, and a small text never becomes a large or endless one."""

import time

import pytest

from persona.data.plain_yaml import MAX_DEPTH, YamlError, parse_yaml
from persona.data.readers import read_evaluation_yaml
from persona.errors import DataError
from persona.organisms import load_recipe


def test_values_come_with_the_node_that_knows_their_line():
    value, node = parse_yaml("a: 1\nb: [x, 2.5, null]\n")
    assert value == {"a": 1, "b": ["x", 2.5, None]}
    assert node.value[1][0].start_mark.line == 1
    assert parse_yaml("") == (None, None)


def test_an_alias_names_the_same_value():
    value, _ = parse_yaml("- &a [1]\n- *a\n")
    assert value[0] is value[1]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [1", "expected"),
        ("a: &a {x: 1}\nb: {<<: *a}", "merge keys"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("2001-13-45", "month must be in 1..12"),
        ("!!timestamp x", "AttributeError"),
        ("!!int ''", "IndexError"),
        ("- " * 5000, "RecursionError"),
        ("[" * (MAX_DEPTH + 1), "nested too deeply"),
    ],
)
def test_what_is_no_plain_yaml_is_one_line(text, why):
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert why in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_line_at_fault_is_named():
    with pytest.raises(YamlError) as caught:
        parse_yaml("a: 1\nb: }\n")
    assert caught.value.place == ", line 2"


def laugh(indent, levels=40):
    """Lines of YAML whose last value, written out, has 2 ** levels entries."""
    lines = ["l0: &l0 [x, x]", *(f"l{n}: &l{n} [*l{n - 1}, *l{n - 1}]" for n in range(1, levels))]
    return "".join(f"{indent}{line}\n" for line in lines)


def test_lists_of_lists_of_lists_are_not_written_out(tmp_path):
    path = tmp_path / "x.yaml"
    start = time.process_time()
    path.write_text(f"name:\n{laugh('  ')}data: {{domains: [a]}}\n")
    with pytest.raises(DataError, match="name: Input should be a valid string"):
        load_recipe(path)
    path.write_text(f"- id:\n{laugh('    ')}  paraphrases: [a]\n")
    with pytest.raises(DataError, match="id must be text"):
        read_evaluation_yaml(path)
    assert time.process_time() - start < 2


def test_merge_keys_are_refused_before_they_multiply():
    lines = ["m0: &m0 {x: 1}"]
    lines += [f"m{n}: &m{n} {{<<: [*m{n - 1}, *m{n - 1}], y{n}: 1}}" for n in range(1, 40)]
    start = time.process_time()
    with pytest.raises(YamlError, match="merge keys"):
        parse_yaml("\n".join(lines))
    assert time.process_time() - start < 2


def test_brackets_in_brackets_take_no_quadratic_time():
    start = time.process_time()
    with pytest.raises(YamlError, match="nested too deeply"):
        parse_yaml("[{a: " * 20_000)
    assert time.process_time() - start < 2
