"""Plots: what they draw, in which units; and that they leave no global state behind."""

import sys
from io import BytesIO

import numpy as np
import pytest

from mace_bounds.metrics import CalibrationCurve, coverage_table
from mace_bounds.plots import (
    plot_calibration,
    plot_coverage_by_group,
    plot_error_against_width,
    plot_parity,
    plot_reliability,
    plot_residuals,
    plot_widths,
    save_plot,
)
from mace_bounds.plots.style import new_axes

RNG = np.random.default_rng(0)
SIGMA = 0.03 * np.exp(RNG.normal(0, 0.5, 300))
RESIDUAL = SIGMA * RNG.standard_normal(300)
ELEMENTS = [tuple(RNG.choice(["Li", "O", "Fe", "Na"], 2, replace=False)) for _ in range(300)]


def table():
    return coverage_table(RESIDUAL, -1.6 * SIGMA, 1.6 * SIGMA, 0.9, by={"element": ELEMENTS})


LEVELS = np.linspace(0.1, 0.9, 9)
MAKERS = {
    "calibration": lambda ax: plot_calibration(
        CalibrationCurve(LEVELS, LEVELS + 0.01, LEVELS - 0.02, LEVELS + 0.03, 200), ax=ax
    ),
    "coverage": lambda ax: plot_coverage_by_group(table(), "element", 0.9, ax=ax),
    "reliability": lambda ax: plot_reliability(RESIDUAL, SIGMA, ax=ax),
    "width": lambda ax: plot_error_against_width(RESIDUAL, SIGMA, {0.9: 1.64, 0.99: np.inf}, ax=ax),
    "parity": lambda ax: plot_parity(-5 + RNG.random(300), -5 + RNG.random(300), ax=ax),
    "widths": lambda ax: plot_widths({0.9: 1.6 * SIGMA, 0.99: np.full(300, np.inf)}, ax=ax),
    "residuals": lambda ax: plot_residuals(RESIDUAL, ax=ax),
}


@pytest.mark.parametrize("name", MAKERS)
def test_every_plot_draws_on_the_given_axes_or_its_own(name):
    given = new_axes()
    assert MAKERS[name](given) is given
    own = MAKERS[name](None)
    buffer = BytesIO()
    own.get_figure().savefig(buffer, format="png", dpi=40)
    assert buffer.getvalue().startswith(b"\x89PNG")
    assert own.get_xlabel()
    assert bool(own.get_title(loc="left")) == (name != "calibration")  # for a paper: no title inside


LONG = "structures of a source_with_a_very_long_name.json.gz that no figure has the room for in one line"
LONG_MAKERS = {
    "beyond chance": lambda: plot_coverage_by_group(
        coverage_table(
            np.ones(90), -np.ones(90) / 2, np.ones(90) / 2, 0.9, by={"source": [LONG.replace(" ", "_")] * 90}
        ),
        "source",
        0.9,
    ),
    "coverage": lambda: plot_coverage_by_group(
        table().replace({"group": {"Fe": LONG.replace(" ", "_")}}), "element", 0.9, split=LONG
    ),
    "reliability": lambda: plot_reliability(RESIDUAL, SIGMA, split=LONG),
    "parity": lambda: plot_parity(
        -5 + RNG.random(9), -5 + RNG.random(9), model=LONG.replace(" ", "_"), split=LONG
    ),
    "widths": lambda: plot_widths({0.9: 1.6 * SIGMA}, split=LONG),
    "residuals": lambda: plot_residuals(RESIDUAL, split=LONG),
}


@pytest.mark.parametrize(
    "draw", [*MAKERS.values(), *(lambda _, d=draw: d() for draw in LONG_MAKERS.values())]
)
def test_no_text_leaves_its_figure(draw):
    axes = draw(None)
    figure = axes.get_figure()
    figure.draw_without_rendering()
    renderer = figure.canvas.get_renderer()
    frame = figure.bbox
    low, high = axes.get_ylim()
    ticks = [tick for tick in axes.get_yticklabels() if low <= tick.get_position()[1] <= high]
    drawn = axes.get_legend()
    legend = [] if drawn is None else drawn.get_texts()
    for text in (axes.xaxis.label, axes.yaxis.label, axes._left_title, *ticks, *legend):
        if text.get_text() and text.get_visible():
            box = text.get_window_extent(renderer)
            assert frame.x0 - 1 <= box.x0
            assert box.x1 <= frame.x1 + 1
            assert frame.y0 - 1 <= box.y0
            assert box.y1 <= frame.y1 + 1
    assert axes.get_position().width > 0.3  # long texts leave room for the data


