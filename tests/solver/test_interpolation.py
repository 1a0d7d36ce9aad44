"""Weights of grid points around sources and receivers."""

from dataclasses import replace

import numpy as np
import pytest

from hpcfwi.config.run import load_run_config
from hpcfwi.model.grid import Domain
from hpcfwi.model.problem import Problem
from hpcfwi.solver.boundary import Cpml
from hpcfwi.solver.interpolation import points_needed, stencils

DOMAIN = Domain((31, 21), (10.0, 12.5), (100.0, 50.0))


def along_x(cells, points=8, domain=DOMAIN, free_surface=False):
    """First point and weights along x of positions in the middle of the model's depth; points count from its first one."""
    positions = np.stack([100.0 + 10.0 * np.asarray(cells), np.full(len(cells), 175.0)], axis=1)
    boundary = Cpml(domain, 10, free_surface)
    first, weights = stencils(boundary, positions, points)
    place = boundary.memory_order.index(0)
    return first[:, place] - 10, weights[:, place]


def along_z(cells, points=8, free_surface=True):
    positions = np.stack([np.full(len(cells), 250.0), 50.0 + 12.5 * np.asarray(cells)], axis=1)
    boundary = Cpml(DOMAIN, 10, free_surface)
    first, weights = stencils(boundary, positions, points)
    place = boundary.memory_order.index(1)
    return first[:, place] - boundary.widths[1][0], weights[:, place]


@pytest.mark.parametrize("points", [2, 4, 8])
def test_a_position_on_a_grid_point_has_that_point_alone(points):
    cells = np.arange(31.0)
    first, weights = along_x(cells, points)
    found = np.zeros((31, 31))
    np.add.at(found, (np.arange(31)[:, None], first[:, None] + np.arange(points)), weights)
    np.testing.assert_array_equal(found, np.eye(31))


def test_two_points_interpolate_linearly():
    first, weights = along_x([0.25, 12.5, 29.75], 2)
    np.testing.assert_array_equal(first, [0, 12, 29])
    np.testing.assert_allclose(weights, [[0.75, 0.25], [0.5, 0.5], [0.25, 0.75]])


def test_waves_of_five_points_per_wavelength_are_reproduced_to_two_parts_in_ten_thousand():
    cells = np.linspace(4, 26, 2201)
    first, weights = along_x(cells)
    index = first[:, None] + np.arange(8)
    for points_per_wavelength, largest in ((20, 2e-4), (8, 2e-4), (5, 2.5e-4), (4, 2e-3)):
        k = 2 * np.pi / points_per_wavelength
        errors = np.abs((weights * np.exp(1j * k * index)).sum(axis=1) - np.exp(1j * k * cells))
        assert errors.max() < largest


def test_positions_next_to_an_absorbing_edge_use_points_of_the_model_only():
    cells = np.concatenate([np.linspace(0, 4, 81), np.linspace(26, 30, 81)])
    first, weights = along_x(cells)
    assert first.min() == 0
    assert first.max() == 30 - 7
    index = first[:, None] + np.arange(8)
    k = 2 * np.pi / 5
    assert np.abs((weights * np.exp(1j * k * index)).sum(axis=1) - np.exp(1j * k * cells)).max() < 2e-3


def test_weights_at_a_free_surface_are_those_of_a_field_with_an_odd_image():
    cells = np.linspace(0, 5, 201)
    first, weights = along_z(cells)
    rows = first[:, None] + np.arange(8)
    assert rows.min() == 0
    wave = np.sin(2 * np.pi / 5 * rows)  # odd
    np.testing.assert_allclose((weights * wave).sum(axis=1), np.sin(2 * np.pi / 5 * cells), atol=3e-4)
    np.testing.assert_array_equal(weights[rows == 0], 0)  # the pressure is zero there
    np.testing.assert_array_equal(along_z([0.0])[1], 0)


def test_positions_outside_through_rounding_are_moved_onto_the_edge():
    first, weights = along_x([-1e-7, 30 + 1e-7])
    np.testing.assert_array_equal(first, [0, 23])
    np.testing.assert_array_equal(weights, np.eye(8)[[0, 7]])


def test_the_same_survey_at_other_coordinates_has_the_same_weights():
    rng = np.random.default_rng(1)
    for points in (2, 8):
        found = []
        positions = np.stack([rng.uniform(100, 400, 1000), rng.uniform(50, 300, 1000)], axis=1).round(2)
        for shift in (np.zeros(2), np.array([5_804_000.0, 640_000.0])):
            origin = np.add(DOMAIN.origin, shift)
            boundary = Cpml(replace(DOMAIN, origin=tuple(origin)), 10)
            found.append(stencils(boundary, positions + shift, points))
        np.testing.assert_array_equal(found[0][0], found[1][0])
        np.testing.assert_array_equal(found[0][1], found[1][1])


def problem(*settings):
    return Problem.from_config(load_run_config("jobs/circle.toml", settings))


def test_only_positions_between_grid_points_need_more_than_two_points():
    aligned = "acquisition.receivers.first=[980, 10]", "acquisition.sources.first=[20, 10]"
    lines = "acquisition.receivers.last=[980, 990]", "acquisition.sources.last=[20, 1000]"
    counts = "acquisition.receivers.count=99", "acquisition.sources.count=100"
    on_grid = (*aligned, *lines, *counts)
    assert points_needed(problem(*on_grid)) == 2
    off_grid = (*on_grid, "acquisition.receivers.first=[980.5, 10]", "acquisition.receivers.last=[980.5, 990]")
    assert points_needed(problem(*off_grid)) == 8
    assert points_needed(problem(*off_grid, "solver.interpolation=linear")) == 2
    assert points_needed(problem(*off_grid, "solver.space_order=2")) == 4  # as wide as the halo
