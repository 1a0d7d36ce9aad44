"""Colour limits, thinned positions and logarithmic axes of figures."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.reporting import plotting


def test_thinning_keeps_every_kth_point_of_a_line_and_a_few_of_a_cloud() -> None:
    line = np.c_[np.arange(100) * 0.01, np.zeros(100)]
    assert np.allclose(plotting.thin(line, 0.05)[:, 0], np.arange(20) * 0.05)
    assert np.array_equal(plotting.thin(line[::10], 0.05), line[::10])
    cloud = np.random.default_rng(0).random((5000, 2))
    assert 50 < len(plotting.thin(cloud, 0.1)) <= 121


def test_velocity_limits_cover_all_models_but_not_the_spikes_of_the_last() -> None:
    last = np.full((100, 100), 2.0)
    last[0, 0] = 50.0
    assert plotting.velocity_limits([1.5, 2.5], [np.nan, 3.0], last=last) == (1.5, 3.0)
    assert plotting.velocity_limits(last=np.full(9, 2.0)) == pytest.approx((1.95, 2.05))
    assert plotting.velocity_limits(last=[np.nan]) == (-0.0, 1.0)


def test_symmetric_limits_are_the_largest_percentile_or_maximum() -> None:
    spike = np.zeros(1000)
    spike[0] = -3.0
    assert plotting.symmetric_limits(spike) == (-3.0, 3.0)
    assert plotting.symmetric_limits(np.linspace(-1, 1, 1001), np.linspace(0, 0.5, 99), percent=100) == (-1.0, 1.0)
    assert plotting.symmetric_limits(np.zeros(3), []) == (-1.0, 1.0)


@pytest.mark.parametrize(
    ("values", "scale"), [([1.0, 5.0, np.nan], "log"), ([0.0, 2.0, 2.0], "linear"), ([], "linear")]
)
def test_an_axis_with_one_positive_value_stays_linear(values: list[float], scale: str) -> None:
    axes = plotting.new_figure((2.0, 2.0)).subplots()
    plotting.use_log_scale(axes, values)
    assert axes.get_yscale() == scale
