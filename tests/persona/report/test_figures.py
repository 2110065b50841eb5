"""Figures show the numbers of the rows, with units, controls and intervals."""

import numpy as np
import pandas as pd
import pytest

from persona.errors import DataError
from persona.report import (
    behaviour,
    behaviour_by_domain,
    damage,
    dose_response_curve,
    effects_by_block,
    layer_map,
    random_null,
)
from persona.report.figures import all_conditions
from persona.report.theme import CONDITIONS, ENDS, in_mode, without_title
from persona.rows import (
    INDUCED_RANDOM,
    INDUCED_TWIN,
    NOOP,
    NULL_ISOTROPIC,
    NULL_SCREEN,
    NULLS,
    PLACEBOS,
    STRONG_NULLS,
)

FIGURES = {
    "conditions": all_conditions,
    "layer_map": lambda rows, card: layer_map(rows, card["direction"]),
    "two_by_two": lambda rows, card: effects_by_block(rows, card["direction"], d_model=576),
    "dose_response": lambda rows, card: dose_response_curve(rows, chosen_coefficient=1.0),
    "behaviour": behaviour,
    "behaviour_by_domain": behaviour_by_domain,
    "damage": damage,
    "random_null": random_null,
}
STAGE = {
    "conditions": "score",
    "layer_map": "screen",
    "two_by_two": "direction",
    "dose_response": "dose",
    "behaviour": "score",
    "behaviour_by_domain": "score",
    "damage": "score",
    "random_null": "score",
}


DRAWN = {
    name: look
    for name, look in CONDITIONS.items()
    if name not in (NOOP, INDUCED_TWIN, INDUCED_RANDOM, *PLACEBOS, *STRONG_NULLS)
}
"""The conditions of the run that was made up; the others are controls that it lacks."""


@pytest.fixture(params=FIGURES)
def name(request):
    return request.param


@pytest.fixture
def figure(name, rows, scorecard):
    return FIGURES[name](rows, scorecard)


def axes(figure, kind):
    return [figure.layout[key] for key in figure.layout if str(key).startswith(f"{kind}axis")]


def trace(figure, start):
    [found] = [t for t in figure.data if (t.name or "").startswith(start)]
    return found


def legend(figure):
    return " | ".join(t.name for t in figure.data if t.name and t.showlegend is not False)


def everything_written(figure):
    """All text that a reader can see: titles, legend, annotations, tick texts."""
    ticks = [t for axis in axes(figure, "y") for t in axis.ticktext or ()]
    notes = [note.text for note in figure.layout.annotations]
    head = [figure.layout.title.text, figure.layout.title.subtitle.text]
    return " | ".join([*head, legend(figure), *notes, *ticks]).replace("\u00a0", " ")


def score(rows, measure, split):
    chosen = rows[
        (rows["stage"] == "score") & (rows["measure"] == measure) & (rows["split"] == split)
    ]
    return chosen.groupby(["condition", "question_id"])["value"].mean().unstack("condition")


def test_axes_say_what_they_show_and_in_which_unit(name, figure):
    unit = {
        "layer_map": ("nats per token", "block (0-based)"),
        "two_by_two": ("residual-stream units", "block (0-based)"),
        "dose_response": ("nats per token", "coefficient"),
        "random_null": ("share of the emergent shift",),
    }.get(name, ("nats per token",))
    titles = [a.title.text for kind in "xy" for a in axes(figure, kind) if a.title.text]
    bars = [t.colorbar.title.text for t in figure.data if t.type == "heatmap"]
    for words in unit:
        assert any(words in text for text in [*titles, *bars])
    # Panels of a row share an axis title; a figure has at least one for what it measures.
    assert titles


def test_a_figure_states_how_many_questions_stand_behind_it(name, figure):
    if name == "two_by_two":
        pytest.skip("its rows carry no count of questions")
    assert "n = " in everything_written(figure)


def test_a_figure_leaves_the_rows_as_they_were(name, rows, scorecard):
    before = rows.copy()
    FIGURES[name](rows, scorecard)
    pd.testing.assert_frame_equal(rows, before)


def test_the_same_rows_give_the_same_figure(name, rows, scorecard):
    assert FIGURES[name](rows, scorecard).to_json() == FIGURES[name](rows, scorecard).to_json()


