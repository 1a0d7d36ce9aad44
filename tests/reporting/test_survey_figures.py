"""The figure of a survey: it is drawn without warnings whatever the survey is, and shows what it says."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest
from field_files import line

from hpcfwi.model.gathers import Recording
from hpcfwi.model.grid import Domain
from hpcfwi.model.survey import Shot, Survey
from hpcfwi.model.survey_statistics import survey_statistics
from hpcfwi.reporting import plotting
from hpcfwi.reporting.formatting import counted
from hpcfwi.reporting.survey_figures import MAX_SHOTS, survey_figure

pytestmark = pytest.mark.filterwarnings("error")

DOMAIN = Domain((31, 21), (20.0, 20.0), (0.0, 0.0))
CUBE = Domain((31, 31, 21), (20.0, 20.0, 20.0), (0.0, 0.0, 0.0))
SPREAD = np.array([(100.0 * i, 100.0 * j, 0.0) for i in range(4) for j in range(3)])
# surveys by name: sources, and receivers of each
SURVEYS = {
    "a line": ([(100.0 * i, 0.0, 20.0) for i in range(5)], line(12)),
    "a line along y": ([(0.0, 100.0 * i, 20.0) for i in range(5)], line(12)[:, [1, 0, 2]]),
    "an area": ([(0.0, 0.0, 0.0), (300.0, 200.0, 0.0)], SPREAD),
    "one shot": ([(50.0, 0.0, 20.0)], line(12)),
    "one receiver": ([(100.0 * i, 0.0, 20.0) for i in range(5)], line(1)),
    "one trace": ([(100.0, 0.0, 20.0)], np.array([(100.0, 0.0, 20.0)])),
    "a well": ([(0.0, 0.0, 20.0)], np.array([(300.0, 0.0, 20.0 * i) for i in range(12)])),
    "two dimensions": ([(100.0 * i, 20.0) for i in range(5)], line(12)[:, [0, 2]]),
}


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.rc_context(plotting.STYLE):
        yield


def survey_of(sources, receivers) -> Survey:
    return Survey(tuple(Shot(str(i), np.array(source), receivers) for i, source in enumerate(sources)))


def recording(traces: int, samples: int = 101, start: float = 0.0) -> Recording:
    values = np.random.default_rng(0).normal(size=(samples, traces)).astype(np.float32)
    return Recording(values, 4.0, np.full(traces, start))


def draw(survey: Survey, stored: Recording | None = None, domain: Domain | None = None):
    shot = survey.shots[0]
    figure = survey_figure(survey, survey_statistics(survey), shot, stored or recording(len(shot.receivers)), domain)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize("name", SURVEYS)
def test_every_kind_of_survey_is_drawn(name):
    figure = draw(survey_of(*SURVEYS[name]))
    assert figure.axes[0].get_title() == counted(len(SURVEYS[name][0]), "shot")


def test_a_line_has_a_section_and_an_area_has_a_map():
    section, plane = (draw(survey_of(*SURVEYS[name])).axes[0] for name in ("a line", "an area"))
    assert section.get_ylabel() == "Depth (km)"
    assert section.yaxis_inverted()
    assert plane.get_ylabel() == "y (km)"
    assert plane.get_aspect() == 1


@pytest.mark.parametrize(("name", "domain"), [("two dimensions", DOMAIN), ("an area", CUBE)])
def test_the_frame_is_the_model(name, domain):
    axes = draw(survey_of(*SURVEYS[name]), domain=domain).axes[0]
    (frame,) = axes.lines
    assert np.ptp(frame.get_xdata()) == pytest.approx(0.6)
    assert "the frame is the model" in axes.get_title()


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf], ids=["zeros", "NaN", "infinite"])
def test_a_gather_of_broken_traces_is_drawn_empty(value):
    survey = survey_of(*SURVEYS["a line"])
    stored = Recording(np.full((101, 12), value, np.float32), 4.0, np.zeros(12))
    draw(survey, stored)


def test_one_loud_and_one_broken_trace_do_not_hide_the_others():
    stored = recording(12)
    stored.values[:, 3] *= 1e12
    stored.values[5, 4] = np.nan
    shown = draw(survey_of(*SURVEYS["a line"]), stored).axes[3].images[0].get_array()
    sizes = np.ma.filled(np.ma.std(np.ma.masked_invalid(shown), axis=0), np.nan)
    assert np.isnan(sizes[4])
    np.testing.assert_allclose(np.delete(sizes, 4), 1, rtol=0.1)


def test_the_time_axis_begins_with_the_first_sample():
    axes = draw(survey_of(*SURVEYS["a line"]), recording(12, start=-100.0)).axes[3]
    assert sorted(axes.get_ylim()) == [pytest.approx(-0.102), pytest.approx(0.302)]


def test_of_a_large_survey_a_part_of_the_shots_is_drawn_and_told():
    survey = survey_of([(10.0 * i, 0.0, 0.0) for i in range(3 * MAX_SHOTS)], line(3))
    assert draw(survey).axes[0].get_title() == f"{3 * MAX_SHOTS} shots, of which {MAX_SHOTS} are drawn"


def test_bars_and_fold_have_every_trace():
    figure = draw(survey_of(*SURVEYS["a line"]))
    (stairs,) = figure.axes[2].patches
    assert stairs.get_data().values.sum() == 60
