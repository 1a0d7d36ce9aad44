"""Models between grids: exact where points coincide, linear where it is finer, with the same travel time where coarser."""

from __future__ import annotations

import numpy as np
import pytest

from hpcfwi.model.resampling import Axis, covers, needed_samples, resample, shared_points

SAMPLES = Axis(21, 10.0, 100.0)


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (Axis(21, 10.0, 100.0), slice(0, 21)),
        (Axis(5, 10.0, 150.0), slice(5, 10)),
        (Axis(5, 10.0, 150.005), slice(5, 10)),  # a rounded coordinate
        (Axis(5, 10.0, 152.0), None),
        (Axis(5, 20.0, 100.0), None),
        (Axis(5, 5.0, 100.0), None),
        (Axis(22, 10.0, 100.0), None),
        (Axis(5, 10.0, 90.0), None),
    ],
)
def test_samples_on_all_points_of_the_grid_are_found(grid, expected):
    assert shared_points(SAMPLES, grid) == expected


@pytest.mark.parametrize(
    ("grid", "inside"),
    [
        (Axis(21, 10.0, 100.0), True),
        (Axis(23, 10.0, 90.0), True),  # a cell more on each side
        (Axis(24, 10.0, 90.0), False),
        (Axis(10, 10.0, 89.0), False),
        (Axis(11, 25.0, 75.0), True),  # of the larger cells
        (Axis(12, 25.0, 75.0), False),
    ],
)
def test_samples_cover_a_grid_to_within_a_cell(grid, inside):
    assert covers(SAMPLES, grid) == inside


def test_a_finer_grid_interpolates_velocity_linearly_and_extends_the_edges():
    velocity = 1 + SAMPLES.origin / 100 + 0.1 * np.arange(21.0)
    grid = Axis(60, 4.0, 92.0)
    places = np.clip(grid.origin + 4.0 * np.arange(60), 100.0, 300.0)
    np.testing.assert_allclose(resample(velocity, (SAMPLES,), (grid,)), 1 + places / 100, rtol=1e-14)


@pytest.mark.parametrize("grid", [Axis(7, 30.0, 110.0), Axis(8, 25.0, 107.5), Axis(4, 47.3, 125.0)])
def test_a_coarser_grid_keeps_the_travel_time_through_its_cells(grid):
    velocity = np.random.default_rng(0).uniform(1.5, 4.5, 21)
    found = resample(velocity, (SAMPLES,), (grid,))
    fine = np.linspace(grid.origin - grid.spacing / 2, grid.last + grid.spacing / 2, 200_001)
    middle = (fine[1:] + fine[:-1]) / 2
    slowness = 1 / velocity[np.clip(np.rint((middle - 100) / 10), 0, 20).astype(int)]
    times = (slowness * np.diff(fine)).reshape(grid.count, -1).sum(1) if 200_000 % grid.count == 0 else None
    total = (slowness * np.diff(fine)).sum()
    assert (grid.spacing / found).sum() == pytest.approx(total, rel=1e-4)
    if times is not None:
        np.testing.assert_allclose(grid.spacing / found, times, rtol=1e-4)


def test_cells_half_outside_of_the_samples_average_what_is_inside():
    velocity = np.array([2.0, 2.0, 4.0, 4.0, 3.0])
    found = resample(velocity, (Axis(5, 10.0, 0.0),), (Axis(3, 20.0, 0.0),))
    # cells from -10 to 10, 10 to 30 and 30 to 50 m; samples have cells from -5 to 5 m, ...
    inside = [(10 / 2 + 5 / 2) / 15, (5 / 2 + 10 / 4 + 5 / 4) / 20, (5 / 4 + 10 / 3) / 15]
    np.testing.assert_allclose(1 / found, inside, rtol=1e-14)


def test_axes_are_averaged_interpolated_or_kept_each_by_itself():
    velocity = np.random.default_rng(0).uniform(1.5, 4.5, (21, 9, 5))
    samples = (SAMPLES, Axis(9, 10.0, 0.0), Axis(5, 10.0, 0.0))
    grid = (Axis(10, 20.0, 110.0), Axis(17, 5.0, 0.0), Axis(5, 10.0, 0.0))
    found = resample(velocity, samples, grid)
    for k in range(5):
        for j in range(9):
            np.testing.assert_allclose(
                found[:, 2 * j, k], resample(velocity[:, j, k], samples[:1], grid[:1]), rtol=1e-13
            )
    np.testing.assert_allclose(found[:, 1], (found[:, 0] + found[:, 2]) / 2, rtol=1e-13)


def test_a_constant_model_stays_constant():
    grid = (Axis(9, 23.0, 110.0), Axis(30, 3.0, 101.0))
    np.testing.assert_allclose(resample(np.full((21, 21), 1.5), (SAMPLES, SAMPLES), grid), 1.5, rtol=1e-14)


@pytest.mark.parametrize(
    "grid", [Axis(3, 10.0, 152.0), Axis(9, 3.0, 240.0), Axis(3, 35.0, 150.0), Axis(22, 10.0, 95.0)]
)
def test_only_needed_samples_matter(grid):
    velocity = np.random.default_rng(0).uniform(1.5, 4.5, 21)
    part = needed_samples(SAMPLES, grid)
    cut = resample(velocity[part], (SAMPLES.part(part.start, part.stop),), (grid,))
    np.testing.assert_allclose(cut, resample(velocity, (SAMPLES,), (grid,)), rtol=1e-13)
    assert part.stop - part.start <= grid.count * grid.spacing / 10 + 4 * max(1, grid.spacing / 10)