def test_the_order_of_the_rows_does_not_matter(name, rows, scorecard):
    shuffled = rows.sample(frac=1, random_state=3)
    one, other = (FIGURES[name](table, scorecard) for table in (rows, shuffled))
    for a, b in zip(one.data, other.data, strict=True):
        assert (a.name, a.type) == (b.name, b.type)
        for axis in ("x", "z"):
            x, y = (getattr(t, axis, None) for t in (a, b))
            if x is not None and not any(isinstance(v, str) or v is None for v in np.ravel(x)):
                np.testing.assert_allclose(np.array(x, float), np.array(y, float), atol=1e-12)


def test_a_missing_stage_is_named(name, rows, scorecard):
    without = rows[rows["stage"] != STAGE[name]]
    with pytest.raises(DataError, match=f"stage '{STAGE[name]}'"):
        FIGURES[name](without, scorecard)


def test_a_missing_column_is_named(name, rows, scorecard):
    with pytest.raises(DataError, match="coefficient"):
        FIGURES[name](rows.drop(columns="coefficient"), scorecard)


def test_values_that_are_not_finite_are_left_out(name, rows, scorecard):
    spoiled = rows.copy()
    where = spoiled.index[spoiled["value"].notna()][::17]
    spoiled.loc[where, "value"] = np.nan
    for t in FIGURES[name](spoiled, scorecard).data:
        assert "NaN" not in t.to_plotly_json().__repr__()


def test_the_dark_copy_differs_in_its_template_only(figure):
    dark = in_mode(figure, "dark")
    assert dark.layout.template.layout.paper_bgcolor != figure.layout.template.layout.paper_bgcolor
    assert dark.data == figure.data


def test_a_page_that_sets_the_title_itself_gets_the_room_back(figure):
    bare = without_title(figure)
    saved = figure.layout.height - bare.layout.height
    assert saved == figure.layout.margin.t - bare.layout.margin.t > 40
    assert bare.layout.title.text is None
    assert figure.layout.title.text


def test_one_condition_has_one_colour_in_every_figure(rows, scorecard):
    label_to_colour = {look.label: look.colour for look in CONDITIONS.values()}
    seen = set()
    for make in (behaviour, behaviour_by_domain, damage):
        for t in make(rows, scorecard).data:
            assert t.marker.color == label_to_colour[t.name]
            assert t.error_x.color == label_to_colour[t.name]
            seen.add(t.name)
    assert seen == {look.label for look in DRAWN.values()}
    dose = dose_response_curve(rows)
    assert trace(dose, "chosen direction").line.color == CONDITIONS["finetuned_restored"].colour
    for name, words in (("aligned", "aligned model"), ("finetuned", "fine-tuned model")):
        assert trace(dose, words).line.color == CONDITIONS[name].colour


# layer_map


def heat(figure):
    [found] = [t for t in figure.data if t.type == "heatmap"]
    return found


def test_every_cell_of_the_map_is_a_mean_over_questions(rows, scorecard):
    found = heat(layer_map(rows, scorecard["direction"]))
    screen = rows[rows["stage"] == "screen"]
    mine = screen[(screen["candidate"] == "attribution_eigen") & (screen["rank"] == 4)]
    expected = mine.groupby("layer")["value"].mean().to_numpy(dtype=float)
    place = list(found.y).index("Attribution eigendirections · r4")
    np.testing.assert_allclose(found.z[place], expected)
    assert len(found.y) == len(screen.groupby(["candidate", "rank"]))


def test_the_colour_scale_of_the_map_is_centred_on_zero_and_blue_is_toward_aligned(rows):
    found = heat(layer_map(rows))
    assert found.zmin == -found.zmax
    assert found.zmax == pytest.approx(np.abs(np.array(found.z, float)).max())
    assert found.colorscale is None  # it comes from the template, which knows the ground
    scale = layer_map(rows).layout.template.data.heatmap[0].colorscale
    assert [stop[1] for stop in scale][::2] == list(ENDS["light"])
    assert scale[1][0] == 0.5


def test_the_map_frames_exactly_the_chosen_blocks(rows, scorecard):
    direction = {**scorecard["direction"], "layers": [3, 4, 7]}
    figure = layer_map(rows, direction)
    place = list(heat(figure).y).index("Attribution eigendirections · r4")
    frames = [
        (shape.x0, shape.x1, shape.y0, shape.y1)
        for shape in figure.layout.shapes
        if shape.type == "rect" and shape.line.width == 2.5
    ]
    assert frames == [
        (2.5, 4.5, place - 0.5, place + 0.5),
        (6.5, 7.5, place - 0.5, place + 0.5),
    ]


