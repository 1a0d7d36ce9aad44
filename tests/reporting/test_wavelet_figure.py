"""The figure of an estimated wavelet: drawn without warnings, also of filters that explain nothing."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.source_estimate import SourceFilter, SourceFilters, transform_length
from hpcfwi.model.wavelet import RickerWavelet
from hpcfwi.reporting import plotting
from hpcfwi.reporting.wavelet_figure import wavelet_figure

pytestmark = pytest.mark.filterwarnings("error")

AXIS = TimeAxis(4.0, 151)
WAVELET = RickerWavelet(0.01, 100.0)
FREQUENCIES = np.fft.rfftfreq(transform_length(AXIS), AXIS.step)


@pytest.fixture(autouse=True)
def _style():
    with matplotlib.rc_context(plotting.STYLE):
        yield


def rotation(degrees: float, factor: float = 1e5) -> SourceFilter:
    return SourceFilter(np.full(len(FREQUENCIES), factor * np.exp(1j * np.radians(degrees))), AXIS, 0.9, 12.0)


def draw(filters: SourceFilters):
    figure = wavelet_figure(WAVELET, filters)
    figure.draw_without_rendering()
    return figure


def test_a_rotation_shows_as_a_constant_phase_and_the_factor_in_the_title():
    figure = draw(SourceFilters(rotation(90)))
    _, amplitude, phase = figure.axes
    np.testing.assert_allclose(phase.lines[0].get_ydata(), 90)
    spectrum = amplitude.lines[0]
    assert spectrum.get_xdata()[np.argmax(spectrum.get_ydata())] == pytest.approx(10, abs=1)
    assert figure.get_suptitle() == "Estimated wavelet: explains 90 % of the observed energy, condition 12"


def test_the_wavelet_that_does_not_change_is_the_same_before_and_after():
    figure = draw(SourceFilters(rotation(0, 3.0)))
    before, after = figure.axes[0].lines
    np.testing.assert_allclose(before.get_ydata(), after.get_ydata(), atol=1e-9)
    assert figure.axes[0].get_title() == "Wavelet, largest value 3"


def test_all_shots_are_drawn_with_one_entry_in_the_legend():
    figure = draw(SourceFilters(None, {str(i): rotation(10 * i) for i in range(20)}))
    assert len(figure.axes[0].lines) == 21
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert labels == ["before the estimate", "estimated, of each shot"]


@pytest.mark.parametrize("explained", [0.0, -1e-16])
def test_a_filter_of_zeros_is_drawn(explained):
    draw(SourceFilters(SourceFilter(np.zeros(len(FREQUENCIES), complex), AXIS, explained, 1.0)))


def test_one_shot_without_a_filter_does_not_hide_the_others():
    zero = SourceFilter(np.zeros(len(FREQUENCIES), complex), AXIS, 0.0, 1.0)
    figure = draw(SourceFilters(None, {"1": zero, "2": rotation(90)}))
    assert np.abs(figure.axes[0].lines[-1].get_ydata()).max() == 1
