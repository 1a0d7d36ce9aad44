"""The grid, time axes and their limits."""

import numpy as np
import pytest
from sympy import finite_diff_weights

from hpcfwi.model.grid import (
    Domain,
    TimeAxis,
    courant_limit,
    critical_step,
    phase_error,
    safe_step,
    second_derivative_weights,
)

ORDERS = range(2, 33, 2)


@pytest.mark.parametrize("order", ORDERS)
def test_weights_are_those_of_sympy(order):
    half = order // 2
    theirs = [float(w) for w in finite_diff_weights(2, range(-half, half + 1), 0)[-1][-1]]
    assert second_derivative_weights(order) == pytest.approx(theirs[half:], rel=1e-12)


@pytest.mark.parametrize("order", [2, 8, 16])
def test_courant_limit_is_where_leap_frog_begins_to_grow(order):
    points, h, v = 24, 10.0, 3.0
    half = order // 2
    weights = second_derivative_weights(order)
    laplacian = np.zeros((points, points))
    for offset in range(-half, half + 1):
        laplacian += weights[abs(offset)] * np.roll(np.eye(points), offset, axis=1) / h**2
    fastest = np.sqrt(2 * np.abs(np.linalg.eigvalsh(laplacian)).max()) * v  # on a square grid
    assert courant_limit(Domain((points, points), (h, h), (0.0, 0.0)), order, v) == pytest.approx(2 / fastest, rel=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("order", [2, 4, 8])
def test_steps_are_those_of_devitos_model(order, ndim):
    seismic = pytest.importorskip("examples.seismic")
    domain = Domain((11,) * ndim, (10.0,) * ndim, (0.0,) * ndim)
    model = seismic.Model(
        vp=np.full(domain.shape, 2.7), origin=domain.origin, shape=domain.shape, spacing=domain.spacing, nbl=4,
        space_order=order, bcs="damp", dtype=np.float64,
    )  # fmt: skip
    assert safe_step(domain, order, 2.7) == pytest.approx(float(model.critical_dt), rel=1e-6)
    assert critical_step(domain, 2 * order, 2.7, nearest=True) == pytest.approx(float(model.critical_dt), rel=1e-6)


@pytest.mark.parametrize("order", range(2, 17, 2))
@pytest.mark.parametrize("spacing", [(10.0, 10.0), (10.0, 25.0), (5.0, 8.0, 20.0)])
def test_the_fixed_step_is_below_the_limit(order, spacing):
    domain = Domain((11,) * len(spacing), spacing, (0.0,) * len(spacing))
    for velocity in (1.5, 2.345, 5.5):
        limit = courant_limit(domain, order, velocity)
        assert safe_step(domain, order, velocity) < limit
        assert 0.999 * limit < critical_step(domain, order, velocity) <= limit


def test_an_axis_covers_its_duration_and_no_more():
    for step in (1.0, 1.387, 2.449, 4.0, 0.333):
        axis = TimeAxis.covering(1000.0, step)
        assert axis.times[-2] < 1000.0 <= axis.times[-1] + 1e-6


@pytest.mark.parametrize("order", [2, 4, 8])
def test_phase_error_is_that_of_a_plane_wave_on_the_grid(order):
    points, courant, cells = 5.0, 0.3, 200
    wavenumber = 2 * np.pi / points
    weights = second_derivative_weights(order)
    x = np.arange(cells)
    # a standing wave on a ring: its frequency under leap-frog is that of the discrete operator
    wave = np.exp(1j * wavenumber * x)
    step = sum((weights[abs(j)] if j else weights[0]) * np.roll(wave, j) for j in range(-(order // 2), order // 2 + 1))
    eigenvalue = (step / wave).real.mean()
    frequency = np.arccos(1 + 0.5 * courant**2 * eigenvalue) / courant
    assert phase_error(points, order, courant) == pytest.approx(frequency / wavenumber - 1, abs=1e-10)


def test_positions_on_the_edge_are_inside_and_those_beyond_are_not():
    domain = Domain((7, 5), (10.0, 20.0), (0.0, 100.0))
    assert domain.contains([[0.0, 100.0], [60.0, 180.0], [30.5, 111.0]]).all()
    assert not domain.contains([[-0.1, 100.0], [60.0, 180.1], [61.0, 111.0]]).any()