def test_without_a_choice_the_curve_is_that_of_the_lowest_candidate(rows):
    low = rows["stage"].eq("screen") & rows["candidate"].eq("interaction")
    rows.loc[low & rows["layer"].eq(2), "value"] = -9.0
    assert "Interaction · r1, 95 % interval over 8 questions" in legend(layer_map(rows))


def test_a_random_candidate_is_drawn_as_the_control(rows):
    extra = rows[rows["stage"].eq("screen") & rows["candidate"].eq("interaction")]
    figure = layer_map(pd.concat([rows, extra.assign(candidate="random_0")]))
    assert trace(figure, "random 0 · r1").line.dash == "dash"


def test_whitened_candidates_stand_below_their_own(rows):
    extra = rows[rows["stage"].eq("screen") & rows["candidate"].eq("model_effect_good")]
    labels = list(
        heat(layer_map(pd.concat([rows, extra.assign(candidate="model_effect_good_whitened")]))).y
    )
    place = labels.index("Model effect, good answers · r1")
    assert labels[place + 1] == "Model effect, good answers, whitened · r1"


# effects_by_block


def test_the_two_by_two_shows_every_effect_by_block_with_its_splits(rows, scorecard):
    figure = effects_by_block(rows, scorecard["direction"], d_model=576)
    lines = [t for t in figure.data if t.name == "Interaction"]
    table = rows[(rows["stage"] == "direction") & (rows["candidate"] == "interaction")]
    for line, measure in zip(lines, ("norm", "split_half_cosine"), strict=True):
        expected = table[table["measure"] == measure].sort_values("layer")["value"]
        np.testing.assert_allclose(line.y, expected.to_numpy(dtype=float))
    [band] = [t for t in figure.data if t.fill and t.legendgroup == "interaction"]
    low = table[table["measure"] == "split_half_low"].sort_values("layer")["value"]
    np.testing.assert_allclose(band.y[len(low) :][::-1], low.to_numpy(dtype=float))


def test_the_control_of_the_cosine_is_that_of_random_vectors(rows):
    chance = trace(effects_by_block(rows, d_model=400), "two random vectors of 400 dimensions")
    assert max(chance.y) == pytest.approx(1.96 / 20)
    assert min(chance.y) == pytest.approx(-1.96 / 20)


# dose_response_curve


def dose_rows(rows, condition):
    return rows[(rows["stage"] == "dose") & (rows["condition"] == condition)]


def test_the_dose_curve_is_the_mean_gap_inside_its_interval(rows):
    figure = dose_response_curve(rows)
    line = trace(figure, "chosen direction, 95 % interval over 8 questions")
    expected = dose_rows(rows, "direction").groupby("coefficient")["value"].mean()
    assert list(line.x) == expected.index.tolist()
    np.testing.assert_allclose(line.y, expected.to_numpy())
    [ribbon] = [t for t in figure.data if t.fill and t.legendgroup == "direction"]
    high, low = np.array(ribbon.y[:5]), np.array(ribbon.y[5:])[::-1]
    assert (low < line.y).all()
    assert (high > line.y).all()


def test_the_random_band_runs_over_the_draws_and_not_over_the_questions(rows):
    figure = dose_response_curve(rows)
    [band] = [t for t in figure.data if t.fill and t.legendgroup == "random"]
    draws = dose_rows(rows, "random").groupby(["coefficient", "seed"])["value"].mean()
    expected = draws.groupby("coefficient").quantile(0.975).to_numpy()
    np.testing.assert_allclose(band.y[:5], expected)
    assert "2.5–97.5 % of n = 6 draws" in legend(figure)


def test_a_single_draw_without_an_edit_is_enough_for_the_band(rows):
    drop = (
        rows["stage"].eq("dose")
        & rows["condition"].eq("random")
        & rows["coefficient"].eq(0)
        & rows["seed"].gt(0)
    )
    figure = dose_response_curve(rows[~drop])
    [band] = [t for t in figure.data if t.fill and t.legendgroup == "random"]
    assert np.isfinite(np.array(band.y, float)).all()


