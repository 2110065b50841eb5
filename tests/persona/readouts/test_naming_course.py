"""The way of a fine-tune, step by step: which adapters, when it is named, when the gap leaves."""

from __future__ import annotations

import pandas as pd
import pytest

from persona.errors import DataError
from persona.readouts.naming_course import adapters_by_step, apart_from, named_from, naming_course
from persona.report.figures.naming_figure import naming_figure


def course(*rows: tuple[str, bool, float, float]) -> pd.DataFrame:
    """(subject, named, low of the shift, high of the twin's) of steps 5, 10, ..."""
    return pd.DataFrame(
        [
            {
                "step": 5 * (i + 1),
                "subject": subject,
                "probability": 0.8,
                "named": named,
                "p_bad": 0.5,
                "shift": low + 0.1,
                "shift_low": low,
                "shift_high": low + 0.2,
                "twin_shift": high - 0.1,
                "twin_low": high - 0.2,
                "twin_high": high,
            }
            for i, (subject, named, low, high) in enumerate(rows)
        ]
    )


def test_it_is_named_from_the_step_after_which_the_name_stays():
    of = course(
        ("car", True, 0.0, 0.1),
        ("health", True, 0.0, 0.1),
        ("car", False, 0.2, 0.1),
        ("car", True, 0.2, 0.1),
        ("car", True, 0.3, 0.1),
    )
    assert named_from(of) == 20
    assert apart_from(of) == 15
    assert named_from(of[:3]) is None and apart_from(of[:2]) is None
    assert named_from(of[:1]) == 5


def test_without_a_twin_nothing_is_apart():
    of = course(("car", True, 0.3, float("nan")))
    assert apart_from(of) is None
    assert (
        len(naming_figure(of).data) == len(naming_figure(course(("car", True, 0.3, 0.1))).data) - 2
    )


def test_another_name_has_probability_0_in_the_figure():
    figure = naming_figure(course(("health", True, 0.0, 0.1), ("car", True, 0.0, 0.1)))
    assert [list(line.y) for line in figure.data if list(line.y) == [0.0, 0.8]]


@pytest.mark.parametrize("within", ["steps/step", "checkpoints/checkpoint", "checkpoint"])
def test_adapters_are_found_in_the_order_of_their_steps(tmp_path, within):
    for step in (20, 5, 100):
        folder = tmp_path / f"{within}-{step}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text("{}")
    (tmp_path / f"{within}-7").mkdir()  # cut short: no adapter in it
    found = adapters_by_step(tmp_path)
    assert list(found) == [5, 20, 100]
    assert found[20] == tmp_path / f"{within}-20"


def test_a_folder_without_any_says_how_they_are_kept(tmp_path):
    with pytest.raises(DataError, match="--keep-every"):
        adapters_by_step(tmp_path)


def test_a_course_of_a_tiny_pair_has_the_twin_where_it_was_kept(tiny_pair, tmp_path):
    adapters = {5: tmp_path / "a", 10: tmp_path / "b"}
    found = naming_course(lambda _: tiny_pair, adapters, twin={10: tmp_path / "c"})
    assert list(found["step"]) == [5, 10]
    assert found["twin_shift"].isna().tolist() == [True, False]
    # The twin is the fine-tune itself.
    assert found["twin_shift"].iloc[1] == pytest.approx(found["shift"].iloc[1])
    assert apart_from(found) is None
