"""Charts of the report: their words, and SVG that follows the theme of the page."""

from __future__ import annotations

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hpcfwi.inversion.history import Row
from hpcfwi.reporting.report.charts import DARK_THEME_INK, INK, convergence_charts, shot_misfits, some
from hpcfwi.reporting.report.data import RunModels, ShotMisfits


def svg(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/svg+xml;base64"
    text = base64.b64decode(content).decode()
    ElementTree.fromstring(text)
    return text


def rows(*misfits, model_error=None):
    return [Row(i, 2 * i + 1, f, f, model_error, None, 1.5, 1.5 * (i + 1)) for i, f in enumerate(misfits)]


def test_text_and_lines_have_the_colour_of_the_theme():
    (chart,) = convergence_charts([], {1: 2.0})
    text = svg(chart.picture)
    assert text.count(INK) == text.count(DARK_THEME_INK) == 1
    assert "var(--ink)" in text
    assert "prefers-color-scheme:dark" in text


def test_the_same_data_make_the_same_chart():
    first, second = (convergence_charts(rows(4.0, 1.0), {1: 4.0}) for _ in range(2))
    assert first == second


def test_charts_describe_their_first_and_last_values():
    charts = convergence_charts(rows(8.0, 4.0, 1.0, model_error=0.125), {1: 8.0, 2: 9.0, 5: 1.0})
    assert [chart.title for chart in charts] == ["Misfit", "Model error", "Gradient", "Time per iteration"]
    assert charts[0].summary == "Relative to that of the initial model: 12.5 % after 2 iterations and 5 evaluations."
    assert charts[1].summary.endswith("12.5 % at first, 12.5 % at last.")
    assert charts[2].summary == "Two-norm of the gradient: 8 at first, 1 at last."
    assert charts[3].summary.endswith("1.5 s at first, 1.5 s at last.")


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf, 1e300, 1e-300])
def test_extreme_values_are_drawn(value):
    for chart in convergence_charts(rows(value, 1.0, model_error=value), {1: value, 2: 1.0}):
        svg(chart.picture)


def test_the_largest_relative_misfits_come_first_in_the_table():
    misfits = ShotMisfits()
    for evaluation, values in ((1, [4.0, 4.0, 4.0]), (2, [1.0, 3.0, 2.0])):
        misfits.begin(evaluation)
        for name, value in zip("abc", values, strict=True):
            misfits.add(evaluation, name, value)
        misfits.end(evaluation)
    found = shot_misfits(misfits, RunModels())
    assert [(row["shot"], row["share"]) for row in found.worst] == [("b", 75.0), ("c", 50.0), ("a", 25.0)]
    assert found.chart.summary == "Misfit of each of 3 shots in evaluation 2: from 1 to 3, median 2."
    assert shot_misfits(ShotMisfits(), RunModels()) is None


def test_a_selection_is_even_and_has_the_first_and_the_last():
    assert some(5, 100).tolist() == [0, 1, 2, 3, 4]
    assert some(101, 5).tolist() == [0, 25, 50, 75, 100]
    assert some(0, 5).tolist() == []