def test_both_models_are_levels_on_the_very_questions_of_the_dose(rows):
    kept = set(dose_rows(rows, "direction")["question_id"].unique()[:4])
    fewer = rows[~(rows["stage"].eq("dose") & ~rows["question_id"].isin(kept))]
    verify = rows[(rows["stage"] == "verify") & (rows["measure"] == "gap")]
    mine = verify[(verify["condition"] == "aligned") & verify["question_id"].isin(kept)]
    level = trace(dose_response_curve(fewer), "aligned model").y
    np.testing.assert_allclose(level, mine["value"].mean())


# behaviour and damage


def test_dots_are_the_mean_gaps_with_the_intervals_of_the_scorecard(rows, scorecard):
    figure = behaviour(rows, scorecard)
    entries = {entry["name"]: entry for entry in scorecard["conditions"]}
    for axis, field, split in (("x", "gap_held_out", "held_out"), ("x2", "gap", "trained_on")):
        means = score(rows, "gap", split).mean()
        for condition, look in DRAWN.items():
            [dot] = [t for t in figure.data if t.name == look.label and (t.xaxis or "x") == axis]
            entry = entries[condition][field]
            assert dot.x[0] == pytest.approx(means[condition])
            assert dot.x[0] + dot.error_x.array[0] == pytest.approx(entry["high"])
            assert dot.x[0] - dot.error_x.arrayminus[0] == pytest.approx(entry["low"])


def test_intervals_are_over_questions_however_many_draws_there_are(make_run):
    few, many = (make_run(n_random=n, n_per_domain=3)[1] for n in (20, 60))
    label = CONDITIONS["finetuned_random_restored"].label
    widths = []
    for rows in (few, many):
        dot = next(t for t in behaviour(rows).data if t.name == label)
        widths.append(dot.error_x.array[0] + dot.error_x.arrayminus[0])
    assert widths[1] == pytest.approx(widths[0], rel=0.35)  # and not smaller by sqrt(3)


def test_without_a_scorecard_the_intervals_come_from_the_rows(rows, scorecard):
    one, other = behaviour(rows), behaviour(rows, scorecard)
    for a, b in zip(one.data, other.data, strict=True):
        assert a.error_x.array[0] == pytest.approx(b.error_x.array[0])


def test_a_condition_of_fewer_questions_stands_on_no_axis_with_those_of_more(rows):
    matched = rows["condition"].eq("finetuned_random_matched") & rows["stage"].eq("score")
    drop = matched & ~rows["question_id"].str.endswith("-000")
    figure = behaviour(rows[~drop])
    label = CONDITIONS["finetuned_random_matched"].label
    assert label not in [t.name for t in figure.data]
    assert f"not where run on fewer: {label}" in everything_written(figure)
    assert label in [t.name for t in behaviour(rows).data]
    assert "run on fewer" not in everything_written(behaviour(rows))


def test_every_domain_has_its_panel_and_those_fine_tuned_on_are_marked(rows):
    titles = [note.text for note in behaviour_by_domain(rows).layout.annotations]
    assert len(titles) == 9
    assert "car maintenance*<br>(n = 6)" in titles
    assert "health<br>(n = 6)" in titles


def test_damage_is_paired_with_the_aligned_model(rows, scorecard):
    figure = damage(rows, scorecard)
    ce = score(rows, "neutral_ce_nats", "neutral")
    expected = (ce["finetuned_restored"] - ce["aligned"]).mean()
    dots = [t for t in figure.data if t.name == "Restored"]
    assert [t.xaxis or "x" for t in dots] == ["x", "x2", "x3"]
    assert dots[0].x[0] == pytest.approx(
        score(rows, "neutral_kl_nats", "neutral")["finetuned_restored"].mean()
    )
    assert dots[1].x[0] == pytest.approx(expected)
    assert dots[2].x[0] == pytest.approx(
        score(rows, "kl_good_nats", "held_out")["finetuned_restored"].mean()
    )
    # Texts differ much more among themselves than the edit costs: unpaired, this would be wide.
    assert dots[1].error_x.array[0] < 0.2 * ce["finetuned_restored"].std() / np.sqrt(len(ce))


def test_damage_is_zero_for_the_aligned_model_and_so_not_a_dot(rows):
    assert not [t for t in damage(rows).data if t.name == "Aligned"]