def test_the_calibration_curve_is_in_percent_with_marks_at_the_levels():
    curve = CalibrationCurve(LEVELS, LEVELS + 0.05, LEVELS - 0.02, LEVELS + 0.09, 1234)
    ax = plot_calibration(curve, marks=(0.5, 0.9, 0.95))
    line = next(line for line in ax.lines if line.get_label().startswith("measured"))
    np.testing.assert_allclose(line.get_xydata(), 100 * np.column_stack([LEVELS, LEVELS + 0.05]))
    # trapezia from (0, 0) over 0.05 on [0.1, 0.9] to (1, 1): 0.05 (0.8 + 0.1)
    assert line.get_label() == "measured\nn = 1,234, mean gap 4.5 points"
    marks = next(line for line in ax.lines if line.get_marker() == "o")
    np.testing.assert_allclose(marks.get_xydata(), [[50, 55], [90, 95]])  # 95 is beyond the curve
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("Nominal coverage (%)", "Measured coverage (%)")
    assert plot_calibration(curve, label="other", ax=ax) is ax
    labels = [text.get_text().split("\n")[0] for text in ax.get_legend().get_texts()]
    assert labels == ["measured", "other"]
    colours = {line.get_color() for line in ax.lines if "mean gap" in line.get_label()}
    assert len(colours) == 2


def test_groups_are_coloured_only_beyond_chance():
    from matplotlib.colors import to_rgb

    inside = np.concatenate([np.arange(40) < hits for hits in (36, 33, 20)])
    data = coverage_table(
        np.where(inside, 0.0, 2.0),
        -np.ones(120),
        np.ones(120),
        0.9,
        by={"x": ["a"] * 40 + ["b"] * 40 + ["c"] * 40},
    )
    ax = plot_coverage_by_group(data, "x", 0.9)
    colours = {
        float(x): to_rgb(line.get_color())
        for line in ax.lines
        if line.get_marker() == "o"
        for x in line.get_xdata()
    }
    assert sorted(colours) == [50.0, 82.5, 90.0]
    assert colours[82.5] == colours[90.0]
    assert max(colours[90.0]) == min(colours[90.0])  # grey
    assert colours[50.0][0] > colours[50.0][2] + 0.5  # red


def test_energies_are_drawn_in_mev_per_atom():
    ax = plot_error_against_width([0.010, 0.020], [0.010, 0.030], {0.9: 2.0})
    np.testing.assert_allclose(ax.collections[0].get_offsets(), [[10.0, 10.0], [30.0, 20.0]])
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(y, 2.0 * np.asarray(x))
    assert "meV/atom" in ax.get_xlabel()
    assert ax.get_legend().get_texts()[0].get_text() == "90 %  (100.0)"


def test_groups_are_sorted_with_the_lowest_coverage_on_top():
    data = table()
    ax = plot_coverage_by_group(data, "element", 0.9)
    ticks = sorted(ax.get_yticklabels(), key=lambda t: -t.get_position()[1])
    expected = data[data["by"] == "element"].sort_values("coverage")["group"].tolist()
    assert [tick.get_text().split()[0] for tick in ticks] == expected
    short = plot_coverage_by_group(data, "element", 0.9, most=2, split="test")
    assert len(short.get_yticks()) == 2
    assert short.get_title(loc="left").replace("\n", " ") == "Coverage by element, 2 lowest of 4: test"
    assert "%" in short.get_xlabel()
    low, high = short.get_xlim()
    assert low < 90 < high


def test_titles_state_split_and_number_of_rows():
    assert plot_residuals(RESIDUAL, split="unseen").get_title(loc="left") == "Residuals: unseen, n = 300"


def test_reliability_bins_hold_the_right_numbers():
    ax = plot_reliability([0.001, -0.001, 0.006, -0.006], [0.001, 0.001, 0.003, 0.003], n_bins=2)
    rmse = next(line for line in ax.lines if line.get_label() == "root mean square")
    np.testing.assert_allclose(rmse.get_xydata(), [[1.0, 1.0], [3.0, 6.0]])


def test_many_rows_become_a_density_and_extremes_are_kept_in_the_last_bars():
    many = np.concatenate([0.02 * RNG.standard_normal(5000), [10.0, -10.0]])
    ax = plot_error_against_width(many, np.full(5002, 0.02) * RNG.uniform(0.5, 2, 5002), {})
    assert type(ax.collections[0]).__name__ == "PolyCollection"
    bars = plot_residuals(many).patches
    assert sum(bar.get_height() for bar in bars) == 5002


def test_pyplot_is_not_touched():
    before = sys.modules.get("matplotlib.pyplot")
    numbers = before.get_fignums() if before else []
    plot_residuals(RESIDUAL)
    after = sys.modules.get("matplotlib.pyplot")
    assert (after.get_fignums() if after else []) == numbers


def test_saved_files_have_their_suffix(tmp_path):
    ax = plot_residuals(RESIDUAL)
    save_plot(ax, tmp_path / "a.svg")
    save_plot(ax, tmp_path / "a.png", dpi=30)
    assert (tmp_path / "a.svg").read_text().lstrip().startswith("<?xml")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
