"""From the coordinates of a survey to those of the model and back, and straight sections through positions."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hpcfwi.config.data import TransformSection
from hpcfwi.model.coordinates import Transform, fit_line

POINTS = np.random.default_rng(0).uniform(-1000, 1000, (20, 3)) + np.array([500_000, 6_000_000, 0])


def transform(origin=(0.0, 0.0), azimuth=90.0, ndim=3) -> Transform:
    return Transform.from_config(TransformSection(origin=origin, azimuth=azimuth), ndim)


def test_without_a_section_positions_stay_as_they_are():
    np.testing.assert_array_equal(Transform.from_config(None, 3).apply(POINTS), POINTS)
    np.testing.assert_array_equal(Transform.from_config(None, 2).apply(POINTS), POINTS[:, [0, 2]])


def test_the_origin_is_subtracted_exactly():
    moved = transform((500_000.0, 6_000_000.0)).apply(POINTS)
    np.testing.assert_array_equal(moved, POINTS - [500_000, 6_000_000, 0])


@pytest.mark.parametrize(
    ("azimuth", "east", "north"),
    [
        (90, (1, 0), (0, 1)),
        (0, (0, -1), (1, 0)),
        (180, (0, 1), (-1, 0)),
        (270, (-1, 0), (0, -1)),
        (-90, (-1, 0), (0, -1)),
    ],
)
def test_the_azimuth_is_the_direction_of_x_clockwise_from_north(azimuth, east, north):
    """A step to the east, and one to the north, as the model sees them."""
    found = transform(azimuth=azimuth).apply(np.array([[1.0, 0, 0], [0, 1.0, 0]]))
    np.testing.assert_allclose(found[:, :2], [east, north], atol=1e-15)


@pytest.mark.parametrize("azimuth", [0.0, 37.5, 90.0, 200.0])
def test_a_rotation_keeps_distances_and_handedness(azimuth):
    found = transform((500_000.0, 6_000_000.0), azimuth).apply(POINTS)
    np.testing.assert_allclose(
        np.linalg.norm(found[1:] - found[:-1], axis=1), np.linalg.norm(POINTS[1:] - POINTS[:-1], axis=1), rtol=1e-9
    )
    a, b, c = (found[1] - found[0])[:2], (found[2] - found[0])[:2], POINTS[:3, :2]
    assert np.sign(a[0] * b[1] - a[1] * b[0]) == np.sign(np.linalg.det([c[1] - c[0], c[2] - c[0]]))


def test_a_section_projects_positions_and_tells_their_distances():
    along = np.linspace(0, 1000, 11)
    angle = np.radians(30)
    points = np.stack([along * np.sin(angle), along * np.cos(angle), np.full(11, 7.0)], axis=1)
    beside = points + 25 * np.array([-np.cos(angle), np.sin(angle), 0])
    section = transform(azimuth=30, ndim=2)
    np.testing.assert_allclose(section.apply(beside), np.stack([along, np.full(11, 7.0)], axis=1), atol=1e-9)
    np.testing.assert_allclose(section.distances(beside), 25)


@pytest.mark.parametrize("azimuth", [0.0, 37.5, 90.0, 200.0])
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_moved_transform_puts_positions_further_along_the_axes(azimuth, ndim):
    given = transform((500_000.0, 6_000_000.0), azimuth, ndim)
    moved = given.moved([300.0, -50.0])
    expected = given.apply(POINTS) + ([300.0, -50.0, 0.0] if ndim == 3 else [300.0, 0.0])
    np.testing.assert_allclose(moved.apply(POINTS), expected, atol=1e-8)


def test_what_to_type_says_the_same_transform():
    assert transform((431_250.0, 6_780_000.5), 12.25).settings == (
        "--set data.transform.origin=[431250,6780000.50] --set data.transform.azimuth=12.25"
    )
    assert transform((-3.0, 0.0)).settings == "--set data.transform.origin=[-3,0]"
    assert re.search(r"azimuth=359\.99$", transform(azimuth=359.99).settings)


@pytest.mark.parametrize("azimuth", [0.0, 45.0, 90.0, 123.45, 270.0, 359.0])
def test_a_line_is_found_from_its_first_to_its_last_point(azimuth):
    angle, along = np.radians(azimuth), np.linspace(0, 5000, 101)
    noise = np.random.default_rng(1).normal(0, 3, 101)
    x = 431_000 + along * np.sin(angle) - noise * np.cos(angle)
    y = 6_780_000 + along * np.cos(angle) + noise * np.sin(angle)
    section = fit_line(np.stack([x, y], axis=1))
    assert abs((section.azimuth - azimuth + 180) % 360 - 180) < 0.1
    points = np.stack([x, y, 0 * x], axis=1)
    assert np.abs(section.distances(points)).max() < 12
    places = section.apply(points)[:, 0]
    np.testing.assert_allclose(places, along, atol=10)
    assert places[0] == pytest.approx(0, abs=1e-6)


def test_one_position_has_a_line_too():
    assert np.isfinite(fit_line(POINTS[:1]).origin).all()
    assert np.isfinite(fit_line(np.repeat(POINTS[:1], 3, axis=0)).azimuth)