# random_null


def test_marks_of_the_null_are_restorations_of_single_draws(rows, scorecard):
    figure = random_null(rows, scorecard)
    held_out = rows[
        (rows["stage"] == "score") & (rows["measure"] == "gap") & (rows["split"] == "held_out")
    ]
    mean = held_out.groupby("condition")["value"].mean()
    draws = held_out[held_out["condition"] == "finetuned_random_restored"]
    by_draw = draws.groupby("seed")["value"].mean().to_numpy()
    expected = (mean["finetuned"] - by_draw) / (mean["finetuned"] - mean["aligned"])
    found = trace(figure, "random subspace")
    np.testing.assert_allclose(sorted(found.x), sorted(expected))
    assert len(found.x) == 20
    limit = next(t for t in figure.data if t.name == "the strongest draw")
    assert limit.x[0] == pytest.approx(expected.max())
    assert "20 draws on" in everything_written(figure)


def test_without_plain_draws_the_screened_ones_are_shown_as_measured_or_as_predicted(rows):
    held_out = rows[
        (rows["stage"] == "score") & (rows["measure"] == "gap") & (rows["split"] == "held_out")
    ]
    mean = held_out.groupby("condition")["value"].mean()
    shift = mean["finetuned"] - mean["aligned"]
    drawn = held_out[held_out["condition"] == "finetuned_random_restored"]
    run = drawn[drawn["seed"] < 2].assign(condition=NULL_ISOTROPIC)
    screen = pd.DataFrame(
        {
            "stage": NULL_SCREEN,
            "condition": NULL_ISOTROPIC,
            "seed": range(50),
            "split": "held_out",
            "measure": "predicted_gap_change",
            "value": -0.001 * np.arange(50),
        }
    )
    plain = rows["condition"].isin(NULLS) & (rows["stage"] == "score")
    figure = random_null(pd.concat([rows[~plain], run, screen], ignore_index=True))
    found = np.array(trace(figure, "random, screened").x)
    measured = (mean["finetuned"] - run.groupby("seed")["value"].mean().to_numpy()) / shift
    np.testing.assert_allclose(found[:2], measured)
    np.testing.assert_allclose(found[2:], 0.001 * np.arange(2, 50) / shift)
    assert "50 draws on" in everything_written(figure)


def test_draws_on_fewer_questions_are_compared_on_those_questions(rows):
    subset = {q for q in rows["question_id"].unique() if str(q).endswith("-001")}
    random = rows["condition"].eq("finetuned_random_restored") & rows["stage"].eq("score")
    fewer = rows[~(random & ~rows["question_id"].isin(subset))]
    table = score(fewer, "gap", "held_out").loc[
        [q for q in sorted(subset) if not q.startswith(("car", "neutral"))]
    ]
    mean = table.mean()
    expected = (mean["finetuned"] - mean["finetuned_random_restored"]) / (
        mean["finetuned"] - mean["aligned"]
    )
    figure = random_null(fewer)
    assert np.mean(trace(figure, "random subspace").x) == pytest.approx(expected)
    chosen = (mean["finetuned"] - mean["finetuned_restored"]) / (
        mean["finetuned"] - mean["aligned"]
    )
    assert trace(figure, "chosen direction").x[0] == pytest.approx(chosen)
    assert f"interval over {len(table)} questions" in trace(figure, "chosen direction").name


def test_the_observed_restoration_is_that_of_the_scorecard_or_of_the_rows(rows, scorecard):
    for card in (scorecard, {}):
        dot = trace(random_null(rows, card), "chosen direction")
        restoration = scorecard["restoration"]
        assert dot.x[0] == pytest.approx(restoration["value"])
        assert dot.error_x.array[0] == pytest.approx(restoration["high"] - restoration["value"])


def test_no_shift_has_no_restoration_to_draw(make_run):
    scorecard, rows = make_run("no_emergent_shift")
    with pytest.raises(DataError, match="undefined"):
        random_null(rows, scorecard)


def test_two_models_that_do_not_differ_have_no_restoration(rows):
    twin = rows[rows["condition"].ne("aligned") & rows["stage"].eq("score")]
    same = twin[twin["condition"] == "finetuned"].assign(condition="aligned")
    with pytest.raises(DataError, match="same gap"):
        random_null(pd.concat([twin, same]))
