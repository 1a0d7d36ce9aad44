"""Mutes and windows, by examples."""

import numpy as np
import pytest

from hpcfwi.model.grid import TimeAxis
from hpcfwi.model.processing.mutes import BottomMute, Moveout, OffsetWindow, TimeWindow, TopMute, offsets
from hpcfwi.model.processing.picks import Picks
from hpcfwi.model.survey import Shot

AXIS = TimeAxis(10.0, 11)  # to 100 ms
SHOT = Shot("7", np.array([50.0, 10.0]), np.array([[50.0, 10.0], [90.0, 40.0], [-50.0, 10.0]]))  # offsets 0, 50, 100 m


def kept(step):
    """Samples of each trace that stay."""
    weights = np.broadcast_to(step.build(SHOT, AXIS).values, (11, 3))
    return [(AXIS.times[np.flatnonzero(column)[[0, -1]]]).tolist() if column.any() else [] for column in weights.T]


def test_an_offset_is_the_distance_from_the_source():
    np.testing.assert_allclose(offsets(SHOT), [0, 50, 100])


def test_a_top_mute_keeps_what_comes_after_its_time():
    assert kept(TopMute(Moveout(2.0, 20.0), 0.0)) == [[20, 100], [50, 100], [70, 100]]  # 20, 45 and 70 ms
    assert kept(TopMute(Moveout(None, 35.0), 0.0)) == [[40, 100]] * 3


def test_a_bottom_mute_keeps_what_comes_before_its_time():
    assert kept(BottomMute(Moveout(2.0, 20.0), 0.0)) == [[0, 20], [0, 40], [0, 70]]


def test_tapers_are_inside_of_what_is_kept():
    top = TopMute(Moveout(None, 20.0), 40.0).build(SHOT, AXIS).values[:, 0]
    np.testing.assert_allclose(top[:8], [0, 0, 0, 0.146447, 0.5, 0.853553, 1, 1], atol=1e-6)
    bottom = BottomMute(Moveout(None, 80.0), 40.0).build(SHOT, AXIS).values[:, 0]
    np.testing.assert_allclose(bottom, top[::-1], atol=1e-12)


def test_picks_replace_the_formula():
    picks = Picks((("", (10.0, 60.0), (0.0, 50.0)),))
    assert kept(TopMute(picks, 0.0)) == [[0, 100], [40, 100], [50, 100]]  # constant beyond the picks


def test_an_offset_window_keeps_traces():
    assert kept(OffsetWindow(40.0, 90.0, 0.0)) == [[], [0, 100], []]
    weights = OffsetWindow(None, 100.0, 100.0).build(SHOT, AXIS).values
    np.testing.assert_allclose(weights, [[1, 0.5, 0]], atol=1e-12)


def test_a_time_window_keeps_samples():
    assert kept(TimeWindow(25.0, 60.0, 0.0)) == [[30, 60]] * 3
    np.testing.assert_allclose(TimeWindow(20.0, None, 20.0).build(SHOT, AXIS).values[1:5, 0], [0, 0, 0.5, 1])


@pytest.mark.parametrize(
    "step", [TopMute(Moveout(2.0, 20.0), 13.0), OffsetWindow(10.0, 90.0, 30.0), TimeWindow(20.0, 80.0, 30.0)]
)
def test_the_transpose_of_a_mute_passes_the_dot_product_test(step):
    operator = step.build(SHOT, AXIS)
    x, y = np.random.default_rng(2).standard_normal((2, 11, 3))
    assert (operator.apply(x) * y).sum() == pytest.approx((x * operator.transpose(y)).sum(), rel=1e-12)
