"""Charts as SVG: well-formed, inside their frame, and true to the numbers."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched import charts

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(text: str):
    return ET.fromstring(text)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_ticks_lie_within_the_axis_and_are_few(values):
    axis = charts.Axis.holding("x", values)
    marks = axis.marks()
    assert 1 <= len(marks) <= 12
    slack = 1e-6 * (axis.high - axis.low)
    assert all(axis.low - slack <= mark <= axis.high + slack for mark in marks)


@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12))
def test_every_point_is_drawn_inside(pairs):
    points = [charts.Point(f"p{i}", x, y) for i, (x, y) in enumerate(pairs)]
    x, y = charts.Axis.holding("x", [p.x for p in points]), charts.Axis.holding("y", [p.y for p in points])
    circles = list(parsed(charts.scatter("t", points, x, y)).iter(f"{SVG}circle"))
    assert len(circles) == len(points)
    assert all(0 <= float(c.get("cx")) <= charts.WIDTH and 0 <= float(c.get("cy")) <= charts.HEIGHT for c in circles)


def test_bars_are_as_long_as_their_values():
    rows = [charts.Bar("one", 10.0, 5.0, 20.0), charts.Bar("two", 20.0, strong=True)]
    rects = list(parsed(charts.bars("t", rows, charts.Axis("", 0, 25))).iter(f"{SVG}rect"))
    one, two = (float(rect.get("width")) for rect in rects)
    assert two == pytest.approx(2 * one, abs=0.2)


def test_negative_values_hang_below_the_zero_line():
    text = charts.columns("t", ["a"], [("g", [5.0]), ("h", [-5.0])], charts.Axis("y", -10, 10))
    up, down = list(parsed(text).iter(f"{SVG}rect"))[:2]
    assert float(up.get("y")) + float(up.get("height")) == pytest.approx(float(down.get("y")), abs=0.2)


def test_missing_values_leave_gaps():
    rects = list(
        parsed(charts.columns("t", ["a", "b"], [("g", [1.0, None])], charts.Axis("y", 0, 2))).iter(f"{SVG}rect")
    )
    assert len(rects) == 2, "one bar and one mark in the legend"
    line = charts.lines("t", [charts.Series("s", [0, 1, 2], [1, float("nan"), 3])], *_axes())
    assert re.search(r'd="M[\d. ]+ L[\d. ]+" fill="none"', line)


def test_a_right_axis_scales_its_own_series():
    series = [charts.Series("l", [0, 1], [0, 2], 1), charts.Series("r", [0, 1], [0, 200], 3, right=True)]
    x, y = _axes()
    paths = [p.get("d") for p in parsed(charts.lines("t", series, x, y, charts.Axis("", 0, 200))).iter(f"{SVG}path")]
    assert paths[0] == paths[1] or paths[0].split("L")[0] == paths[1].split("L")[0]


def test_names_are_escaped():
    text = charts.bars("a <b> & c", [charts.Bar("<script>", 1.0)], charts.Axis("", 0, 1))
    assert "<script>" not in text
    assert parsed(text).find(f"{SVG}title").text == "a <b> & c"


def test_labels_of_a_scatter_plot_cover_no_other_label():
    points = [charts.Point(f"a long name {i}", 1.0, 1.0 + i / 1000) for i in range(4)]
    text = charts.scatter("t", points, charts.Axis("", 0, 2), charts.Axis("", 0, 2))
    shown = [(float(t.get("x")), float(t.get("y"))) for t in parsed(text).iter(f"{SVG}text") if "name" in t.text]
    assert len(shown) == len(set(shown)) == 4


def _axes():
    return charts.Axis("x", 0, 2), charts.Axis("y", 0, 4)
