"""Axes, marks and rows of figures."""

import pytest
from markupsafe import Markup

from report.svg import Axis, FigureRow, Mark, Plot, axis_around, bars, path, row_figure
from tests.helpers.page import read_page


def test_axes_hold_all_values_even_if_they_are_one():
    axis = axis_around([0.13, 0.78], "", whole_steps=True)
    assert (axis.low, axis.high) == pytest.approx((0, 0.8))
    same = axis_around([1.0986, 1.0986], "")
    assert same.low < 1.0986 < same.high
    assert len(same.ticks()) >= 1


def test_marks_lie_where_the_axes_say():
    plot = Plot(Axis(0, 10, ""), Axis(0, 1, ""), top=0, bottom=100, left=50)
    right = plot.at(10, 0)[0]
    assert plot.at(0, 0) == (50, 100)
    assert plot.at(5, 1) == ((50 + right) / 2, 0)
    assert f'points="50,100 {right:g},0"' in path(plot, "model", [(0, 0), (10, 1)])
    bar = bars(plot, "model", [0, 10], [0.25])
    assert 'y="75"' in bar
    assert 'height="25"' in bar


def test_names_in_figures_are_text_and_long_ones_are_cut():
    drawn = row_figure(
        "key",
        "<title>",
        Markup("described"),
        [FigureRow("<script>" + "x" * 100, [Mark("model", (0, 1), 0.5)])],
        Axis(0, 1, "x"),
    )
    page = read_page(drawn)
    assert "script" not in page.tags
    assert page.labels == {"key-title": "<title>", "key-text": "described"}
    assert "x" * 100 not in drawn
    assert "x…" in drawn
